//! Containers and their life: create, start, exec, attach, events, adoption.
//!
//! The engine composes storage, images, networks, shims and the runtime. One task owns each container; what
//! clients ask for arrives as the closed set of operations of [`op`], and what they get are the wire types of
//! `berth-api`. No byte of a container's output passes through here unless a client reads its log.
#![forbid(unsafe_code)]

mod create;
mod engine;
mod error;
mod name;
pub mod op;
mod settings;
mod signal;

pub use engine::{Engine, EventStream, LogStream, PendingAttach, PendingExec, Waiting};
pub use error::{Error, ErrorKind};
pub use settings::{BridgeSettings, LogDefaults, RegistrySettings, Settings};
