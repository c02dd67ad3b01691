//! Appending, rotating, and going on when the disk is full.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::compress::Compressor;
use super::encode::{self, Suffix};
use super::files;
use crate::log::split::Splitter;
use crate::log::{LogError, LogSettings, Stream, lost_text};

/// Lines are gathered up to about this many bytes before they are written.
const BATCH: usize = 64 * 1024;

/// The one writer of a log in Docker's format. It never fails once open: what cannot be written is counted, and as soon
/// as writing works again a line says how much is missing.
#[derive(Debug)]
pub struct JsonWriter {
    path: PathBuf,
    settings: LogSettings,
    compress: bool,
    /// A JSON object, or empty.
    attributes: Vec<u8>,
    /// `None` when the next file could not be made.
    file: Option<File>,
    /// Bytes of whole lines in `file`.
    length: u64,
    splitters: [Splitter; 2],
    suffix: Suffix,
    /// The last time that was written.
    time: Timestamp,
    batch: Vec<u8>,
    /// Records in the batch, and their payload bytes.
    gathered: (u64, u64),
    lost: (u64, u64),
    compressor: Option<Compressor>,
}

impl JsonWriter {
    /// Opens the log at `path`, cutting the torn tail that a crash may have left. `attributes` go into every line.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(
        path: &Path,
        settings: LogSettings,
        compress: bool,
        attributes: &std::collections::BTreeMap<String, String>,
    ) -> Result<Self, LogError> {
        let failed = |action| move |error: std::io::Error| LogError::io(action, path, error);
        let file = create(path, false).map_err(failed("open"))?;
        let length = whole_lines(&file).map_err(failed("read"))?;
        file.set_len(length).map_err(failed("truncate"))?;
        // What a crash left half done is begun again.
        let _ = std::fs::remove_file(files::unfinished(path));
        Ok(Self {
            path: path.to_owned(),
            settings: LogSettings { max_files: settings.max_files.max(1), ..settings },
            compress,
            attributes: match attributes.is_empty() {
                true => Vec::new(),
                false => serde_json::to_vec(attributes).unwrap_or_default(),
            },
            file: Some(file),
            length,
            splitters: [Splitter::new(Stream::Stdout), Splitter::new(Stream::Stderr)],
            suffix: Suffix::default(),
            time: Timestamp::UNIX_EPOCH,
            batch: Vec::new(),
            gathered: (0, 0),
            lost: (0, 0),
            compressor: compress.then(|| Compressor::begin(path).ok()).flatten(),
        })
    }

    /// Takes a chunk that the container wrote to `stream`, and writes the lines that it completes.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) {
        self.with_splitter(stream, |splitter, writer| {
            splitter.push(chunk, |stream, partial, payload| writer.add(stream, payload, partial));
        });
        self.step_compression();
    }

    /// The stream has ended: writes the line that has no newline, if there is one.
    pub fn finish(&mut self, stream: Stream) {
        self.with_splitter(stream, |splitter, writer| {
            splitter.finish(|stream, partial, payload| writer.add(stream, payload, partial));
            // Nothing may come after it that would tell of a loss.
            if writer.batch.is_empty() && writer.lost.0 > 0 {
                writer.tell_loss();
            }
        });
        self.complete_compression();
    }

    /// So many lines never came here: what has begun of a line ends, and a line tells of the loss.
    pub fn lose(&mut self, records: u64, bytes: u64) {
        self.finish(Stream::Stdout);
        self.finish(Stream::Stderr);
        self.lost = (self.lost.0 + records, self.lost.1 + bytes);
    }

    fn with_splitter(&mut self, stream: Stream, work: impl FnOnce(&mut Splitter, &mut Self)) {
        let index = stream as usize;
        self.tick(stream);
        let mut splitter = std::mem::replace(&mut self.splitters[index], Splitter::new(stream));
        work(&mut splitter, self);
        self.splitters[index] = splitter;
        self.flush();
        if self.batch.capacity() > 2 * BATCH {
            self.batch = Vec::new();
        }
    }

    /// From now on lines have a time that no line before had.
    fn tick(&mut self, stream: Stream) {
        let after = self.time.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(self.time);
        self.time = Timestamp::now().max(after);
        self.suffix.set(stream, &self.attributes, self.time);
    }

    fn add(&mut self, stream: Stream, payload: &[u8], partial: bool) {
        if self.batch.is_empty() && self.lost.0 > 0 {
            self.tell_loss();
        }
        let start = self.batch.len();
        encode::line(&mut self.batch, payload, partial, &self.suffix);
        let full = self.length + self.batch.len() as u64 > self.settings.max_file_bytes;
        if full && self.length + start as u64 > 0 {
            self.batch.truncate(start);
            self.flush();
            // A failure leaves no file, which the next flush sees.
            self.file = self.rotate().ok();
            // The first lines of two files differ, which `files` relies on.
            self.tick(stream);
            encode::line(&mut self.batch, payload, partial, &self.suffix);
        }
        self.gathered.0 += 1;
        self.gathered.1 += payload.len() as u64;
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// A batch after a loss begins with the line that tells of it.
    fn tell_loss(&mut self) {
        let mut suffix = Suffix::default();
        suffix.set(Stream::Stderr, &self.attributes, Timestamp::now());
        let (records, bytes) = self.lost;
        encode::line(&mut self.batch, lost_text(records, bytes).as_bytes(), false, &suffix);
    }

    /// Writes the whole batch or nothing.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.file = create(&self.path, false).ok();
        }
        let written = self.file.as_ref().is_some_and(|file| {
            let written = file.write_all_at(&self.batch, self.length).is_ok();
            if !written {
                // What was written of the batch must not be taken for lines.
                let _ = file.set_len(self.length);
            }
            written
        });
        if written {
            self.length += self.batch.len() as u64;
            self.lost = (0, 0);
        } else {
            self.lost = (self.lost.0 + self.gathered.0, self.lost.1 + self.gathered.1);
        }
        self.gathered = (0, 0);
        self.batch.clear();
    }

    /// Moves every file one number on, the oldest first, and makes a new one. See `files::after`, which relies on the order.
    fn rotate(&mut self) -> std::io::Result<File> {
        self.complete_compression();
        let last = self.settings.max_files - 1;
        // Files that are missing, or that someone else removed, need not be moved.
        let _ = std::fs::remove_file(files::rotated(&self.path, last));
        if last > 0 {
            let _ = std::fs::remove_file(files::compressed(&self.path, last));
        }
        for number in (0..last).rev() {
            if number > 0 {
                let _ = std::fs::rename(
                    files::compressed(&self.path, number),
                    files::compressed(&self.path, number + 1),
                );
            }
            let _ =
                std::fs::rename(files::rotated(&self.path, number), files::rotated(&self.path, number + 1));
        }
        let file = create(&self.path, true)?;
        self.length = 0;
        if self.compress && last > 0 {
            self.compressor = Compressor::begin(&self.path).ok();
        }
        Ok(file)
    }

    /// A file that cannot be compressed stays as it is.
    fn step_compression(&mut self) {
        if let Some(compressor) = &mut self.compressor
            && compressor.step().unwrap_or(true)
        {
            self.compressor = None;
        }
    }

    fn complete_compression(&mut self) {
        while self.compressor.is_some() {
            self.step_compression();
        }
    }
}

/// Docker's mode, so that a log shipper in the right group can read it.
fn create(path: &Path, truncate: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o640).open(path)
}

/// Bytes up to the last newline.
fn whole_lines(file: &File) -> std::io::Result<u64> {
    const WINDOW: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0; WINDOW as usize];
    while end > 0 {
        let window = end.min(WINDOW);
        let part = &mut buffer[..window as usize];
        file.read_exact_at(part, end - window)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(end - window + at as u64 + 1);
        }
        end -= window;
    }
    Ok(0)
}
