//! Archives that are made while a client reads them.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of an archive that are sent at once, and how many such pieces wait for a slow client.
const PIECE: usize = 64 * 1024;
const AHEAD: usize = 4;

/// A tar, as it is made.
pub struct ArchiveStream {
    /// Its bytes. After an error nothing comes any more, and the archive has no end.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// Where an archive is written, by a thread that may block, and where it is read.
pub(crate) fn channel() -> (Pieces, ArchiveStream) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    (Pieces { sender, buffer: Vec::with_capacity(PIECE) }, ArchiveStream { pieces })
}

/// Sends what is written in pieces; waits while the client is slow, and fails once it has gone.
pub(crate) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Pieces {
    /// Sends what has been written so far.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }

    /// Ends the archive before its end. A client that has gone is not told.
    pub(crate) fn fail(&mut self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        let length = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// The last piece is sent once it is known that nothing is missing.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_comes_in_pieces_of_one_size() {
        let (mut out, mut stream) = channel();
        let writer = tokio::task::spawn_blocking(move || {
            out.write_all(&vec![1; 2 * PIECE + 5]).unwrap();
            out.flush().unwrap();
            out.send().unwrap();
            out.send().unwrap();
        });
        let mut sizes = Vec::new();
        while let Some(piece) = stream.pieces.recv().await {
            sizes.push(piece.unwrap().len());
        }
        writer.await.unwrap();
        assert_eq!(sizes, [PIECE, PIECE, 5]);
    }

    #[test]
    fn writing_ends_when_nobody_reads() {
        let (mut out, stream) = channel();
        drop(stream);
        let error = out.write_all(&vec![1; 2 * PIECE]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
