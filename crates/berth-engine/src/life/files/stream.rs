//! Archives on their way between a client and a thread that may block. A copy that is cut off ends at once, whatever
//! its client does.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::gate::Link;
use crate::pieces::ArchiveStream;

/// Bytes that are sent at once, and how many such pieces wait for a slow client.
const PIECE: usize = 64 * 1024;
const AHEAD: usize = 4;

fn ended() -> io::Error {
    io::Error::other("the copy was ended: the container is being started or removed, or the engine ends")
}

/// Where a thread writes an archive, and where it is read. `ending` cuts it off too.
pub fn out(link: Link, ending: CancellationToken) -> (Out, ArchiveStream) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let out = Out { link, ending, sender, buffer: Vec::with_capacity(PIECE), runtime: Handle::current() };
    (out, ArchiveStream { pieces })
}

/// Sends what is written in pieces; waits while the client is slow, and fails once it has gone.
pub struct Out {
    link: Link,
    ending: CancellationToken,
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    runtime: Handle,
}

impl Out {
    /// Sends what has been written so far.
    pub fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        let length = piece.len();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.link.cut.cancelled() => Err(ended()),
                () = self.ending.cancelled() => Err(ended()),
                sent = self.sender.send(Ok(piece.into())) => {
                    sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
                }
            }
        })?;
        self.link.moved(length);
        Ok(())
    }

    /// Ends the archive before its end. Without waiting: a client that does not read sees the connection end.
    pub fn fail(&mut self, error: io::Error) {
        let _ = self.sender.try_send(Err(error));
    }
}

impl Write for Out {
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

/// Reads an archive as it comes, in a thread that may block.
pub fn into(
    link: Link,
    ending: CancellationToken,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
) -> impl Read + Send {
    let parts = unfold((archive, link, ending), |(mut archive, link, ending)| async move {
        let part = tokio::select! {
            biased;
            // Not the end of the stream, which could pass for the end of the archive.
            () = link.cut.cancelled() => Some(Err(ended())),
            () = ending.cancelled() => Some(Err(ended())),
            part = archive.next() => part,
        }?;
        link.moved(part.as_ref().map_or(0, Bytes::len));
        Some((part, (archive, link, ending)))
    });
    SyncIoBridge::new(StreamReader::new(Box::pin(parts)))
}
