//! Walking a log while its writer goes on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::record::{self, Entry, MAX_PAYLOAD, OVERHEAD, Parsed, Record};
use super::{Follow, LogError, Query, json, segment};

/// Bytes read at once; a whole record always fits.
const WINDOW: usize = 64 * 1024;

/// A reader of one log. A log that is missing is an empty one.
#[derive(Debug, Clone)]
pub enum Reader {
    /// Of the segments in this directory.
    Segments(PathBuf),
    /// Of the JSON lines in this file and those that were rotated.
    JsonFile(PathBuf),
}

impl Reader {
    /// A reader of the segments in `directory`.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Self::Segments(directory.into())
    }

    /// The records that match, as far as they are written now: it ends also if the writer never rests. Reads block on
    /// the disk.
    ///
    /// # Errors
    /// When the directory or a segment cannot be read.
    pub fn records(&self, query: Query) -> Result<Records, LogError> {
        let mut records = self.endless(query)?;
        records.cursor.end_here()?;
        // More may have been written between the look for its beginning and the look for its end.
        records.lines = query.tail;
        Ok(records)
    }

    /// The records that match. After `None`, more may follow if the writer has gone on.
    fn endless(&self, query: Query) -> Result<Records, LogError> {
        let cursor = match (self, query.tail) {
            (Self::Segments(directory), Some(lines)) => {
                AnyCursor::Segments(Cursor::at(directory.clone(), tail_start(directory, lines)?))
            }
            (Self::Segments(directory), None) => {
                AnyCursor::Segments(Cursor::at(directory.clone(), since_start(directory, &query)?))
            }
            (Self::JsonFile(path), Some(lines)) => AnyCursor::Json(json::Cursor::last(path, lines)?),
            (Self::JsonFile(path), None) => AnyCursor::Json(json::Cursor::first(path)?),
        };
        Ok(Records { cursor, query, lines: None, done: false })
    }

    /// The records that match, and those still to come. It ends when `ended` says `true` (the container has ended and its
    /// shim has written everything) and all is read; a dropped sender counts as `true`.
    ///
    /// # Errors
    /// As [`Reader::records`], and when the directory cannot be made or watched.
    pub fn follow(&self, query: Query, ended: watch::Receiver<bool>) -> Result<Follow, LogError> {
        let directory = match self {
            Self::Segments(directory) => directory,
            Self::JsonFile(path) => path.parent().unwrap_or(path),
        };
        Follow::new(directory, || self.endless(query), ended)
    }
}

/// An iterator over records.
#[derive(Debug)]
pub struct Records {
    cursor: AnyCursor,
    query: Query,
    /// Lines still to come, if not all that there are.
    lines: Option<u64>,
    done: bool,
}

impl Records {
    /// Nothing that may still be written can match.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

impl Iterator for Records {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done && self.lines != Some(0) {
            let record = match self.cursor.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if !matches!(record.entry, Entry::Output { partial: true, .. }) {
                self.lines = self.lines.map(|lines| lines.saturating_sub(1));
            }
            if self.query.is_past(record.time) {
                self.done = true;
            } else if !self.query.is_before(record.time) {
                return Some(Ok(record));
            }
        }
        None
    }
}

#[derive(Debug)]
enum AnyCursor {
    Segments(Cursor),
    Json(json::Cursor),
}

impl AnyCursor {
    fn next(&mut self) -> Option<Result<Record, LogError>> {
        match self {
            Self::Segments(cursor) => cursor.next(),
            Self::Json(cursor) => cursor.next(),
        }
    }

    /// What is written from now on is not read.
    fn end_here(&mut self) -> Result<(), LogError> {
        match self {
            Self::Segments(cursor) => cursor.end_here(),
            Self::Json(cursor) => cursor.end_here(),
        }
    }
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// The segment at or after this name.
    first: u64,
    offset: u64,
}

const BEGINNING: Position = Position { first: 0, offset: 0 };

#[derive(Debug)]
struct Cursor {
    directory: PathBuf,
    start: Position,
    segment: Option<Open>,
    /// Records from here on are not read.
    end: Option<Position>,
}

#[derive(Debug)]
struct Open {
    file: File,
    first: u64,
    /// Offset in the file of `buffer[at]`.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
    damaged: bool,
}

impl Open {
    /// The next whole record, if it is there.
    fn next(&mut self, directory: &Path) -> Option<Result<Record, LogError>> {
        if self.damaged {
            return None;
        }
        for refilled in [false, true] {
            match record::parse(&self.buffer[self.at..]) {
                Parsed::Whole(record, size) => {
                    self.at += size;
                    self.offset += size as u64;
                    return Some(Ok(record));
                }
                Parsed::Incomplete if refilled => return None,
                // What is buffered may be the half of a write that failed and was taken back: look again.
                Parsed::Damaged if refilled => {
                    self.damaged = true;
                    let path = segment::path(directory, self.first);
                    return Some(Err(LogError::Damaged { path, offset: self.offset }));
                }
                Parsed::Incomplete | Parsed::Damaged => {
                    if let Err(error) = self.refill() {
                        self.damaged = true;
                        return Some(Err(LogError::io("read", segment::path(directory, self.first), error)));
                    }
                }
            }
        }
        None
    }

