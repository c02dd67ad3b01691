//! Attaching a client's connection to a container.

use berth_api::stream::RAW_STREAM;
use berth_engine::op;
use bytes::Bytes;
use http::{HeaderValue, Response};

use super::Outcome;
use crate::answer;
use crate::body::Body;
use crate::call::Call;
use crate::failure::Failure;
use crate::hijack::{content_type, hijack};

pub async fn container(call: Call, name: &str) -> Outcome {
    let query = &call.query;
    let operation = op::Attach {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.given("detachKeys").map(str::to_owned),
        raw: false,
    };
    let pending = match call.engine.attach(name, operation).await {
        Ok(pending) => pending,
        Err(error) => return Ok(refused(error.into())),
    };
    let content_type = content_type(pending.tty, call.version);
    let name = name.to_owned();
    hijack(call.request, content_type, move |connection, read| async move {
        if let Err(error) = pending.connect(connection, read).await {
            tracing::warn!(container = name, %error, "a client could not be attached");
        }
    })
}

/// As in Docker: what was asked for is a stream, so the reason comes as text and not as JSON.
fn refused(failure: Failure) -> Response<Body> {
    let text = format!("{}\r\n", failure.message);
    answer::with(failure.status, Some(HeaderValue::from_static(RAW_STREAM)), Bytes::from(text).into())
}
