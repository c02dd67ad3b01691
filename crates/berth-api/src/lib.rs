//! Wire types of the Engine API, stream framing, the error model.
//!
//! Field names on the wire are Go's, as in Docker's API specification (version 1.55). Reading is as tolerant as
//! Go's decoder when it goes through [`json`]; writing emits `null` and leaves fields out exactly where Docker
//! does. Nothing in this crate does input or output, and nothing here validates meaning: that is the server's edge.
#![forbid(unsafe_code)]

pub mod auth;
pub mod build;
pub mod container;
pub mod descriptor;
pub mod duration;
pub mod error;
pub mod event;
pub mod exec;
pub mod filter;
pub mod image;
pub mod json;
pub mod network;
pub mod progress;
pub mod stream;
pub mod system;
pub mod time;
pub mod version;
pub mod volume;

/// A JSON object used as a set: Docker writes `{"80/tcp": {}}` for what is a set of strings.
pub type Set = std::collections::BTreeMap<String, Empty>;

/// String to string, as labels and options.
pub type StringMap = std::collections::BTreeMap<String, String>;

/// The empty object `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}
