//! Appending, rotating, and going on when the disk is full.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{self, MAX_PAYLOAD, OVERHEAD, Stream};
use super::split::Splitter;
use super::{LogError, segment};

/// Records are gathered up to this many bytes before they are written.
const BATCH: usize = 32 * 1024;

/// How large the files of a log may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// A segment is closed before it would pass this many bytes. At least one record goes into each.
    pub max_file_bytes: u64,
    /// This many segments are kept, the open one included; at least 1.
    pub max_files: u32,
}

impl Default for LogSettings {
    /// Five segments of 20 MB.
    fn default() -> Self {
        Self { max_file_bytes: 20_000_000, max_files: 5 }
    }
}

/// The one writer of a log directory. It never fails once open: what cannot be written is counted, and as soon as
/// writing works again a record says how much is missing.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    settings: LogSettings,
    /// `None` until there is something to write, and when the next segment could not be made.
    file: Option<File>,
    /// Bytes of whole records in `file`.
    length: u64,
    next_sequence: u64,
    segments: Vec<u64>,
    splitters: [Splitter; 2],
    batch: Batch,
    lost: Lost,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    records: u64,
    payload: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Lost {
    records: u64,
    bytes: u64,
}

impl Writer {
    /// Opens the log in `directory`, which is made (0700) if it is missing, cutting the torn tail that a crash may have
    /// left.
    ///
    /// # Errors
    /// When the directory or its newest segment cannot be opened or read.
    pub fn open(directory: &Path, settings: LogSettings) -> Result<Self, LogError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| LogError::io("create", directory, error))?;
        let segments = segment::list(directory)?;
        let mut writer = Self {
            directory: directory.to_owned(),
            settings: LogSettings { max_files: settings.max_files.max(1), ..settings },
            file: None,
            length: 0,
            next_sequence: 0,
            segments,
            splitters: [Splitter::new(Stream::Stdout), Splitter::new(Stream::Stderr)],
            batch: Batch::default(),
            lost: Lost::default(),
        };
        if let Some(&first) = writer.segments.last() {
            writer.resume(first)?;
        }
        Ok(writer)
    }

    fn resume(&mut self, first: u64) -> Result<(), LogError> {
        let path = segment::path(&self.directory, first);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| LogError::io("open", &path, error))?;
        let (end, next) = segment::sound_end(&file, &path, first)?;
        file.set_len(end).map_err(|error| LogError::io("truncate", &path, error))?;
        (self.file, self.length, self.next_sequence) = (Some(file), end, next);
        Ok(())
    }

    /// Takes a chunk that the container wrote to `stream`, and writes the lines that it completes.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) {
        let nanos = now();
        self.with_splitter(stream, |splitter, writer| {
            splitter.push(chunk, |stream, partial, payload| writer.add(nanos, stream, partial, payload));
        });
        self.flush();
    }

    /// The stream has ended: writes the line that has no newline, if there is one.
    pub fn finish(&mut self, stream: Stream) {
        let nanos = now();
        self.with_splitter(stream, |splitter, writer| {
            splitter.finish(|stream, partial, payload| writer.add(nanos, stream, partial, payload));
        });
        // Nothing may come after it that would tell of a loss.
        self.begin_batch(nanos);
        self.flush();
    }

    /// So many lines never came here: what has begun of a line ends, and a record tells of the loss.
    pub fn lose(&mut self, records: u64, bytes: u64) {
        self.finish(Stream::Stdout);
        self.finish(Stream::Stderr);
        self.lost.records += records;
        self.lost.bytes += bytes;
    }

    fn with_splitter(&mut self, stream: Stream, work: impl FnOnce(&mut Splitter, &mut Self)) {
        let index = stream as usize;
        let mut splitter = std::mem::replace(&mut self.splitters[index], Splitter::new(stream));
        work(&mut splitter, self);
        self.splitters[index] = splitter;
    }

    fn add(&mut self, nanos: i64, stream: Stream, partial: bool, payload: &[u8]) {
        if self.batch.bytes.len() + payload.len() + OVERHEAD > BATCH {
            self.flush();
        }
        self.begin_batch(nanos);
        let sequence = self.next_sequence + self.batch.records;
        record::encode_output(&mut self.batch.bytes, sequence, nanos, stream, partial, payload);
        self.batch.records += 1;
        self.batch.payload += payload.len() as u64;
    }

    /// A batch after a loss begins with the record that tells of it.
    fn begin_batch(&mut self, nanos: i64) {
        if self.batch.bytes.is_empty() && self.lost.records > 0 {
            self.next_sequence = self.next_sequence.saturating_add(self.lost.records);
            let Lost { records, bytes } = self.lost;
            record::encode_lost(&mut self.batch.bytes, self.next_sequence, nanos, records, bytes);
            self.batch.records = 1;
        }
    }

    fn flush(&mut self) {
        if self.batch.records == 0 {
            return;
        }
        let had_lost = self.lost;
        let (records, payload) = (self.batch.records, self.batch.payload);
        let written = self.write_batch().is_ok();
        self.batch.bytes.clear();
        if self.batch.bytes.capacity() > BATCH {
            self.batch.bytes = Vec::new();
        }
        (self.batch.records, self.batch.payload) = (0, 0);
        if written {
            self.next_sequence = self.next_sequence.saturating_add(records);
            self.lost = Lost::default();
        } else if had_lost.records > 0 {
            // The batch began with the marker: take back the gap that it stood for, the next marker covers all.
            self.next_sequence = self.next_sequence.saturating_sub(had_lost.records);
            self.lost.records += records - 1;
            self.lost.bytes += payload;
        } else {
            self.lost = Lost { records, bytes: payload };
        }
    }

    /// Writes the whole batch or nothing.
    fn write_batch(&mut self) -> std::io::Result<()> {
        let size = self.batch.bytes.len() as u64;
        if self.file.is_none() || (self.length > 0 && self.length + size > self.settings.max_file_bytes) {
            self.rotate()?;
        }
        let Some(file) = &self.file else { return Err(std::io::ErrorKind::NotFound.into()) };
        match file.write_all_at(&self.batch.bytes, self.length) {
            Ok(()) => {
                self.length += size;
                Ok(())
            }
            Err(error) => {
                // What was written of the batch must not be taken for records. If even this fails, the next batch
                // overwrites it at the same offset.
                let _ = file.set_len(self.length);
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let first = self.next_sequence;
        while self.segments.len() >= self.settings.max_files as usize {
            let oldest = self.segments.remove(0);
            // A segment that someone else removed is as good as removed.
            let _ = std::fs::remove_file(segment::path(&self.directory, oldest));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(segment::path(&self.directory, first))?;
        (self.file, self.length) = (Some(file), 0);
        if self.segments.last() != Some(&first) {
            self.segments.push(first);
        }
        Ok(())
    }
}

const _: () = assert!(MAX_PAYLOAD + OVERHEAD < BATCH);

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
