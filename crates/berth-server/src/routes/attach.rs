//! Attaching a client's connection to a container.

use berth_engine::op;

use super::Outcome;
use crate::call::Call;
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
    let pending = call.engine.attach(name, operation).await?;
    let content_type = content_type(pending.tty, call.version);
    let name = name.to_owned();
    hijack(call.request, content_type, move |connection, read| async move {
        if let Err(error) = pending.connect(connection, read).await {
            tracing::warn!(container = name, %error, "a client could not be attached");
        }
    })
}
