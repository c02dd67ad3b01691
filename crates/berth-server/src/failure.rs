//! Errors as clients get them: one place maps kinds to statuses.

use berth_api::error::ErrorResponse;
use berth_engine::{Error, ErrorKind};
use http::{Response, StatusCode};

use crate::answer;
use crate::body::Body;

/// A status and the text of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// 304, or 400 and above.
    pub status: StatusCode,
    /// In words that clients show.
    pub message: String,
}

impl Failure {
    /// An error with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such route.
    pub fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return answer::status(self.status);
        }
        answer::json(self.status, &ErrorResponse::new(self.message))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if error.kind() == ErrorKind::System {
            tracing::error!(%error, "a request failed");
        }
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_statuses() {
        for (error, status) in [
            (Error::NoSuchContainer("x".into()), 404),
            (Error::NoSuchImage("x".into()), 404),
            (Error::InvalidParameter("x".into()), 400),
            (Error::NameInUse { name: "a".into(), id: "b".into() }, 409),
            (Error::NotRunning("x".into()), 409),
            (Error::NotModified("x".into()), 304),
            (Error::Unauthorized("x".into()), 401),
            (Error::Forbidden("x".into()), 403),
            (Error::Unavailable("x".into()), 503),
            (Error::NotImplemented("x".into()), 501),
            (Error::Io { operation: "x".into(), source: std::io::Error::other("y") }, 500),
        ] {
            let message = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status.as_u16(), failure.message), (status, message));
        }
    }

    #[test]
    fn not_modified_has_no_body() {
        let response = Failure::new(StatusCode::NOT_MODIFIED, "x").into_response();
        assert!(hyper::body::Body::is_end_stream(response.body()));
    }
}
