//! Reading a container's log.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use berth_api::stream;
use berth_shim::log::{Entry, Follow, LogError, Progress, Query, Record, Records, Stream, lost_text};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::container::Container;
use crate::engine::Parts;
use crate::logging::{self, Subject};
use crate::{Engine, Error, op};

/// Pieces that are read ahead of a client.
const AHEAD: usize = 4;
/// Bytes after which a piece is sent on.
const PIECE: usize = 64 * 1024;

/// A container's log, as it is read.
pub struct LogStream {
    /// Whether the container has a terminal: then the lines come raw instead of framed.
    pub tty: bool,
    /// Whole frames, or raw lines with a terminal. Ends with the log.
    pub pieces: mpsc::Receiver<Result<Bytes, Error>>,
}

impl Engine {
    /// Reads a container's log.
    pub async fn logs(&self, name: &str, op: op::Logs) -> Result<LogStream, Error> {
        if !op.stdout && !op.stderr {
            return Err(Error::InvalidParameter("must specify at least one of 'stdout' or 'stderr'".into()));
        }
        let container = self.parts.containers.find(name)?;
        let raw = container.definition.config.tty;
        open(&self.parts, &container, op, raw).await
    }
}

/// Starts to read a log; `raw` leaves the frames out.
pub(super) async fn open(
    parts: &Parts,
    container: &Arc<Container>,
    op: op::Logs,
    raw: bool,
) -> Result<LogStream, Error> {
    let definition = &container.definition;
    let directory = parts.storage.container_dir(container.id())?;
    let reader = logging::reader(definition, &directory).ok_or(Error::UnreadableLog)?;
    let query = Query { tail: op.tail, since: op.since, until: op.until };
    let details = op.details.then(|| logging::details(&Subject { definition, name: &container.name() }));
    let (sender, pieces) = mpsc::channel(AHEAD);
    let output = Output { lines: Lines::new(&op, raw, details), sender };
    if op.follow {
        let ended = container.ended();
        let follow = blocking(move || reader.follow(query, ended).map_err(failed)).await?;
        tokio::spawn(output.follow(follow, op.until));
    } else {
        let records = blocking(move || reader.records(query).map_err(failed)).await?;
        tokio::spawn(output.stored(records));
    }
    Ok(LogStream { tty: definition.config.tty, pieces })
}

/// A log on its way to a client. Threads that may block read it piece by piece, and a task sends the pieces: a client that
/// does not read keeps no thread.
struct Output {
    lines: Lines,
    sender: mpsc::Sender<Result<Bytes, Error>>,
}

impl Output {
    /// Sends what there is.
    async fn stored(mut self, mut records: Records) {
        loop {
            let read = blocking(move || {
                let mut outcome = Ok(Progress::Ended);
                for record in &mut records {
                    if let ControlFlow::Break(stop) = self.lines.add(record) {
                        outcome = stop;
                        break;
                    }
                }
                Ok((self, records, outcome))
            });
            let Ok((output, rest, outcome)) = read.await else { return };
            (self, records) = (output, rest);
            if !matches!(self.send(outcome).await, Some(Progress::Paused)) {
                return;
            }
        }
    }

    /// Sends what there is, and what comes.
    async fn follow(mut self, mut follow: Follow, until: Option<jiff::Timestamp>) {
        let mut passed = std::pin::pin!(passed(until));
        loop {
            let read = blocking(move || {
                let mut stopped = None;
                let progress = follow.read(|record| match self.lines.add(record) {
                    ControlFlow::Continue(()) => ControlFlow::Continue(()),
                    ControlFlow::Break(stop) => {
                        stopped = Some(stop);
                        ControlFlow::Break(())
                    }
                });
                Ok((self, follow, stopped.unwrap_or(Ok(progress))))
            });
            let Ok((output, rest, outcome)) = read.await else { return };
            (self, follow) = (output, rest);
            match self.send(outcome).await {
                Some(Progress::Paused) => continue,
                Some(Progress::UpToDate) => {}
                Some(Progress::Ended) | None => return,
            }
            let changed = tokio::select! {
                changed = follow.changed() => changed,
                () = &mut passed => return,
                () = self.sender.closed() => return,
            };
            if let Err(error) = changed {
                let _ = self.sender.send(Err(failed(error))).await;
                return;
            }
        }
    }

