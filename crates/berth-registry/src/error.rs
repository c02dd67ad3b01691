//! What can go wrong between here and a registry.

use std::io;

use berth_oci::Digest;
use http::StatusCode;

/// A request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("failed to connect to {authority}: dial tcp: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Why not.
        source: io::Error,
    },
    /// The registry's certificate or TLS is not accepted.
    #[error(
        "TLS with registry {authority} failed: {source} (if it has no trusted certificate, put its authority's into \
         /etc/berth/certs.d/{authority}/ca.crt, or start the daemon with --insecure-registry {authority})"
    )]
    Tls {
        /// Host and port.
        authority: String,
        /// Why not.
        source: io::Error,
    },
    /// The proxy of the settings is none that can be used.
    #[error(
        "the proxy {proxy} cannot be used: only http://[USER:PASSWORD@]HOST[:PORT] and https://[USER:PASSWORD@]HOST[:PORT] can be"
    )]
    Proxy {
        /// The setting, without credentials.
        proxy: String,
    },
    /// The conversation broke off.
    #[error("{operation}: {source}")]
    Http {
        /// Method and address.
        operation: String,
        /// What hyper says.
        source: hyper::Error,
    },
    /// Nothing came for too long.
    #[error("{operation}: no answer for {seconds} s")]
    Timeout {
        /// Method and address.
        operation: String,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no such image.
    #[error("manifest for {reference} not found: {message}")]
    ManifestUnknown {
        /// The image.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry has not what its own manifest names.
    #[error("blob {digest} not found in {repository}: {message}")]
    BlobUnknown {
        /// The blob.
        digest: Digest,
        /// The repository.
        repository: String,
        /// The registry's words.
        message: String,
    },
    /// A web server has no such file.
    #[error("{operation}: 404 Not Found: there is no such file")]
    NotFound {
        /// Method and address.
        operation: String,
    },
    /// Access is refused.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require authorization: {message}"
    )]
    Denied {
        /// The repository.
        repository: String,
        /// The registry's words.
        message: String,
    },
    /// A push or login is refused.
    #[error("{message}")]
    Refused {
        /// The registry's words.
        message: String,
    },
    /// A search failed.
    #[error("{message}")]
    Search {
        /// What the registry answered.
        message: String,
    },
    /// What was to be sent could not be read.
    #[error("reading {digest} to send it: {source}")]
    Feed {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The registry has too much to do, or this client asked for too much; it was waited for.
    #[error(
        "{}{} ({})",
        if *is_limit { "toomanyrequests: " } else { "unavailable: " },
        message.trim_start_matches("toomanyrequests: "),
        crate::patience::advice(authority, *is_limit, *wait)
    )]
    Overload {
        /// Host and perhaps port of whoever refused.
        authority: String,
        /// Whether a limit of this client is reached, and not of the registry.
        is_limit: bool,
        /// The registry's words.
        message: String,
        /// How long it wants no more requests, if it says.
        wait: Option<std::time::Duration>,
    },
    /// Another refusal or failure of the registry.
    #[error("{operation}: registry answered {status}: {message}")]
    Status {
        /// Method and address.
        operation: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("{operation}: {reason}")]
    Malformed {
        /// Method and address.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document is larger than any of its kind.
    #[error("{operation}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// Method and address.
        operation: String,
        /// The limit.
        limit: u64,
    },
    /// The content is not what was asked for.
    #[error("manifest verification failed for digest {expected}: what came for {reference} has {actual}")]
    WrongDigest {
        /// The image.
        reference: String,
        /// Digest of what came.
        actual: Digest,
        /// What was announced.
        expected: String,
    },
    /// The registry wants credentials sent where they must not go.
    #[error(
        "registry {authority} asks for credentials to be sent to {realm}: refused, since it is not encrypted"
    )]
    Realm {
        /// Host and port of the registry.
        authority: String,
        /// Where the credentials should go.
        realm: String,
    },
}

impl Error {
    /// The registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::ManifestUnknown { .. } | Self::BlobUnknown { .. } | Self::NotFound { .. })
    }

    /// The registry refuses access; as Docker has it, that may mean that there is no such repository.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Refused { .. })
    }

    /// The registry has not what was asked for, or does not do it for this client.
    pub fn is_refusal(&self) -> bool {
        let is_status = matches!(self, Self::Status { status, .. } if status.is_client_error());
        is_status || self.is_not_found() || self.is_denied()
    }

    pub(crate) fn malformed(operation: &str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { operation: operation.to_owned(), reason: reason.to_string() }
    }

    /// Another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Http { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}
