//! Bodies of requests on their way to a thread that blocks.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

/// Parts of a body that may wait for the thread. A part has what a connection reads at once, 16 KiB at most.
const QUEUE: usize = 64;

/// A request's body, for a thread that may block.
#[derive(Debug)]
pub struct Intake {
    /// None is the end: without it the body was abandoned.
    parts: mpsc::Receiver<Option<io::Result<Bytes>>>,
    part: Bytes,
    ended: bool,
}

/// Runs `work` with a body, and carries the body to it meanwhile. Neither waits for the other while the
/// queue between them is neither full nor empty.
pub async fn carried<T, F: Future<Output = T>>(
    mut body: impl Stream<Item = io::Result<Bytes>> + Unpin,
    work: impl FnOnce(Intake) -> F,
) -> T {
    let (sender, parts) = mpsc::channel(QUEUE);
    let carry = async move {
        while let Some(part) = body.next().await {
            let failed = part.is_err();
            if sender.send(Some(part)).await.is_err() || failed {
                return;
            }
        }
        let _ = sender.send(None).await;
    };
    let carry = async {
        carry.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        result = work(Intake { parts, part: Bytes::new(), ended: false }) => result,
        never = carry => match never {},
    }
}

impl Read for Intake {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() && !self.ended {
            match self.parts.blocking_recv() {
                Some(Some(part)) => self.part = part?,
                Some(None) => self.ended = true,
                // Not the end of the body, which could pass for the end of an archive.
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the request was abandoned"));
                }
            }
        }
        let count = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Reads all in a thread, as routes do.
    async fn read(mut intake: Intake) -> io::Result<Vec<u8>> {
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            intake.read_to_end(&mut bytes).map(|_| bytes)
        });
        reading.await.unwrap()
    }

    #[tokio::test]
    async fn a_body_longer_than_the_queue_comes_whole() {
        let parts = (0..QUEUE * 3).map(|number| Ok(vec![number.to_le_bytes()[0]; number % 700].into()));
        let expected: Vec<u8> =
            (0..QUEUE * 3).flat_map(|number| vec![number.to_le_bytes()[0]; number % 700]).collect();
        assert_eq!(carried(stream::iter(parts), read).await.unwrap(), expected);
        assert_eq!(carried(stream::iter([]), read).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error() {
        let parts = [Ok(Bytes::from("a")), Err(io::Error::other("cut")), Ok(Bytes::from("b"))];
        assert_eq!(carried(stream::iter(parts), read).await.unwrap_err().to_string(), "cut");
    }

    #[tokio::test]
    async fn what_is_abandoned_has_no_end() {
        let (sender, parts) = mpsc::channel(1);
        let mut intake = Intake { parts, part: Bytes::new(), ended: false };
        sender.send(Some(Ok(Bytes::from("ab")))).await.unwrap();
        drop(sender);
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            intake.read_to_end(&mut bytes).unwrap_err().kind()
        });
        assert_eq!(reading.await.unwrap(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn work_that_ends_early_lets_go_of_the_body() {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 100])));
        assert_eq!(carried(endless, async |_intake| 7).await, 7);
    }
}
