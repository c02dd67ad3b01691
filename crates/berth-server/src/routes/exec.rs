//! Commands run in a container beside its own.

use berth_api::exec::{CreateRequest, StartRequest};
use berth_api::version::ApiVersion;
use berth_engine::op;
use http::StatusCode;

use super::{Outcome, containers};
use crate::answer;
use crate::call::Call;
use crate::failure::Failure;
use crate::hijack::{content_type, hijack};

/// A terminal's size as rows and columns; none where the client gave none.
///
/// Before version 1.42 there was none to give.
fn terminal_size(version: ApiVersion, size: Option<[u32; 2]>) -> Result<Option<(u16, u16)>, Failure> {
    let size = size.filter(|_| version >= ApiVersion::new(1, 42));
    let number = |number: u32| {
        u16::try_from(number).map_err(|_| Failure::invalid(format!("invalid console size: {number}")))
    };
    match size {
        None | Some([0, 0]) => Ok(None),
        Some([rows, columns]) => Ok(Some((number(rows)?, number(columns)?))),
    }
}

pub async fn create(mut call: Call, name: &str) -> Outcome {
    let request: CreateRequest = call.required_json().await?;
    let command = request.cmd.unwrap_or_default();
    if command.is_empty() {
        return Err(Failure::invalid("No exec command specified"));
    }
    let operation = op::ExecCreate {
        command,
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
        tty: request.tty,
        size: terminal_size(call.version, request.console_size)?,
        detach_keys: Some(request.detach_keys).filter(|keys| !keys.is_empty()),
        env: request.env.unwrap_or_default(),
        working_dir: Some(request.working_dir).filter(|directory| !directory.is_empty()),
        user: Some(request.user).filter(|user| !user.is_empty()),
        privileged: request.privileged,
    };
    Ok(answer::json(StatusCode::CREATED, &call.engine.exec_create(name, operation).await?))
}

pub async fn start(mut call: Call, id: &str) -> Outcome {
    let request: StartRequest = call.json().await?;
    let operation = op::ExecStart {
        detach: request.detach,
        tty: request.tty,
        // What has no terminal has no size.
        size: terminal_size(call.version, request.console_size.filter(|_| request.tty))?,
    };
    let pending = call.engine.exec_start(id, operation).await?;
    if pending.detach {
        pending.start(None).await?;
        return Ok(answer::status(StatusCode::OK));
    }
    let content_type = content_type(pending.tty, call.version);
    let id = id.to_owned();
    hijack(call.request, content_type, move |connection, read| async move {
        if let Err(error) = pending.start(Some((connection, read))).await {
            // The engine told the client on its stream.
            tracing::debug!(exec = id, %error, "a command could not be run");
        }
    })
}

pub async fn resize(call: Call, id: &str) -> Outcome {
    let (rows, columns) = containers::size(&call.query)?;
    call.engine.exec_resize(id, rows, columns).await?;
    Ok(answer::status(StatusCode::OK))
}

pub async fn inspect(call: Call, id: &str) -> Outcome {
    Ok(answer::ok(&call.engine.exec_inspect(id).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sizes_are_checked() {
        for (minor, size, expected) in [
            (55, None, None),
            (55, Some([0, 0]), None),
            (42, Some([24, 80]), Some((24, 80))),
            (41, Some([24, 80]), None),
            (41, Some([70_000, 80]), None),
        ] {
            assert_eq!(terminal_size(ApiVersion::new(1, minor), size).unwrap(), expected, "{minor} {size:?}");
        }
        assert!(terminal_size(ApiVersion::NEWEST, Some([70_000, 80])).is_err());
    }
}
