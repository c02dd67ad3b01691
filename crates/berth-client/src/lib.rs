//! The Engine API's client: HTTP over unix, TCP and ssh, hijacked streams.
//!
//! The API's version is settled without a round trip: requests ask for the newest version, and a server that is older
//! says so in its refusal, upon which the request is sent again. Only requests whose body cannot be sent twice ask first.
#![forbid(unsafe_code)]

mod answer;
mod client;
mod command;
mod error;
mod hijack;
mod host;
mod query;
mod ssh;
mod tls;
mod transport;

pub use answer::{Lines, ResponseBody};
pub use client::Client;
pub use error::Error;
pub use hijack::Hijacked;
pub use host::{Host, HostError};
pub use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
pub use query::{Query, segment};
pub use ssh::Ssh;
pub use tls::{TlsFiles, Trust};
