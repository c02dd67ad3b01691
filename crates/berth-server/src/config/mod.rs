//! What a daemon is configured with: one table of options, which may be given on the command line or in `daemon.json`,
//! never in both.

pub mod builder;
mod file;
mod given;
mod table;
mod values;

pub use given::{ConfigError, Given, command, without_face};
pub use values::{environment_like, size, ulimit};
