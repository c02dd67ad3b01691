//! A log that is followed beyond the end of its daemon.
//!
//! The daemon is asked for times whether the user wants to see them or not. A connection that breaks is made again from the
//! last time on, and what was shown of that moment is left out: no record is missed, and none comes twice.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use berth_api::container::Inspect;
use berth_api::stream::{Decoder, Stream};
use berth_client::{Client, Error, Query, ResponseBody, segment};
use bytes::Bytes;
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::session::streams::Output;

/// How long a daemon that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a record that are held back until it is whole. Daemons cut records at a fraction of it.
const RECORD: usize = 256 << 10;

/// What is to be followed, and how it is shown.
pub struct Wanted {
    /// The container as it was found.
    pub found: Inspect,
    /// The parameters that stay the same.
    pub query: Query,
    /// Nothing older.
    pub since: Option<String>,
    /// Only that many lines of what there is now.
    pub tail: Option<String>,
    /// Times are shown.
    pub timestamps: bool,
}

/// How a connection ended.
enum End {
    /// As the daemon wanted it.
    Clean,
    /// It broke.
    Broken(Error),
}

/// Shows the log until the container has ended.
pub async fn run(context: &Context, client: Client, wanted: Wanted) -> Outcome {
    let begun = Timestamp::now();
    let mut client = client;
    let mut shown = Shown::new(wanted.timestamps);
    let mut output = Output::new(!wanted.found.config.tty);
    let mut body = client.get_stream(&wanted.path(wanted.since.as_deref(), wanted.tail.as_deref())).await?;
    let mut deadline = None;
    loop {
        let records = shown.count;
        let end = shown.all(body, &wanted, &mut output).await?;
        if shown.count > records {
            deadline = None;
        }
        if matches!(end, End::Clean) && wanted.has_ended(&client).await {
            return Ok(());
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        let mut last = match end {
            End::Clean if Instant::now() >= deadline => return Ok(()),
            End::Clean => None,
            End::Broken(error) => Some(error),
        };
        let since = shown.since().or_else(|| match &wanted.tail {
            // What the user did not want to see of the beginning is not to come now.
            Some(tail) if tail != "all" => Some(parameter(begun)),
            _ => wanted.since.clone(),
        });
        shown.begin_again();
        body = loop {
            tokio::time::sleep(PAUSE).await;
            match again(context, &client, &wanted.path(since.as_deref(), None)).await {
                Ok((connected, body)) => {
                    client = connected;
                    break body;
                }
                // The container has gone with its daemon.
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.status().is_some() => return Err(error.into()),
                Err(error) if Instant::now() >= deadline => return Err(last.unwrap_or(error).into()),
                Err(error) => last = Some(error),
            }
        };
    }
}

async fn again(context: &Context, client: &Client, path: &str) -> Result<(Client, ResponseBody), Error> {
    let client = context.reconnect(client).await?;
    let body = client.get_stream(path).await?;
    Ok((client, body))
}

/// A moment as a parameter.
fn parameter(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

impl Wanted {
    fn path(&self, since: Option<&str>, tail: Option<&str>) -> String {
        let query = self.query.clone().flag("timestamps", true);
        let query = query.set_some("since", since).set_some("tail", tail);
        query.on(&format!("/containers/{}/logs", segment(&self.found.id)))
    }

    /// Whether there is nothing more to come of the run that is followed. A daemon that ends in peace ends what it sends in
    /// peace, too.
    async fn has_ended(&self, client: &Client) -> bool {
        let path = format!("/containers/{}/json", segment(&self.found.id));
        match client.get::<Inspect>(&path).await {
            Ok(now) => !now.state.running || now.state.started_at != self.found.state.started_at,
            Err(error) => error.status().is_some(),
        }
    }
}

/// One record that was shown.
#[derive(Debug, Clone, Copy)]
struct Mark {
    stream: Stream,
    /// When it was written; records that go on with a line have no time.
    time: Option<Timestamp>,
    hash: u64,
}

impl Mark {
    fn new(stream: Stream, time: Option<Timestamp>, text: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { stream, time, hash: hasher.finish() }
    }

    fn is(&self, other: &Self) -> bool {
        let moments = self.time.zip(other.time);
        self.stream == other.stream && self.hash == other.hash && moments.is_none_or(|(own, its)| own == its)
    }
}

/// What was shown, as far as it has to be known to go on.
struct Shown {
    timestamps: bool,
    /// Records that were shown.
    count: u64,
    /// The last time, and what was shown that may be of it or of later.
    last: Option<Timestamp>,
    marks: Vec<Mark>,
    /// What comes once more.
    repeated: VecDeque<Mark>,
    /// Whether the last record of each stream left its line open: for the daemon, and for the user.
    open_there: [bool; 2],
    open_here: [bool; 2],
}

impl Shown {
    fn new(timestamps: bool) -> Self {
        Self {
            timestamps,
            count: 0,
            last: None,
            marks: Vec::new(),
            repeated: VecDeque::new(),
            open_there: [false; 2],
            open_here: [false; 2],
        }
    }

    /// From when on to go on.
    fn since(&self) -> Option<String> {
        self.last.map(parameter)
    }

    /// A connection begins that repeats what was shown since [`Shown::since`].
    fn begin_again(&mut self) {
        self.repeated = self.marks.iter().copied().collect();
        self.open_there = [false; 2];
    }

    /// Shows what comes on a connection.
    async fn all(&mut self, mut body: ResponseBody, wanted: &Wanted, output: &mut Output) -> Outcome<End> {
        let mut records = if wanted.found.config.tty { Records::lines() } else { Records::frames() };
        loop {
            let (found, end) = match body.chunk().await {
                Ok(Some(chunk)) => (records.take(chunk)?, None),
                Ok(None) => (records.rest(), Some(End::Clean)),
                Err(error) => (Vec::new(), Some(End::Broken(error))),
            };
            let mut runs: Vec<(Stream, Vec<u8>)> = Vec::new();
            for (stream, record) in found {
                let text = self.text(stream, &record);
                match runs.last_mut() {
                    Some((last, run)) if *last == stream => run.extend_from_slice(text),
                    _ => runs.push((stream, text.to_vec())),
                }
            }
            for (stream, run) in runs.iter().filter(|(_, run)| !run.is_empty()) {
                output.put(*stream, run).await?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// What the user sees of a record: nothing of one that was shown before.
    fn text<'a>(&mut self, stream: Stream, record: &'a [u8]) -> &'a [u8] {
        let index = usize::from(stream == Stream::Stderr);
        let open = !record.ends_with(b"\n");
        let (time, text) = match std::mem::replace(&mut self.open_there[index], open) {
            true => (None, record),
            false => timed(record),
        };
        let mark = Mark::new(stream, time, text);
        match self.repeated.iter().position(|shown| shown.is(&mark)) {
            Some(position) => {
                self.repeated.drain(..=position);
                return &[];
            }
            // The log may have been rotated meanwhile.
            None => self.repeated.clear(),
        }
        if let Some(time) = time.filter(|time| self.last != Some(*time)) {
            self.last = Some(time);
            // What went on with a line since the time before may be of this moment, too.
            let known = self.marks.iter().rposition(|mark| mark.time.is_some());
            self.marks.drain(..known.map_or(0, |last| last + 1));
        }
        self.marks.push(mark);
        self.count += 1;
        let continued = std::mem::replace(&mut self.open_here[index], open);
        if self.timestamps && !continued { record } else { text }
    }
}

/// A record's time, and what follows it.
fn timed(record: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let found = || {
        let space = record.iter().position(|byte| *byte == b' ')?;
        let time = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
        Some((Some(time), &record[space + 1..]))
    };
    found().unwrap_or((None, record))
}

/// Cuts what comes into records: frames, or the lines of a terminal.
struct Records {
    decoder: Option<Decoder>,
    gathered: Vec<u8>,
}

impl Records {
    fn frames() -> Self {
        Self { decoder: Some(Decoder::new()), gathered: Vec::new() }
    }

    fn lines() -> Self {
        Self { decoder: None, gathered: Vec::new() }
    }

    fn take(&mut self, mut input: Bytes) -> Outcome<Vec<(Stream, Vec<u8>)>> {
        let mut records = Vec::new();
        let Some(decoder) = &mut self.decoder else {
            for part in input.split_inclusive(|byte| *byte == b'\n') {
                self.gathered.extend_from_slice(part);
                if part.ends_with(b"\n") || self.gathered.len() >= RECORD {
                    records.push((Stream::Stdout, std::mem::take(&mut self.gathered)));
                }
            }
            return Ok(records);
        };
        while let Some(chunk) = decoder.next(&mut input).map_err(|error| Failure::new(error.to_string()))? {
            self.gathered.extend_from_slice(&chunk.data);
            if !decoder.is_complete() && self.gathered.len() < RECORD {
                continue;
            }
            let record = std::mem::take(&mut self.gathered);
            if chunk.stream == Stream::SystemError {
                let text = String::from_utf8_lossy(&record).trim().to_owned();
                return Err(Failure::new(format!("error from daemon in stream: {text}")));
            }
            records.push((chunk.stream, record));
        }
        Ok(records)
    }

    /// What a terminal's log ends with.
    fn rest(&mut self) -> Vec<(Stream, Vec<u8>)> {
        let rest = std::mem::take(&mut self.gathered);
        if rest.is_empty() || self.decoder.is_some() { Vec::new() } else { vec![(Stream::Stdout, rest)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the user sees of records: time in milliseconds and text; a record without a newline is the part of a line.
    struct Log {
        records: Vec<(Stream, i64, &'static str)>,
    }

    impl Log {
        /// As a daemon sends it from a time on.
        fn from(&self, since: i64) -> Vec<(Stream, Vec<u8>)> {
            let mut open = [false; 2];
            let kept = self.records.iter().filter(|(_, time, _)| *time >= since);
            let sent = kept.map(|(stream, time, text)| {
                let index = usize::from(*stream == Stream::Stderr);
                let continued = std::mem::replace(&mut open[index], !text.ends_with('\n'));
                let time = Timestamp::from_millisecond(*time).unwrap();
                let head = if continued { String::new() } else { format!("{time:.9} ") };
                (*stream, format!("{head}{text}").into_bytes())
            });
            sent.collect()
        }

        fn whole(&self) -> String {
            self.records.iter().map(|(_, _, text)| *text).collect()
        }
    }

    fn feed(shown: &mut Shown, records: &[(Stream, Vec<u8>)]) -> String {
        let texts = records.iter().map(|(stream, record)| shown.text(*stream, record).to_vec());
        String::from_utf8(texts.collect::<Vec<_>>().concat()).unwrap()
    }

    fn log() -> Log {
        use Stream::{Stderr, Stdout};
        Log {
            records: vec![
                (Stdout, 1, "a\n"),
                (Stdout, 2, "y\n"),
                (Stdout, 2, "y\n"),
                (Stderr, 2, "y\n"),
                (Stdout, 2, "y\n"),
                (Stdout, 3, "begin, "),
                (Stderr, 4, "between\n"),
                (Stdout, 5, "middle, "),
                (Stdout, 6, "end\n"),
                (Stdout, 6, "y\n"),
                (Stdout, 7, "last\n"),
            ],
        }
    }

    #[test]
    fn wherever_connections_break_all_comes_once() {
        let log = log();
        for first in 0..=log.records.len() {
            for second in 0..=log.records.len() {
                let mut shown = Shown::new(false);
                let mut seen = feed(&mut shown, &log.from(0)[..first]);
                for count in [second, usize::MAX] {
                    let since = shown.last.map_or(0, |time| time.as_millisecond());
                    shown.begin_again();
                    let again = log.from(since);
                    seen += &feed(&mut shown, &again[..count.min(again.len())]);
                }
                assert_eq!(seen, log.whole(), "broken after {first} and {second}");
            }
        }
    }

    #[test]
    fn times_are_shown_once_in_each_line() {
        let mut shown = Shown::new(true);
        let log = log();
        let mut seen = feed(&mut shown, &log.from(0)[..7]);
        shown.begin_again();
        seen += &feed(&mut shown, &log.from(4));
        let line = "1970-01-01T00:00:00.003000000Z begin, ";
        assert!(seen.contains(line) && seen.contains("Z between\nmiddle, end\n"), "{seen}");
        assert_eq!(seen.matches("1970-").count(), 9, "{seen}");
    }

    #[test]
    fn a_log_that_was_rotated_meanwhile_goes_on() {
        let mut log = log();
        let mut shown = Shown::new(false);
        feed(&mut shown, &log.from(0)[..5]);
        // Three of the four records of that moment have gone.
        log.records.drain(..4);
        shown.begin_again();
        assert_eq!(feed(&mut shown, &log.from(2)), log.whole()["y\n".len()..]);
    }

    #[test]
    fn lines_of_a_terminal_are_records() {
        let mut records = Records::lines();
        assert!(records.take(Bytes::from_static(b"a")).unwrap().is_empty());
        let found = records.take(Bytes::from_static(b"b\r\nc\r\nd")).unwrap();
        assert_eq!(found, [(Stream::Stdout, b"ab\r\n".to_vec()), (Stream::Stdout, b"c\r\n".to_vec())]);
        assert_eq!(records.rest(), [(Stream::Stdout, b"d".to_vec())]);
    }

    #[test]
    fn frames_are_records_however_they_come() {
        let mut bytes = bytes::BytesMut::new();
        berth_api::stream::encode(Stream::Stdout, b"one\n", &mut bytes);
        berth_api::stream::encode(Stream::Stderr, b"two", &mut bytes);
        let mut records = Records::frames();
        let parts = bytes.freeze();
        let found: Vec<_> =
            parts.chunks(3).flat_map(|part| records.take(part.to_vec().into()).unwrap()).collect();
        assert_eq!(found, [(Stream::Stdout, b"one\n".to_vec()), (Stream::Stderr, b"two".to_vec())]);
        let mut bytes = bytes::BytesMut::new();
        berth_api::stream::encode(Stream::SystemError, b"gone\n", &mut bytes);
        assert!(records.take(bytes.freeze()).unwrap_err().to_string().contains("gone"));
    }
}
