//! A stream from one thread to another that does not go through the kernel, as a pipe's does, with a page for each 4 KB.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of a part.
const PART: usize = 64 << 10;
/// Parts that go round: nobody is further ahead.
const PARTS: usize = 4;

/// Where the stream is written. Its end is that of the stream.
#[derive(Debug)]
pub struct Entrance {
    part: Option<Vec<u8>>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// Where it is read.
#[derive(Debug)]
pub struct Exit {
    part: Vec<u8>,
    /// Bytes of it that were read.
    read: usize,
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
}

/// Both ends of a stream.
#[must_use]
pub fn passage() -> (Entrance, Exit) {
    // There is room for all parts: only who waits for one waits.
    let (entering, full) = sync_channel(PARTS);
    let (leaving, empty) = sync_channel(PARTS);
    for _ in 0..PARTS {
        // Both ends are here.
        let _ = leaving.send(Vec::with_capacity(PART));
    }
    let exit = Exit { part: Vec::new(), read: 0, full, empty: leaving };
    (Entrance { part: None, full: entering, empty }, exit)
}

impl Write for Entrance {
    /// # Errors
    /// `BrokenPipe` when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = match &mut self.part {
            Some(part) => part,
            none => none.insert(self.empty.recv().map_err(|_| io::ErrorKind::BrokenPipe)?),
        };
        let length = bytes.len().min(PART - part.len());
        part.extend_from_slice(&bytes[..length]);
        if part.len() == PART {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.part.take() {
            Some(part) => self.full.send(part).map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        // Whoever does not read any more does not miss it.
        let _ = self.flush();
    }
}

impl Read for Exit {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.read == self.part.len() {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let mut old = std::mem::replace(&mut self.part, next);
            self.read = 0;
            old.clear();
            // The first one is none.
            if old.capacity() > 0 {
                let _ = self.empty.send(old);
            }
        }
        let length = bytes.len().min(self.part.len() - self.read);
        bytes[..length].copy_from_slice(&self.part[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_the_sizes() {
        let content: Vec<u8> = (0..PART * (PARTS + 3) + 17).map(|number| (number % 251) as u8).collect();
        for (written, read) in [(1 << 20, 1 << 20), (1000, 70_000), (PART, PART), (PART + 1, 4096)] {
            let (mut entrance, mut exit) = passage();
            let source = content.clone();
            let writing = std::thread::spawn(move || {
                for piece in source.chunks(written) {
                    entrance.write_all(piece).unwrap();
                }
                entrance.flush().unwrap();
                entrance.write_all(b"end").unwrap();
            });
            let (mut found, mut buffer) = (Vec::new(), vec![0; read]);
            while let length @ 1.. = exit.read(&mut buffer).unwrap() {
                found.extend_from_slice(&buffer[..length]);
            }
            writing.join().unwrap();
            assert!(found == [&content[..], b"end"].concat(), "{written} {read}");
            assert_eq!(exit.read(&mut buffer).unwrap(), 0);
        }
    }

    #[test]
    fn an_end_that_is_gone_ends_the_other() {
        let (mut entrance, exit) = passage();
        drop(exit);
        let error = entrance.write_all(&vec![0; PART * (PARTS + 1)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let (entrance, mut exit) = passage();
        drop(entrance);
        assert_eq!(exit.read(&mut [0; 9]).unwrap(), 0);
    }
}
