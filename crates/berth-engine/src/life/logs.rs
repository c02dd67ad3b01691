//! Reading a container's log.

use std::sync::Arc;

use berth_api::stream;
use berth_shim::log::{Entry, LogError, Query, Reader, Record, Stream};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::container::Container;
use crate::engine::Parts;
use crate::{Engine, Error, op};

/// Lines that are read ahead of a client.
const AHEAD: usize = 64;

/// A container's log, as it is read.
pub struct LogStream {
    /// Whether the container has a terminal: then the lines are sent raw instead of framed.
    pub tty: bool,
    /// Lines (or parts of long ones), with the time in front if asked for. Ends with the log.
    pub lines: mpsc::Receiver<Result<(stream::Stream, Bytes), Error>>,
}

impl Engine {
    /// Reads a container's log.
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn logs(&self, name: &str, op: op::Logs) -> Result<LogStream, Error> {
        if !op.stdout && !op.stderr {
            return Err(Error::InvalidParameter(
                "Bad parameters: you must choose at least one stream".into(),
            ));
        }
        let container = self.parts.containers.find(name)?;
        if container.definition.host.log_config.driver == "none" {
            return Err(Error::NotImplemented("reading the log of the driver \"none\"".into()));
        }
        open(&self.parts, &container, op)
    }
}

/// Starts to read a log.
pub(super) fn open(parts: &Parts, container: &Arc<Container>, op: op::Logs) -> Result<LogStream, Error> {
    let (sender, lines) = mpsc::channel(AHEAD);
    let reader = Reader::open(parts.storage.container_dir(container.id())?.join("log"));
    let query = Query { tail: op.tail, since: op.since, until: op.until };
    let mut lines_of = Lines::new(&op);
    if op.follow {
        let mut follow = reader.follow(query, container.ended()).map_err(failed)?;
        let until = op.until;
        tokio::spawn(async move {
            loop {
                let record = tokio::select! {
                    record = follow.next() => record.map_err(failed).transpose(),
                    () = passed(until) => None,
                    () = sender.closed() => None,
                };
                let Some(record) = record else { return };
                if let Some(line) = record.map(|record| lines_of.line(record)).transpose()
                    && sender.send(line).await.is_err()
                {
                    return;
                }
            }
        });
    } else {
        let read = move || {
            let records = match reader.records(query) {
                Ok(records) => records,
                Err(error) => return drop(sender.blocking_send(Err(failed(error)))),
            };
            for record in records {
                if let Some(line) = record.map_err(failed).map(|r| lines_of.line(r)).transpose()
                    && sender.blocking_send(line).is_err()
                {
                    return;
                }
            }
        };
        tokio::task::spawn_blocking(read);
    }
    Ok(LogStream { tty: container.definition.config.tty, lines })
}

async fn passed(until: Option<jiff::Timestamp>) {
    let left = until
        .and_then(|until| std::time::Duration::try_from(until.duration_since(jiff::Timestamp::now())).ok());
    match (until, left) {
        (None, _) => std::future::pending().await,
        // A moment that has passed already ends with its last record.
        (Some(_), None) => std::future::pending().await,
        (Some(_), Some(left)) => tokio::time::sleep(left).await,
    }
}

fn failed(error: LogError) -> Error {
    Error::Io { operation: "read the log".into(), source: std::io::Error::other(error) }
}

/// Makes lines of records.
struct Lines {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    /// Whether the last record of each stream left its line open.
    open: [bool; 2],
}

impl Lines {
    fn new(op: &op::Logs) -> Lines {
        Lines { stdout: op.stdout, stderr: op.stderr, timestamps: op.timestamps, open: [false; 2] }
    }

    fn line(&mut self, record: Record) -> Option<(stream::Stream, Bytes)> {
        let (stream, partial, payload) = match record.entry {
            Entry::Output { stream, partial, payload } => (stream, partial, payload),
            Entry::Lost { records, bytes } => {
                let text = format!("[berth: {records} log records ({bytes} bytes) could not be written]");
                (Stream::Stderr, false, text.into_bytes())
            }
        };
        let (wanted, index, stream) = match stream {
            Stream::Stdout => (self.stdout, 0, stream::Stream::Stdout),
            Stream::Stderr => (self.stderr, 1, stream::Stream::Stderr),
        };
        let continued = std::mem::replace(&mut self.open[index], partial);
        if !wanted {
            return None;
        }
        let mut line = BytesMut::with_capacity(payload.len() + 32);
        if self.timestamps && !continued {
            line.extend_from_slice(format!("{:.9} ", record.time).as_bytes());
        }
        line.extend_from_slice(&payload);
        if !partial {
            line.extend_from_slice(b"\n");
        }
        Some((stream, line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn record(stream: Stream, partial: bool, payload: &str) -> Record {
        let entry = Entry::Output { stream, partial, payload: payload.into() };
        Record { sequence: 0, time: Timestamp::from_second(1).unwrap(), entry }
    }

    #[test]
    fn the_time_stands_once_in_front_of_each_line() {
        let mut lines =
            Lines::new(&op::Logs { stdout: true, stderr: true, timestamps: true, ..Default::default() });
        let mut text = |record| String::from_utf8(lines.line(record).unwrap().1.to_vec()).unwrap();
        let first = text(record(Stream::Stdout, true, "a"));
        assert_eq!(first, "1970-01-01T00:00:01.000000000Z a");
        assert_eq!(text(record(Stream::Stderr, false, "x")), "1970-01-01T00:00:01.000000000Z x\n");
        assert_eq!(text(record(Stream::Stdout, false, "b")), "b\n");
        assert_eq!(text(record(Stream::Stdout, false, "")), "1970-01-01T00:00:01.000000000Z \n");
    }

    #[test]
    fn only_the_streams_asked_for_come() {
        let mut lines = Lines::new(&op::Logs { stderr: true, ..Default::default() });
        assert!(lines.line(record(Stream::Stdout, false, "a")).is_none());
        let (stream, line) = lines.line(record(Stream::Stderr, false, "b")).unwrap();
        assert_eq!((stream, &line[..]), (stream::Stream::Stderr, b"b\n".as_slice()));
        let lost =
            Record { entry: Entry::Lost { records: 2, bytes: 9 }, ..record(Stream::Stdout, false, "") };
        assert!(lines.line(lost).unwrap().1.starts_with(b"[berth: 2 log records (9 bytes)"));
    }
}
