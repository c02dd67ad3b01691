//! The body of a request that a thread writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use berth_archive::pieces::{self, Carry};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// How many pieces wait for a slow daemon.
const AHEAD: usize = 4;

/// Sends what is written in pieces. Blocks while the daemon is slow.
pub type Pieces = pieces::Pieces<Sending>;

/// Where to write, and the body that it becomes; `moved` counts the bytes.
pub fn channel(moved: Arc<AtomicI64>) -> (Pieces, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let body =
        unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|part| (part, receiver)) });
    (Pieces::new(Sending { sender, moved }), body)
}

/// The way to the daemon.
pub struct Sending {
    sender: mpsc::Sender<io::Result<Bytes>>,
    moved: Arc<AtomicI64>,
}

impl Sending {
    /// Ends the request before its end, so that the daemon does not take a part for the whole.
    pub fn fail<E>(&self, error: E, shown: impl FnOnce(E) -> Failure) -> Failure {
        let _ = self.sender.blocking_send(Err(io::ErrorKind::ConnectionAborted.into()));
        shown(error)
    }
}

impl Carry for Sending {
    fn carry(&mut self, piece: Vec<u8>) -> io::Result<()> {
        self.moved.fetch_add(i64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}
