//! An OCI runtime: namespaces, cgroups, mounts, seccomp, capabilities; its command line.
//!
//! It makes containers and joins them; it records nothing. Nothing here runs another program, but for the hooks that
//! a configuration names.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cgroup;
pub mod cli;
pub mod defaults;
pub mod hooks;
pub mod ids;
mod init;
pub mod launch;
pub mod seccomp;
pub mod user;

pub use init::view;
