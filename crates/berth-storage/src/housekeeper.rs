//! The background thread: syncs what came, empties the trash, keeps the cache of compressed layers within its bound, forgets
//! old parts of them and writes checkpoints, for none of which anyone should wait.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Result, Shared, database, garbage, partials, projects, unsynced};

/// Wakes the housekeeper; a wake that is pending already is enough.
#[derive(Clone, Debug)]
pub(crate) struct Waker(SyncSender<()>);

impl Waker {
    pub(crate) fn wake(&self) {
        // Full means that a wake is pending; closed, that the root is being closed.
        let _ = self.0.try_send(());
    }
}

pub(crate) fn channel() -> (Waker, Receiver<()>) {
    let (sender, receiver) = sync_channel(1);
    (Waker(sender), receiver)
}

#[derive(Debug, Default)]
struct Progress {
    rounds: u64,
    closing: bool,
}

/// The thread, ended by the drop.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    progress: Arc<(Mutex<Progress>, Condvar)>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    pub(crate) fn start(shared: &Arc<Shared>, wake: Receiver<()>) -> Result<Self> {
        let progress = Arc::new((Mutex::new(Progress::default()), Condvar::new()));
        let connection = database::connect(shared.root.path())?;
        let (shared_of_thread, progress_of_thread) = (Arc::clone(shared), Arc::clone(&progress));
        let work = move || {
            let is_open = || !lock(&progress_of_thread.0).closing;
            let mut sync = unsynced::Turn::new();
            let mut partials = partials::Watch::new();
            while is_woken(&wake, sync.sleep().into_iter().chain(partials.sleep()).min()) && is_open() {
                sync.work(&shared_of_thread);
                partials.work(&shared_of_thread);
                if let Err(error) = garbage::shrink_cache(&shared_of_thread) {
                    tracing::warn!(%error, "the cache of compressed layers is over its bound");
                }
                if let Err(error) = shared_of_thread.root.empty_trash(is_open) {
                    tracing::warn!(%error, "emptying the trash");
                }
                if let Err(error) = projects::release(&shared_of_thread) {
                    tracing::warn!(%error, "numbers of projects were not freed");
                }
                if shared_of_thread.database.wants_checkpoint()
                    && let Err(error) = database::checkpoint(&connection)
                {
                    tracing::warn!(%error, "the state database's log was not written back");
                }
                lock(&progress_of_thread.0).rounds += 1;
                progress_of_thread.1.notify_all();
            }
        };
        let thread =
            std::thread::Builder::new().name("housekeeper".to_owned()).stack_size(256 << 10).spawn(work);
        let thread = thread
            .map_err(|error| crate::Error::file("starting the housekeeper of", shared.root.path(), error))?;
        Ok(Self { progress, waker: shared.waker.clone(), thread: Some(thread) })
    }

    /// Waits for two whole rounds: what was in the trash at the call is gone after the second.
    pub(crate) fn settle(&self) {
        let target = lock(&self.progress.0).rounds + 2;
        while lock(&self.progress.0).rounds < target {
            self.waker.wake();
            let progress = lock(&self.progress.0);
            if progress.rounds < target {
                let pause = Duration::from_millis(20);
                drop(self.progress.1.wait_timeout(progress, pause));
            }
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        lock(&self.progress.0).closing = true;
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // It ends after the tree it is removing; a panic there was reported by the runtime.
            let _ = thread.join();
        }
    }
}

/// Waits for a wake, or until it is time for something that is wanted. False once nobody can wake any more.
fn is_woken(wake: &Receiver<()>, sleep: Option<Duration>) -> bool {
    match sleep {
        None => wake.recv().is_ok(),
        Some(time) => wake.recv_timeout(time) != Err(RecvTimeoutError::Disconnected),
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