    fn refill(&mut self) -> std::io::Result<()> {
        self.buffer.resize(WINDOW, 0);
        self.at = 0;
        let result = self.file.read_at(&mut self.buffer, self.offset);
        self.buffer.truncate(*result.as_ref().unwrap_or(&0));
        result.map(drop)
    }
}

impl Cursor {
    fn at(directory: PathBuf, start: Position) -> Self {
        Self { directory, start, segment: None, end: None }
    }

    /// Sets the end to what is written now.
    fn end_here(&mut self) -> Result<(), LogError> {
        self.end = Some(BEGINNING);
        if let Some(first) = segment::list(&self.directory)?.pop() {
            // A segment that was rotated away by now is not read either.
            let length =
                std::fs::metadata(segment::path(&self.directory, first)).map_or(0, |data| data.len());
            self.end = Some(Position { first, offset: length });
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        let at = self.segment.as_ref().map(|open| (open.first, open.offset));
        matches!((at, self.end), (Some(at), Some(end)) if at >= (end.first, end.offset))
    }

    fn next(&mut self) -> Option<Result<Record, LogError>> {
        loop {
            if self.is_at_end() {
                return None;
            }
            if let Some(open) = &mut self.segment
                && let Some(result) = open.next(&self.directory)
            {
                return Some(result);
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Moves on to the next segment, if there is one and nothing was added to this one in the meantime.
    fn advance(&mut self) -> Result<bool, LogError> {
        let after = self.segment.as_ref().map(|open| open.first);
        let last = self.end.map_or(u64::MAX, |end| end.first);
        let wanted =
            |first: &u64| *first <= last && after.map_or(*first >= self.start.first, |after| *first > after);
        let Some(first) = segment::list(&self.directory)?.into_iter().find(wanted) else { return Ok(false) };
        // The writer makes a segment only after its last write to the one before: one more look finds everything.
        if let Some(open) = &mut self.segment
            && !open.damaged
        {
            open.refill()
                .map_err(|error| LogError::io("read", segment::path(&self.directory, open.first), error))?;
            if matches!(record::parse(&open.buffer), Parsed::Whole(..)) {
                return Ok(true);
            }
        }
        let path = segment::path(&self.directory, first);
        let offset = if after.is_none() && first == self.start.first { self.start.offset } else { 0 };
        match File::open(&path) {
            Ok(file) => {
                self.segment = Some(Open { file, first, offset, buffer: Vec::new(), at: 0, damaged: false });
                Ok(true)
            }
            // Rotated away since it was listed: the next round finds its successor.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.start = Position { first: first.saturating_add(1), offset: 0 };
                Ok(true)
            }
            Err(error) => Err(LogError::io("open", path, error)),
        }
    }
}

/// The newest segment that begins no later than `since`.
fn since_start(directory: &Path, query: &Query) -> Result<Position, LogError> {
    let Some(since) = query.since else { return Ok(BEGINNING) };
    let mut start = BEGINNING;
    for first in segment::list(directory)? {
        let position = Position { first, offset: 0 };
        match Cursor::at(directory.to_owned(), position).next() {
            Some(Ok(record)) if record.time <= since => start = position,
            Some(Ok(_)) => break,
            Some(Err(_)) | None => {}
        }
    }
    Ok(start)
}

/// Where the last `lines` lines begin.
fn tail_start(directory: &Path, lines: u64) -> Result<Position, LogError> {
    let mut start = Position { first: u64::MAX, offset: 0 };
    let mut seen = 0;
    for first in segment::list(directory)?.into_iter().rev() {
        let path = segment::path(directory, first);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(LogError::io("open", path, error)),
        };
        let (end, _) = segment::sound_end(&file, &path, first)?;
        if start.first == u64::MAX {
            start = Position { first, offset: end };
        }
        let mut backwards = Backwards { file: &file, end, buffer: Vec::new() };
        while let Some((offset, record)) =
            backwards.next().map_err(|error| LogError::io("read", &path, error))?
        {
            // A record without the partial flag ends a line; a piece at the very end of the log counts as one, too.
            let ends_line = !matches!(record.entry, Entry::Output { partial: true, .. });
            if ends_line || seen == 0 {
                if seen == lines {
                    return Ok(start);
                }
                seen += 1;
            }
            start = Position { first, offset };
        }
    }
    Ok(start)
}

/// Walks the records of a segment from its end.
struct Backwards<'a> {
    file: &'a File,
    /// Offset in the file of the buffer's end.
    end: u64,
    buffer: Vec<u8>,
}

impl Backwards<'_> {
    fn next(&mut self) -> std::io::Result<Option<(u64, Record)>> {
        if self.end == 0 {
            return Ok(None);
        }
        for refilled in [false, true] {
            if let Parsed::Whole((), size) = record::size_from_back(&self.buffer)
                && let Some(start) = self.buffer.len().checked_sub(size)
            {
                let Parsed::Whole(record, _) = record::parse(&self.buffer[start..]) else { return Ok(None) };
                self.buffer.truncate(start);
                self.end -= size as u64;
                return Ok(Some((self.end, record)));
            }
            if !refilled {
                let window = self.end.min(WINDOW as u64);
                self.buffer.resize(window as usize, 0);
                self.file.read_exact_at(&mut self.buffer, self.end - window)?;
            }
        }
        Ok(None)
    }
}

const _: () = assert!(MAX_PAYLOAD + OVERHEAD <= WINDOW);
