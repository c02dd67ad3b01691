//! Waiting for what is still to be written.

use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{LogError, Record, Records};

/// How far a reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was broken off.
    Paused,
    /// Everything that is written was read; more may come.
    UpToDate,
    /// Everything was read, and nothing more can come.
    Ended,
}

/// Records as they are written. Made by [`super::Reader::follow`].
#[derive(Debug)]
pub struct Follow {
    records: Records,
    directory: PathBuf,
    changes: AsyncFd<OwnedFd>,
    ended: watch::Receiver<bool>,
}

impl Follow {
    /// The watch begins before the first look at the files, so that nothing falls between the two.
    pub(super) fn new(
        directory: &Path,
        records: impl FnOnce() -> Result<Records, LogError>,
        ended: watch::Receiver<bool>,
    ) -> Result<Self, LogError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| LogError::io("create", directory, error))?;
        let watch = |error: rustix::io::Errno| LogError::io("watch", directory, error);
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(watch)?;
        inotify::add_watch(&changes, directory, WatchFlags::MODIFY | WatchFlags::CREATE).map_err(watch)?;
        let changes =
            crate::readiness::register(changes).map_err(|error| LogError::io("watch", directory, error))?;
        Ok(Self { records: records()?, directory: directory.to_owned(), changes, ended })
    }

    /// Reads on until `take` breaks off or nothing more is there. Blocks on the disk.
    pub fn read(&mut self, mut take: impl FnMut(Result<Record, LogError>) -> ControlFlow<()>) -> Progress {
        // Asked before the read: what was written before the end is then read before the end is told.
        let ended = *self.ended.borrow_and_update() || self.ended.has_changed().is_err();
        for record in &mut self.records {
            if take(record).is_break() {
                return Progress::Paused;
            }
        }
        if ended || self.records.is_done() { Progress::Ended } else { Progress::UpToDate }
    }

    /// Waits until there may be more than what was read so far. Safe to cancel.
    ///
    /// # Errors
    /// When the kernel no longer tells of changes.
    pub async fn changed(&mut self) -> Result<(), LogError> {
        tokio::select! {
            result = self.changes.readable() => {
                let mut ready = result.map_err(|error| LogError::io("watch", &self.directory, error))?;
                drain(self.changes.get_ref());
                ready.clear_ready();
            }
            // An error means that the sender is gone, which the next read sees.
            _ = self.ended.changed() => {}
        }
        Ok(())
    }

    /// The next record; `None` when nothing more can come. Safe to cancel. Reads block on the disk.
    ///
    /// # Errors
    /// As for [`super::Reader::records`]; after [`LogError::Damaged`] it goes on behind the damage.
    pub async fn next(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            let mut found = None;
            let progress = self.read(|record| {
                found = Some(record);
                ControlFlow::Break(())
            });
            match (found, progress) {
                (Some(record), _) => return record.map(Some),
                (None, Progress::Ended) => return Ok(None),
                (None, Progress::Paused | Progress::UpToDate) => self.changed().await?,
            }
        }
    }
}

/// Takes all queued notifications: what they say is found by reading the log.
fn drain(changes: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    while rustix::io::read(changes, &mut buffer).is_ok_and(|(filled, _)| !filled.is_empty()) {}
}
