//! The per-container process, its protocol and its client.
//!
//! The daemon starts a small [`spawner`], asks it for one shim per container, and speaks with each shim over a private
//! socket ([`client`], [`protocol`]). A shim outlives spawner and daemon: it holds the container's streams, writes its
//! [`log`], waits for its end and keeps the exit status until a daemon has recorded it.
#![forbid(unsafe_code)]

mod channel;
pub mod client;
pub mod log;
pub mod protocol;
mod readiness;
mod shim;
pub mod spawner;
