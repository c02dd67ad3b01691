//! A download as a reader: bytes go to the blob's file and to whoever reads, at once.

use std::fs::File;
use std::io::{self, Read};

use berth_storage::BlobWriter;
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::progress::Reporter;
use crate::{Error, Result};

/// Parts of a download that may wait for the disk. A part has up to 24 KiB, which is what a connection reads at once.
pub(crate) const QUEUE: usize = 40;

/// What the download sends: a part, or why there are no more.
pub(crate) type Part = Result<Bytes, berth_registry::Error>;

/// Reads first what an earlier attempt left, then what comes.
#[derive(Debug)]
pub(crate) struct Download {
    writer: BlobWriter,
    earlier: Option<io::Take<File>>,
    parts: mpsc::Receiver<Part>,
    part: Bytes,
    reporter: Reporter,
    total: u64,
    /// The first failure, which the reader's user sees only as an I/O error.
    failure: Option<Error>,
}

impl Download {
    pub fn new(
        writer: BlobWriter,
        parts: mpsc::Receiver<Part>,
        reporter: Reporter,
        total: u64,
    ) -> Result<Self> {
        let offset = writer.offset();
        let earlier = if offset > 0 { Some(writer.reader()?.take(offset)) } else { None };
        Ok(Self { writer, earlier, parts, part: Bytes::new(), reporter, total, failure: None })
    }

    /// The writer, or the failure that ended the download.
    pub fn finish(self) -> Result<BlobWriter> {
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.writer),
        }
    }

    /// The failure of the download itself, if there was one.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let text = error.to_string();
        self.failure = Some(error);
        io::Error::other(text)
    }

    fn next_part(&mut self) -> io::Result<bool> {
        let part = match self.parts.try_recv() {
            Ok(part) => Some(part),
            // Who has to wait has time to write.
            Err(_) => {
                if let Err(error) = self.writer.flush() {
                    return Err(self.fail(error.into()));
                }
                self.parts.blocking_recv()
            }
        };
        match part {
            None => Ok(false),
            Some(Err(error)) => Err(self.fail(error.into())),
            Some(Ok(part)) => {
                if let Err(error) = self.writer.write(&part) {
                    return Err(self.fail(error.into()));
                }
                self.reporter.count("Downloading", self.writer.offset(), self.total);
                self.part = part;
                Ok(true)
            }
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(earlier) = &mut self.earlier {
            match earlier.read(buffer)? {
                0 => self.earlier = None,
                count => return Ok(count),
            }
        }
        while self.part.is_empty() {
            if !self.next_part()? {
                return Ok(0);
            }
        }
        let count = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
