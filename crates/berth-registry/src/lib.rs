//! The distribution protocol's client: manifests and blobs, tokens, TLS.
//!
//! Specification: <https://github.com/opencontainers/distribution-spec>, and for tokens
//! <https://distribution.github.io/distribution/spec/auth/token/>. A client keeps some connections for half a
//! minute, each for requests to where it leads and by the same way: a daemon that has been idle for longer holds none.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod caller;
mod challenge;
mod client;
mod config;
mod connection;
mod error;
mod fetch;
mod login;
mod manifest;
mod mirrors;
mod patience;
mod plain;
mod pool;
mod proxy;
mod search;
mod tags;
mod tls;
mod token;
mod upload;

pub use auth::Credentials;
pub use blob::BlobStream;
pub use caller::Caller;
pub use client::Client;
pub use config::{Mirror, RegistryConfig};
pub use error::Error;
pub use fetch::Fetched;
pub use login::Login;
pub use manifest::ManifestAnswer;
pub use patience::{Patience, Pause};
pub use proxy::{Proxies, without_credentials};
pub use search::{Found, split_term};
pub use upload::{Begun, Feed, Mount};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
