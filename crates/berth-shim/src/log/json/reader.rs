//! Walking a log in Docker's format while its writer goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files::{self, LONGEST, LogFile, Next};
use super::line;
use crate::log::{Entry, LogError, Record};

/// Bytes read at once.
const WINDOW: usize = 128 * 1024;

/// A place in a log, from which records are read one after the other.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    /// Files still to be read that were there at the beginning, the oldest first.
    waiting: VecDeque<LogFile>,
    current: Option<Open>,
    /// How much of the newest file that was there at the beginning is read, if nothing behind it is to be.
    end: Option<u64>,
}

#[derive(Debug)]
struct Open {
    log_file: LogFile,
    /// Its content.
    file: File,
    /// Offset in the file of `buffer[at]`.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Cursor {
    /// Before the first record.
    pub(in crate::log) fn first(path: &Path) -> Result<Self, LogError> {
        let files = files::open_all(path).map_err(|error| LogError::io("open", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            waiting: files.into_iter().rev().collect(),
            current: None,
            end: None,
        })
    }

    /// Before the last `lines` lines.
    pub(in crate::log) fn last(path: &Path, lines: u64) -> Result<Self, LogError> {
        let files = files::open_all(path).map_err(|error| LogError::io("open", path, error))?;
        let mut cursor = Self { path: path.to_owned(), waiting: VecDeque::new(), current: None, end: None };
        let mut seen = 0;
        for file in files {
            let failed = |error| LogError::io("read", path, error);
            let mut open = Open::new(file).map_err(failed)?;
            let done = open.seek_back(lines, &mut seen).map_err(failed)?;
            if let Some(newer) = cursor.current.replace(open) {
                cursor.waiting.push_front(newer.log_file);
            }
            if done {
                break;
            }
        }
        Ok(cursor)
    }

    /// Reads nothing that is written from now on.
    pub(in crate::log) fn end_here(&mut self) -> Result<(), LogError> {
        let newest = self.waiting.back().or(self.current.as_ref().map(|open| &open.log_file));
        let length = newest.map_or(Ok(0), LogFile::length);
        self.end = Some(length.map_err(|error| LogError::io("read", &self.path, error))?);
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        let offset = self.current.as_ref().map_or(0, |open| open.offset);
        self.waiting.is_empty() && self.end.is_some_and(|end| offset >= end)
    }

    /// The next record, if it is there.
    pub(in crate::log) fn next(&mut self) -> Option<Result<Record, LogError>> {
        loop {
            if self.is_at_end() {
                return None;
            }
            if let Some(open) = &mut self.current
                && let Some(result) = open.next()
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

    /// Moves on to the next file, if there is one and nothing was added to this one in the meantime.
    fn advance(&mut self) -> Result<bool, LogError> {
        let failed = |error| LogError::io("open", &self.path, error);
        let next = match (self.waiting.pop_front(), &mut self.current) {
            (Some(file), _) => file,
            (None, _) if self.end.is_some() => return Ok(false),
            (None, Some(open)) => match files::after(&self.path, &open.log_file).map_err(failed)? {
                Next::NotYet => return Ok(false),
                // The writer goes on to a new file only after its last write to this one: one more look finds
                // everything.
                Next::File(_) if open.has_more().map_err(failed)? => return Ok(true),
                Next::File(file) => file,
            },
            (None, None) => match files::open_all(&self.path).map_err(failed)?.pop() {
                Some(file) => file,
                None => return Ok(false),
            },
        };
        self.current = Some(Open::new(next).map_err(failed)?);
        Ok(true)
    }
}

impl Open {
    fn new(file: LogFile) -> std::io::Result<Self> {
        Ok(Self { file: file.unpacked()?, log_file: file, offset: 0, buffer: Vec::new(), at: 0 })
    }

    /// The next whole line.
    fn next(&mut self) -> Option<Result<Record, LogError>> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(end) = memchr::memchr(b'\n', &rest[searched..]).map(|end| searched + end) {
                let record = line::parse(&rest[..end]);
                let offset = self.offset;
                self.at += end + 1;
                self.offset += end as u64 + 1;
                return Some(
                    record.ok_or_else(|| LogError::Damaged { path: self.log_file.path.clone(), offset }),
                );
            }
            searched = rest.len();
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(LogError::io("read", &self.log_file.path, error))),
            }
        }
    }

    /// Reads on behind what is buffered; false at the end of the file.
    fn refill(&mut self) -> std::io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let filled = self.buffer.len();
        if filled as u64 >= LONGEST {
            return Err(std::io::Error::other("a line is too long"));
        }
        self.buffer.resize(filled + WINDOW, 0);
        let result = self.file.read_at(&mut self.buffer[filled..], self.offset + filled as u64);
        self.buffer.truncate(filled + *result.as_ref().unwrap_or(&0));
        result.map(|count| count > 0)
    }

    fn has_more(&mut self) -> std::io::Result<bool> {
        // What is buffered may be the half of a write that failed and was taken back.
        self.buffer.clear();
        self.at = 0;
        while self.refill()? {
            if memchr::memchr(b'\n', &self.buffer).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes back from the end until `seen` lines in all have been passed; true if they have.
    fn seek_back(&mut self, lines: u64, seen: &mut u64) -> std::io::Result<bool> {
        let mut back = Backwards::new(&self.file)?;
        self.offset = back.end;
        while let Some(bytes) = back.next()? {
            // A record with a newline ends a line; a piece at the very end of the log counts as one, too.
            let partial = line::parse(&bytes)
                .is_some_and(|record| matches!(record.entry, Entry::Output { partial: true, .. }));
            if !partial || *seen == 0 {
                if *seen == lines {
                    return Ok(true);
                }
                *seen += 1;
            }
            self.offset = back.end;
        }
        Ok(false)
    }
}

/// Walks the whole lines of a file from its end.
struct Backwards<'a> {
    file: &'a File,
    /// Offset of the end of the lines that have not been passed; behind a newline.
    end: u64,
    /// The bytes before `end`.
    buffer: Vec<u8>,
}

impl<'a> Backwards<'a> {
    fn new(file: &'a File) -> std::io::Result<Self> {
        let mut back = Self { file, end: file.metadata()?.len(), buffer: Vec::new() };
        // What follows the last newline is being written.
        loop {
            if let Some(at) = memchr::memrchr(b'\n', &back.buffer) {
                back.end -= (back.buffer.len() - at - 1) as u64;
                back.buffer.truncate(at + 1);
                return Ok(back);
            }
            if !back.refill()? {
                back.end = 0;
                back.buffer.clear();
                return Ok(back);
            }
        }
    }

    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let body = self.buffer.len().saturating_sub(1);
            let before = memchr::memrchr(b'\n', &self.buffer[..body]);
            let at_start = self.buffer.len() as u64 == self.end;
            if let Some(start) = before.map(|at| at + 1).or((at_start && self.end > 0).then_some(0)) {
                let mut line = self.buffer.split_off(start);
                self.end -= line.len() as u64;
                line.pop();
                return Ok(Some(line));
            }
            if !self.refill()? {
                return Ok(None);
            }
        }
    }

    /// Reads what lies before the buffer; false at the beginning of the file.
    fn refill(&mut self) -> std::io::Result<bool> {
        let before = self.end - self.buffer.len() as u64;
        let window = before.min(WINDOW as u64);
        let mut buffer = vec![0; window as usize];
        self.file.read_exact_at(&mut buffer, before - window)?;
        buffer.append(&mut self.buffer);
        self.buffer = buffer;
        Ok(window > 0)
    }
}
