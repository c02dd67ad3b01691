//! The engine as a whole.

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA, UPGRADE};
use http::{Method, Response, StatusCode};

use super::{Outcome, legacy};
use crate::answer;
use crate::body::Body;
use crate::call::Call;
use crate::failure::Failure;

/// The classic builder; `2` would send clients to BuildKit's.
const BUILDER: HeaderValue = HeaderValue::from_static("1");

/// Says that the daemon lives, and in headers what it speaks.
pub fn ping(call: &Call) -> Response<Body> {
    let body = if call.method == Method::HEAD { Body::empty() } else { Body::from("OK") };
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = answer::with(StatusCode::OK, Some(content_type), body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("builder-version"), BUILDER);
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    response
}

/// BuildKit's sessions: no build of Berth asks for one yet.
pub fn session(call: &Call) -> Failure {
    match call.headers().get(UPGRADE).and_then(|protocol| protocol.to_str().ok()) {
        None => Failure::invalid("no upgrade header"),
        Some("h2c") => {
            Failure::new(StatusCode::NOT_IMPLEMENTED, "sessions are not supported by Berth yet".to_owned())
        }
        Some(other) => Failure::invalid(format!("protocol {other} not supported")),
    }
}

pub fn version(call: &Call) -> Response<Body> {
    answer::ok(&call.engine.version())
}

pub async fn info(call: Call) -> Outcome {
    Ok(legacy::info(call.version, call.engine.info().await?))
}
