//! Who may use a container's files: any number of copies at a time, or one start or removal.
//!
//! An overlay must not be mounted twice, so a start waits for the copies that still use what was mounted before.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_util::sync::CancellationToken;

use super::view::View;
use crate::Error;

/// How long a start waits for copies that move nothing, such as those whose client sleeps.
const PATIENCE: Duration = Duration::from_secs(10);

/// The gate of one container.
#[derive(Default)]
pub struct Gate {
    lock: Arc<RwLock<()>>,
    /// Told by those who cannot wait until a start has waited for copies.
    hurry: Notify,
    /// Cancelled to end the copies that go on; then another one takes its place.
    cut: Mutex<CancellationToken>,
    /// Bytes moved by all copies.
    moved: Arc<AtomicU64>,
    /// The files as the copies that go on see them.
    view: tokio::sync::Mutex<Weak<View>>,
}

/// A copy that goes on. Starts and removals wait until it is dropped.
pub struct Copying {
    link: Link,
    _inside: OwnedRwLockReadGuard<()>,
}

impl Copying {
    /// For the stream that it writes or reads.
    pub fn link(&self) -> Link {
        self.link.clone()
    }
}

/// What the gate knows of a copy, and the copy of the gate.
#[derive(Clone)]
pub struct Link {
    /// Cancelled when the copy is to end.
    pub cut: CancellationToken,
    moved: Arc<AtomicU64>,
}

impl Link {
    /// Tells that bytes were moved.
    pub fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Nobody copies, as long as this is held.
pub struct Closed {
    _alone: OwnedRwLockWriteGuard<()>,
}

impl Gate {
    /// Begins a copy, once no start is under way.
    pub async fn enter(&self) -> Copying {
        let inside = Arc::clone(&self.lock).read_owned().await;
        Copying { link: Link { cut: self.token(), moved: Arc::clone(&self.moved) }, _inside: inside }
    }

    /// Waits until no copy goes on. One that moves nothing is cut off.
    pub async fn close(&self) -> Closed {
        let alone = Arc::clone(&self.lock).write_owned();
        let hurry = self.hurry.notified();
        tokio::pin!(alone, hurry);
        let moved = || self.moved.load(Ordering::Relaxed);
        let mut before = moved();
        loop {
            let closed = tokio::time::timeout(PATIENCE, &mut alone);
            let closed = tokio::select! {
                biased;
                closed = closed => closed,
                () = &mut hurry => return self.cut_until(alone).await,
            };
            if let Ok(alone) = closed {
                return Closed { _alone: alone };
            }
            let now = moved();
            if now == before {
                self.cut();
            }
            before = now;
        }
    }

    /// Cuts all copies off, and waits for their end.
    pub async fn close_now(&self) -> Closed {
        let alone = Arc::clone(&self.lock).write_owned();
        self.cut_until(std::pin::pin!(alone)).await
    }

    /// If a start waits for copies, cuts them off: whoever wants the container to end is heard after the start alone.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    async fn cut_until(
        &self,
        mut alone: Pin<&mut impl Future<Output = OwnedRwLockWriteGuard<()>>>,
    ) -> Closed {
        // Again and again: a copy may have been about to begin.
        loop {
            self.cut();
            if let Ok(alone) = tokio::time::timeout(Duration::from_millis(100), &mut alone).await {
                return Closed { _alone: alone };
            }
        }
    }

    /// The files that copies see: those that another one has open, or new ones.
    pub async fn view(&self, open: impl Future<Output = Result<View, Error>>) -> Result<Arc<View>, Error> {
        let mut shared = self.view.lock().await;
        if let Some(view) = shared.upgrade() {
            return Ok(view);
        }
        let view = Arc::new(open.await?);
        *shared = Arc::downgrade(&view);
        Ok(view)
    }

    fn token(&self) -> CancellationToken {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts off the copies that go on now.
    pub fn cut(&self) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_copies_that_go_on_and_cuts_idle_ones() {
        let gate = Arc::new(Gate::default());
        let (one, two) = (gate.enter().await, gate.enter().await);
        let start = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.close().await })
        };
        for _ in 0..5 {
            tokio::time::sleep(PATIENCE / 2).await;
            one.link.moved(1);
            assert!(!one.link.cut.is_cancelled() && !start.is_finished());
        }
        drop(one);
        two.link.cut.cancelled().await;
        assert!(!start.is_finished());
        drop(two);
        let closed = start.await.unwrap();
        let next = tokio::time::timeout(PATIENCE, gate.enter()).await;
        assert!(next.is_err(), "nobody enters meanwhile");
        drop(closed);
        assert!(!gate.enter().await.link.cut.is_cancelled(), "the next one is not cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_is_to_end_waits_for_nothing() {
        let gate = Arc::new(Gate::default());
        let copy = gate.enter().await;
        // Nobody waits, and nobody is cut off.
        gate.hurry();
        assert!(!copy.link.cut.is_cancelled());
        let start = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.close().await })
        };
        tokio::time::sleep(PATIENCE / 2).await;
        copy.link.moved(1);
        gate.hurry();
        copy.link.cut.cancelled().await;
        drop(copy);
        start.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_does_not_wait() {
        let gate = Arc::new(Gate::default());
        let copy = gate.enter().await;
        let removal = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.close_now().await })
        };
        copy.link.cut.cancelled().await;
        drop(copy);
        removal.await.unwrap();
    }
}