    /// Sends what was read, and why the reading failed, if it did; `None` if nothing is to follow.
    async fn send(&mut self, outcome: Result<Progress, LogError>) -> Option<Progress> {
        let piece = self.lines.take();
        if !piece.is_empty() && self.sender.send(Ok(piece)).await.is_err() {
            return None;
        }
        match outcome {
            Ok(progress) => Some(progress),
            Err(error) => {
                let _ = self.sender.send(Err(failed(error))).await;
                None
            }
        }
    }
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

/// Makes a client's lines of records.
struct Lines {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    /// What stands between time and text.
    details: Option<String>,
    raw: bool,
    /// Whether the last record of each stream left its line open.
    open: [bool; 2],
    out: BytesMut,
    line: BytesMut,
}

impl Lines {
    fn new(op: &op::Logs, raw: bool, details: Option<String>) -> Lines {
        Lines {
            stdout: op.stdout,
            stderr: op.stderr,
            timestamps: op.timestamps,
            details,
            raw,
            open: [false; 2],
            out: BytesMut::new(),
            line: BytesMut::new(),
        }
    }

    /// Everything since the last call.
    fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// Adds what was read; breaks off when a piece is full, or nothing could be read.
    fn add(&mut self, record: Result<Record, LogError>) -> ControlFlow<Result<Progress, LogError>> {
        match record {
            Ok(record) if self.push(&record) < PIECE => ControlFlow::Continue(()),
            Ok(_) => ControlFlow::Break(Ok(Progress::Paused)),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }

    /// Adds a record; the bytes that wait now.
    fn push(&mut self, record: &Record) -> usize {
        let told;
        let (stream, partial, payload) = match &record.entry {
            Entry::Output { stream, partial, payload } => (*stream, *partial, &payload[..]),
            Entry::Lost { records, bytes } => {
                told = lost_text(*records, *bytes);
                (Stream::Stderr, false, told.as_bytes())
            }
        };
        let (wanted, index, stream) = match stream {
            Stream::Stdout => (self.stdout, 0, stream::Stream::Stdout),
            Stream::Stderr => (self.stderr, 1, stream::Stream::Stderr),
        };
        let continued = std::mem::replace(&mut self.open[index], partial);
        if wanted {
            self.line.clear();
            if self.timestamps && !continued {
                // Writing to a buffer does not fail.
                let _ = write!(self.line, "{:.9} ", record.time);
            }
            if let Some(details) = self.details.as_ref().filter(|_| !continued) {
                self.line.extend_from_slice(details.as_bytes());
            }
            self.line.extend_from_slice(payload);
            if !partial {
                self.line.extend_from_slice(b"\n");
            }
            match self.raw {
                true => self.out.extend_from_slice(&self.line),
                false => stream::encode(stream, &self.line, &mut self.out),
            }
        }
        self.out.len()
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

    fn text(lines: &mut Lines, record: Record) -> String {
        lines.push(&record);
        String::from_utf8(lines.take().to_vec()).unwrap()
    }

    #[test]
    fn time_and_details_stand_once_in_front_of_each_line() {
        let op = op::Logs { stdout: true, stderr: true, timestamps: true, ..Default::default() };
        let mut lines = Lines::new(&op, true, Some("a=b ".into()));
        let first = text(&mut lines, record(Stream::Stdout, true, "a"));
        assert_eq!(first, "1970-01-01T00:00:01.000000000Z a=b a");
        let other = text(&mut lines, record(Stream::Stderr, false, "x"));
        assert_eq!(other, "1970-01-01T00:00:01.000000000Z a=b x\n");
        assert_eq!(text(&mut lines, record(Stream::Stdout, false, "b")), "b\n");
        let empty = text(&mut lines, record(Stream::Stdout, false, ""));
        assert_eq!(empty, "1970-01-01T00:00:01.000000000Z a=b \n");
    }

    #[test]
    fn only_the_streams_asked_for_come_and_are_framed() {
        let mut lines = Lines::new(&op::Logs { stderr: true, ..Default::default() }, false, None);
        assert_eq!(lines.push(&record(Stream::Stdout, false, "a")), 0);
        assert_eq!(text(&mut lines, record(Stream::Stderr, false, "b")), "\u{2}\0\0\0\0\0\0\u{2}b\n");
        let lost =
            Record { entry: Entry::Lost { records: 2, bytes: 9 }, ..record(Stream::Stdout, false, "") };
        assert!(text(&mut lines, lost).contains("[berth: 2 log records (9 bytes)"));
    }
}
