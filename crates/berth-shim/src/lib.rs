//! The per-container process, its protocol and its client.
#![forbid(unsafe_code)]

pub mod log;
mod readiness;
