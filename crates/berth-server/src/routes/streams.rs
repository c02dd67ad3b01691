//! Logs and events: answers that last.

use berth_api::stream::{Stream, encode};
use berth_api::version::ApiVersion;
use berth_engine::{LogStream, op};
use bytes::{Bytes, BytesMut};
use futures_util::stream::unfold;

use super::{Outcome, legacy};
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;
use crate::hijack::content_type;

/// Lines that are sent together when they are there already.
const BATCH: usize = 64;

fn log_parameters(query: &Query) -> Result<op::Logs, Failure> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    Ok(op::Logs {
        follow: query.flag("follow"),
        stdout,
        stderr,
        since: query.moment("since")?,
        until: query.moment("until")?,
        timestamps: query.flag("timestamps"),
        // As in Docker, `all` and everything else that is no number means all.
        tail: query.get("tail").parse().ok(),
    })
}

pub async fn logs(call: Call, name: &str) -> Outcome {
    let log = call.engine.logs(name, log_parameters(&call.query)?).await?;
    let content_type = content_type(log.tty, call.version);
    let body = unfold(log, |mut log| async move {
        let bytes = next_batch(&mut log).await?;
        Some((bytes, log))
    });
    Ok(answer::stream(content_type, Body::stream(body)))
}

/// Waits for a line, and takes along those that follow at once.
async fn next_batch(log: &mut LogStream) -> Option<Bytes> {
    let mut lines = Vec::with_capacity(BATCH);
    if log.lines.recv_many(&mut lines, BATCH).await == 0 {
        return None;
    }
    let mut bytes = BytesMut::new();
    for line in lines {
        match line {
            Ok((_, line)) if log.tty => bytes.extend_from_slice(&line),
            Ok((stream, line)) => encode(stream, &line, &mut bytes),
            Err(error) => {
                let text = format!("Error grabbing logs: {error}\n");
                if log.tty {
                    bytes.extend_from_slice(text.as_bytes());
                } else {
                    encode(Stream::SystemError, text.as_bytes(), &mut bytes);
                }
                log.lines.close();
            }
        }
    }
    Some(bytes.freeze())
}

pub async fn export(call: Call, name: &str) -> Outcome {
    let export = call.engine.export(name).await?;
    let body = unfold(export.pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    Ok(answer::stream("application/octet-stream", Body::fallible(body)))
}

/// Media types of one JSON document per line, which clients from API 1.52 on ask for.
const LINES: [&str; 2] = ["application/jsonl", "application/x-ndjson"];

pub fn events(call: &Call) -> Outcome {
    let operation = op::Events {
        since: call.query.moment("since")?,
        until: call.query.moment("until")?,
        filters: call.query.filters()?,
    };
    if let (Some(since), Some(until)) = (operation.since, operation.until)
        && until < since
    {
        return Err(Failure::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.get("since"),
            call.query.get("until")
        )));
    }
    let accept =
        call.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = LINES.into_iter().find(|wanted| accept.contains(wanted)).unwrap_or("application/json");
    let version = call.version;
    let body = unfold(call.engine.events(operation)?, move |mut events| async move {
        let event = events.next().await?;
        Some((event_line(version, event), events))
    });
    Ok(answer::stream(content_type, Body::stream(body)))
}

fn event_line(version: ApiVersion, event: berth_api::event::Message) -> Bytes {
    answer::to_line(&legacy::event(version, event)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn log_parameters_are_checked() {
        let logs = log_parameters(&Query::parse("stdout=1&tail=10&since=5&timestamps=true")).unwrap();
        assert_eq!((logs.tail, logs.stderr, logs.timestamps), (Some(10), false, true));
        assert_eq!(log_parameters(&Query::parse("stderr=1&tail=all")).unwrap().tail, None);
        let error = log_parameters(&Query::parse("follow=1")).unwrap_err();
        assert_eq!(error.message, "Bad parameters: you must choose at least one stream");
        assert!(log_parameters(&Query::parse("stdout=1&since=x")).is_err());
    }

    #[tokio::test]
    async fn lines_are_framed_unless_there_is_a_terminal() {
        for tty in [false, true] {
            let (sender, lines) = mpsc::channel(4);
            sender.send(Ok((Stream::Stdout, Bytes::from_static(b"out\n")))).await.unwrap();
            sender.send(Ok((Stream::Stderr, Bytes::from_static(b"err\n")))).await.unwrap();
            drop(sender);
            let mut log = LogStream { tty, lines };
            let bytes = next_batch(&mut log).await.unwrap();
            let expected: &[u8] =
                if tty { b"out\nerr\n" } else { b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n" };
            assert_eq!(bytes, expected);
            assert!(next_batch(&mut log).await.is_none());
        }
    }
}
