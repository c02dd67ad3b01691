//! Work that lasts as long as its client likes: archives that are read or sent while they are made.
//!
//! Each has a thread of its own, so that clients that stand still take none of those on which all other work of the
//! engine is done ([`crate::blocking`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Error;

/// Threads that there may be at once.
const THREADS: usize = 512;
/// How long a client waits for one of them before it is refused.
const PATIENCE: Duration = Duration::from_secs(20);

/// The threads that serve at the pace of clients.
#[derive(Debug)]
pub(crate) struct Paced {
    free: Arc<Semaphore>,
    running: TaskTracker,
}

/// The right to one thread.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _running: TaskTrackerToken,
}

impl Default for Paced {
    fn default() -> Self {
        Self::with(THREADS)
    }
}

impl Paced {
    fn with(threads: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(threads)), running: TaskTracker::new() }
    }

    /// Waits for a thread, if all are in use.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await;
        let full =
            || Error::Unavailable("too many archives are being sent and received: try again later".into());
        let permit = permit.map_err(|_| full())?.map_err(|_| full())?;
        Ok(Place { _permit: permit, _running: self.running.token() })
    }

    /// Runs `work` on a thread, and waits for its outcome.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, outcome) = oneshot::channel();
        self.place().await?.start(move || {
            // Whoever asked may have gone.
            let _ = sender.send(work());
        })?;
        outcome.await.unwrap_or_else(|_| Err(Error::Unavailable("the engine is ending".into())))
    }

    /// Waits until no thread works any more.
    pub(crate) async fn idle(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

impl Place {
    /// Runs `work` on a thread. To be called within the engine's runtime, which `work` can use, too.
    pub(crate) fn start(self, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let runtime = Handle::current();
        let named = std::thread::Builder::new().name("berth-archive".into());
        let started = named.spawn(move || {
            let _entered = runtime.enter();
            work();
            drop(self);
        });
        started.map(drop).map_err(|source| Error::Io { operation: "start a thread".into(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_thread_waits_and_is_refused_in_the_end() {
        let paced = Arc::new(Paced::with(1));
        let first = paced.place().await.unwrap();
        let refused = paced.place().await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
        let waiting = {
            let paced = Arc::clone(&paced);
            tokio::spawn(async move { paced.place().await })
        };
        drop(first);
        waiting.await.unwrap().unwrap();
        paced.idle().await;
    }

    #[tokio::test]
    async fn work_uses_the_runtime_and_gives_its_outcome() {
        let paced = Paced::default();
        let outcome = paced.run(|| Ok(Handle::current().block_on(async { 7 }))).await;
        assert_eq!(outcome.unwrap(), 7);
        let failed = paced.run(|| Err::<(), _>(Error::Conflict("x".into()))).await;
        assert!(matches!(failed, Err(Error::Conflict(_))));
        paced.idle().await;
    }
}
