//! What a pull, push or load tells while it works.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// One line of progress, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer: the first twelve digits of its blob's digest.
    pub id: String,
    /// What happens to it, such as `Downloading`.
    pub status: Cow<'static, str>,
    /// Bytes done; 0 if nothing is counted.
    pub current: u64,
    /// Bytes in all; 0 if unknown.
    pub total: u64,
}

/// Shortest time between two counts of the same layer.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells something that is about no layer.
pub(crate) async fn line(progress: &mpsc::Sender<Progress>, text: String) {
    // A reader that has gone away changes nothing.
    let _ = progress.send(Progress { id: String::new(), status: text.into(), current: 0, total: 0 }).await;
}

/// The same client, whose waits for busy registries are told as lines of their own.
pub(crate) fn telling(
    registry: &berth_registry::Client,
    progress: &mpsc::Sender<Progress>,
) -> berth_registry::Client {
    // It does not keep the channel open: that it closes is how its reader learns of the end.
    let sender = progress.downgrade();
    registry.telling(move |pause| {
        let line = Progress { id: String::new(), status: pause.to_string().into(), current: 0, total: 0 };
        if let Some(sender) = sender.upgrade() {
            let _ = sender.try_send(line);
        }
    })
}

/// Reports of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    id: String,
    sender: mpsc::Sender<Progress>,
    last: Option<Instant>,
}

impl Reporter {
    pub fn new(id: String, sender: mpsc::Sender<Progress>) -> Self {
        Self { id, sender, last: None }
    }

    /// A change of state. A reader that has gone away changes nothing.
    pub async fn state(&self, status: impl Into<Cow<'static, str>>) {
        let line = self.line(status.into(), 0, 0);
        let _ = self.sender.send(line).await;
    }

    /// As [`Reporter::state`], from a blocking thread.
    pub fn blocking_state(&self, status: &'static str) {
        let _ = self.sender.blocking_send(self.line(status.into(), 0, 0));
    }

    /// A count, left out when the last one is recent or the reader is slow.
    pub fn count(&mut self, status: &'static str, current: u64, total: u64) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last >= PAUSE) {
            self.last = Some(now);
            let _ = self.sender.try_send(self.line(status.into(), current, total));
        }
    }

    fn line(&self, status: Cow<'static, str>, current: u64, total: u64) -> Progress {
        Progress { id: self.id.clone(), status, current, total }
    }
}
