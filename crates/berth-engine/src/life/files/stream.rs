//! Archives on their way between a client and a thread that may block. A copy that is cut off ends at once, whatever
//! its client does.

use std::io::{self, Read};

use berth_archive::pieces::{Carry, Pieces};
use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::gate::Link;
use crate::pieces::{AHEAD, ArchiveStream};

fn ended() -> io::Error {
    io::Error::other("the copy was ended: the container is being started or removed, or the engine ends")
}

/// Sends what is written in pieces; waits while the client is slow, and fails once it has gone.
pub type Out = Pieces<Sending>;

/// Where a thread writes an archive, and where it is read. `ending` cuts it off too.
pub fn out(link: Link, ending: CancellationToken) -> (Out, ArchiveStream) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let sending = Sending { link, ending, sender, runtime: Handle::current() };
    (Out::new(sending), ArchiveStream { pieces })
}

/// The way to the client.
pub struct Sending {
    link: Link,
    ending: CancellationToken,
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Sending {
    /// Ends the archive before its end. Without waiting: a client that does not read sees the connection end.
    pub fn fail(&self, error: io::Error) {
        let _ = self.sender.try_send(Err(error));
    }
}

impl Carry for Sending {
    fn carry(&mut self, piece: Vec<u8>) -> io::Result<()> {
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
