//! Turns: what only one may do at a time with a digest, such as bringing a blob.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::Digest;
use tokio::sync::OwnedMutexGuard;

use crate::{Error, Result};

/// Who has a turn, by digest.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queues: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// The turn with `digest`, if nobody has it.
    pub fn try_take(&self, digest: &Digest) -> Option<Turn> {
        self.queue(digest).try_lock_owned().ok().map(Turn::new)
    }

    /// The turn with `digest`, when all who came before have had theirs.
    pub async fn take(&self, digest: &Digest) -> Turn {
        Turn::new(self.queue(digest).lock_owned().await)
    }

    fn queue(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        Arc::clone(queues.entry(digest.clone()).or_default())
    }
}

/// A turn. It ends when the last copy is dropped: a task may be aborted while a thread still works for it.
#[derive(Debug, Clone)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedMutexGuard<()>>);

impl Turn {
    fn new(guard: OwnedMutexGuard<()>) -> Self {
        Self(Arc::new(guard))
    }

    /// As [`blocking`]; the turn goes on until the work is done, also when nobody waits for it any more.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.clone();
        // What nobody waits for is dropped in this order: the turn ends last.
        let (outcome, _turn) = blocking(move || Ok((work(), turn))).await?;
        outcome
    }
}

/// Runs blocking work on tokio's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::io("run a blocking task", std::io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_the_work_of_an_aborted_task() {
        let turns = Arc::new(Turns::default());
        let digest = Digest::of(b"x");
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let (of_task, wanted) = (Arc::clone(&turns), digest.clone());
        let task = tokio::spawn(async move {
            let turn = of_task.take(&wanted).await;
            let work = turn.blocking(move || {
                let _ = begun.send(());
                let _ = wait.recv();
                Ok(())
            });
            work.await
        });
        has_begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(turns.try_take(&digest).is_none(), "a thread still works for the task");
        assert!(turns.try_take(&Digest::of(b"y")).is_some(), "others are not concerned");
        drop(go_on);
        drop(turns.take(&digest).await);
        assert!(turns.try_take(&digest).is_some());
    }
}
