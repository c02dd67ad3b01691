//! Logs and events: answers that last.

use berth_api::stream::{Stream, encode};
use berth_api::version::ApiVersion;
use berth_engine::{ArchiveStream, LogStream, op};
use bytes::{Bytes, BytesMut};
use futures_util::stream::unfold;
use http::Response;

use super::{Outcome, legacy};
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;
use crate::hijack::content_type;

fn log_parameters(query: &Query) -> Result<op::Logs, Failure> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("must specify at least one of 'stdout' or 'stderr'"));
    }
    Ok(op::Logs {
        follow: query.flag("follow"),
        stdout,
        stderr,
        since: query.moment("since")?,
        until: query.moment("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        // As in Docker, `all` and everything else that is no number means all.
        tail: query.get("tail").parse().ok(),
    })
}

pub async fn logs(call: Call, name: &str) -> Outcome {
    let log = call.engine.logs(name, log_parameters(&call.query)?).await?;
    let content_type = content_type(log.tty, call.version);
    let body = unfold(log, |mut log| async move {
        let bytes = next_piece(&mut log).await?;
        Some((bytes, log))
    });
    Ok(answer::stream(content_type, Body::stream(body)))
}

/// Waits for lines.
async fn next_piece(log: &mut LogStream) -> Option<Bytes> {
    match log.pieces.recv().await? {
        Ok(piece) => Some(piece),
        Err(error) => {
            let text = format!("Error grabbing logs: {error}\n");
            log.pieces.close();
            if log.tty {
                return Some(text.into());
            }
            let mut bytes = BytesMut::new();
            encode(Stream::SystemError, text.as_bytes(), &mut bytes);
            Some(bytes.freeze())
        }
    }
}

pub async fn export(call: Call, name: &str) -> Outcome {
    Ok(archive("application/octet-stream", call.engine.export(name).await?))
}

/// An archive as it is made; an error cuts the answer off, so that nobody takes a part for the whole.
pub fn archive(content_type: &'static str, archive: ArchiveStream) -> Response<Body> {
    let body = unfold(archive.pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    answer::stream(content_type, Body::fallible(body))
}

/// Forms of a stream of JSON documents that clients may ask for: one per line, and RFC 7464.
const FORMS: [&str; 4] = ["application/jsonl", "application/x-ndjson", SEQUENCE, "application/json"];
/// Each document begins with a character of its own.
const SEQUENCE: &str = "application/json-seq";

/// The form that a client wants, by its `Accept` header and the version that it speaks.
fn form(version: ApiVersion, accept: &str) -> &'static str {
    let named = accept.split(',').filter_map(|range| {
        let name = range.split(';').next().unwrap_or_default().trim();
        FORMS.into_iter().find(|form| form.eq_ignore_ascii_case(name))
    });
    let default = if version < ApiVersion::new(1, 52) { "application/json" } else { "application/jsonl" };
    named.into_iter().next().unwrap_or(default)
}

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
    let version = call.version;
    let content_type = form(version, accept);
    let body = unfold(call.engine.events(operation)?, move |mut events| async move {
        loop {
            let event = events.next().await?;
            if legacy::knows(version, &event) {
                return Some((event_line(version, content_type, event), events));
            }
        }
    });
    Ok(answer::stream(content_type, Body::stream(body)))
}

fn event_line(version: ApiVersion, form: &str, event: berth_api::event::Message) -> Bytes {
    let line = answer::to_line(&legacy::event(version, event)).unwrap_or_default();
    if form == SEQUENCE { [&b"\x1e"[..], &line].concat().into() } else { line }
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
        assert_eq!(error.message, "must specify at least one of 'stdout' or 'stderr'");
        assert!(log_parameters(&Query::parse("stdout=1&since=x")).is_err());
    }

    #[test]
    fn events_come_in_the_form_that_is_asked_for() {
        for (minor, accept, expected) in [
            (51, "", "application/json"),
            (52, "", "application/jsonl"),
            (52, "*/*", "application/jsonl"),
            (52, "application/json", "application/json"),
            (41, "text/html, application/x-ndjson;q=0.5", "application/x-ndjson"),
            (55, "application/json-seq", "application/json-seq"),
        ] {
            assert_eq!(form(ApiVersion::new(1, minor), accept), expected, "{minor} {accept}");
        }
        let event = berth_api::event::Message::default();
        let line = event_line(ApiVersion::NEWEST, SEQUENCE, event.clone());
        assert!(line.starts_with(b"\x1e{") && line.ends_with(b"}\n"), "{line:?}");
        assert!(event_line(ApiVersion::NEWEST, "application/jsonl", event).starts_with(b"{"));
    }

    #[tokio::test]
    async fn an_error_ends_the_log_with_a_line() {
        for tty in [false, true] {
            let (sender, pieces) = mpsc::channel(4);
            sender.send(Ok(Bytes::from_static(b"out\n"))).await.unwrap();
            sender.send(Err(berth_engine::Error::Conflict("no".into()))).await.unwrap();
            let mut log = LogStream { tty, pieces };
            assert_eq!(next_piece(&mut log).await.unwrap(), "out\n");
            let told = next_piece(&mut log).await.unwrap();
            assert!(
                told.ends_with(b"Error grabbing logs: no\n") && told.starts_with(b"\x03") != tty,
                "{told:?}"
            );
            assert!(next_piece(&mut log).await.is_none());
        }
    }
}
