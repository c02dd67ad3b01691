//! Archives that are made while a client reads them.

use std::io;

use berth_archive::pieces::{self, Carry};
use bytes::Bytes;
use tokio::sync::mpsc;

/// How many pieces wait for a slow client.
pub(crate) const AHEAD: usize = 4;

/// A tar, as it is made.
pub struct ArchiveStream {
    /// Its bytes. After an error nothing comes any more, and the archive has no end.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// Sends what is written in pieces; waits while the client is slow, and fails once it has gone.
pub(crate) type Pieces = pieces::Pieces<Sending>;

/// Where an archive is written, by a thread that may block, and where it is read.
pub(crate) fn channel() -> (Pieces, ArchiveStream) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    (Pieces::new(Sending(sender)), ArchiveStream { pieces })
}

/// The way to the client.
pub(crate) struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Sending {
    /// Ends the archive before its end. A client that has gone is not told.
    pub(crate) fn fail(&self, error: io::Error) {
        let _ = self.0.blocking_send(Err(error));
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

impl Carry for Sending {
    fn carry(&mut self, piece: Vec<u8>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use berth_archive::pieces::PIECE;

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
