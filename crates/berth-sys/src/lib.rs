//! Safe wrappers of system calls; the only `unsafe`.
//!
//! Rustix is used directly by every crate for what is safe there. This crate has what rustix lacks, and what
//! needs an idiom that must be right everywhere. Nothing here holds state or spawns a thread.
pub mod beneath;
pub mod bpf;
pub mod command;
pub mod datagram;
pub mod ids;
pub mod inherited;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod payload;
pub mod process;
pub mod quota;
pub mod rtnetlink;
pub mod sealed;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod user_namespace;
pub mod writeback;
