//! What can go wrong between a request and its answer.

use std::io;

use http::StatusCode;

use crate::host::Host;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers there.
    #[error("failed to connect to the API at {host}; check that the daemon is running: {source}")]
    Connect {
        /// Where.
        host: Host,
        /// Why not.
        source: io::Error,
    },
    /// The server refused, and says why.
    #[error("Error response from daemon: {message}")]
    Server {
        /// Its status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The conversation broke off.
    #[error("error during connect: {operation}: {}", causes(.source))]
    Http {
        /// Method and path.
        operation: String,
        /// What hyper says.
        source: hyper::Error,
    },
    /// A request could not be put together.
    #[error("cannot make the request {operation}: {source}")]
    Request {
        /// Method and path.
        operation: String,
        /// Why not.
        source: http::Error,
    },
    /// What came is not what was asked for.
    #[error("Error reading the answer to {operation}: {source}")]
    Decode {
        /// Method and path.
        operation: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// A stream was asked for, and the server does not give its connection away.
    #[error("unable to upgrade to tcp, received {status}")]
    NotUpgraded {
        /// The answer's status.
        status: StatusCode,
    },
    /// An answer is longer than any answer should be.
    #[error("the answer to {operation} is longer than {limit} bytes")]
    TooLong {
        /// Method and path.
        operation: String,
        /// The limit.
        limit: usize,
    },
    /// A stream could not be read or written.
    #[error("{operation}: {source}")]
    Io {
        /// What was done.
        operation: String,
        /// What the system says.
        source: io::Error,
    },
}

/// An error with what caused it, where the cause says more.
fn causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

impl Error {
    /// The status, if the server answered at all.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Server { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// True if the server says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }
}
