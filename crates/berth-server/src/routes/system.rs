//! The engine as a whole.

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA};
use http::{Method, Response, StatusCode};

use super::{Outcome, legacy};
use crate::answer;
use crate::body::Body;
use crate::call::Call;

/// The classic builder; `2` would send clients to BuildKit's.
const BUILDER: HeaderValue = HeaderValue::from_static("1");

/// The header that says that `/build` takes `remote=client-session`, as daemons did that had sessions without BuildKit.
const CLIENT_SESSION: &str = "berth-client-session";

/// The header that says what `/build` takes beyond Docker's API.
const BUILD: &str = "berth-build";

/// Says that the daemon lives, and in headers what it speaks.
pub fn ping(call: &Call) -> Response<Body> {
    let body = if call.method == Method::HEAD { Body::empty() } else { Body::from("OK") };
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = answer::with(StatusCode::OK, Some(content_type), body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("builder-version"), BUILDER);
    headers.insert(HeaderName::from_static(CLIENT_SESSION), HeaderValue::from_static("1"));
    headers.insert(HeaderName::from_static(BUILD), HeaderValue::from_static(berth_api::build::EXTENSIONS));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    response
}

pub fn version(call: &Call) -> Response<Body> {
    answer::ok(&call.engine.version())
}

pub async fn info(call: Call) -> Outcome {
    Ok(legacy::info(call.version, call.engine.info().await?))
}
