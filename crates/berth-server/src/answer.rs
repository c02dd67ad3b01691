//! Answers, as Docker forms them.

use berth_api::version::ApiVersion;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use http::{HeaderName, Response, StatusCode};
use serde::Serialize;

use crate::body::Body;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A status and nothing else.
pub fn status(status: StatusCode) -> Response<Body> {
    with(status, None, Body::empty())
}

/// Done, and there is nothing to say (204).
pub fn done() -> Response<Body> {
    status(StatusCode::NO_CONTENT)
}

/// A JSON document, with the newline that Go's encoder ends it with.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    match to_line(value) {
        Ok(line) => with(status, Some(JSON), line.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            self::status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// 200 with a JSON document.
pub fn ok<T: Serialize + ?Sized>(value: &T) -> Response<Body> {
    json(StatusCode::OK, value)
}

/// 200 with a body that comes in pieces.
pub fn stream(content_type: &'static str, body: Body) -> Response<Body> {
    with(StatusCode::OK, Some(HeaderValue::from_static(content_type)), body)
}

/// An answer of these parts.
pub fn with(status: StatusCode, content_type: Option<HeaderValue>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A JSON document and a newline.
pub fn to_line<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut line = Vec::with_capacity(512);
    serde_json::to_writer(&mut line, value)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Adds the headers that every answer carries.
pub fn add_common_headers(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("api-version"), HeaderValue::from_static(newest()));
    headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers
        .insert(SERVER, HeaderValue::from_static(concat!("Berth/", env!("CARGO_PKG_VERSION"), " (linux)")));
}

/// The newest API version, as text.
const fn newest() -> &'static str {
    const { assert!(ApiVersion::NEWEST.major == 1 && ApiVersion::NEWEST.minor == 55) };
    "1.55"
}
