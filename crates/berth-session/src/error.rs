//! What can go wrong between the two ends of a session.

use std::io;

use tonic::Code;

/// A call over a session that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody with this name is connected, and nobody came in time.
    #[error("no active session for {0}")]
    Absent(String),
    /// There is one with this name already.
    #[error("session {0} already exists")]
    Exists(String),
    /// More clients are connected than are served.
    #[error("too many sessions are open")]
    TooMany,
    /// The connection cannot be used.
    #[error("the session's connection failed: {0}")]
    Connection(#[source] hyper::Error),
    /// The other end does not offer this.
    #[error("the client of the build offers no {0}")]
    NotOffered(&'static str),
    /// The other end refuses; its own words.
    #[error("{0}")]
    Call(String),
    /// There was no answer: the connection is gone, or was too slow.
    #[error("{0}")]
    Lost(String),
    /// The other end sends what the protocol does not allow.
    #[error("the client's files are refused: {0}")]
    Refused(String),
    /// The other end could not go on; its own words.
    #[error("error from sender: {0}")]
    Told(String),
    /// A file cannot be read or written here.
    #[error("{operation} {path:?}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file, in its tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What was kept of files cannot be read.
    #[error("what is known of a tree is damaged")]
    Damaged,
}

impl Error {
    pub(crate) fn file(operation: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        Self::File { operation, path, source: source.into() }
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let text = status.message().to_owned();
        // What went wrong at this end has a source; what the other end says has none.
        let here = std::error::Error::source(&status).is_some();
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Self::Lost(text),
            _ if here => Self::Lost(text),
            _ => Self::Call(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_lost_connection() {
        assert!(matches!(Error::from(tonic::Status::unknown("unset key")), Error::Call(_)));
        assert!(matches!(Error::from(tonic::Status::unavailable("gone")), Error::Lost(_)));
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Error::from(tonic::Status::from_error(Box::new(broken))), Error::Lost(_)));
    }
}
