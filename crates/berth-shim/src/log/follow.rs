//! Waiting for what is still to be written.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{LogError, Record, Records};

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

    /// The next record; `None` when nothing more can come. Safe to cancel.
    ///
    /// # Errors
    /// As for [`super::Reader::records`]; after [`LogError::Damaged`] it goes on behind the damage.
    pub async fn next(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            // Asked before the read: what was written before the end is then read before `None`.
            let ended = *self.ended.borrow_and_update() || self.ended.has_changed().is_err();
            if let Some(record) = self.next_now() {
                return record.map(Some);
            }
            if ended || self.records.is_done() {
                return Ok(None);
            }
            tokio::select! {
                result = self.changes.readable() => {
                    let mut ready = result.map_err(|error| LogError::io("watch", &self.directory, error))?;
                    drain(self.changes.get_ref());
                    ready.clear_ready();
                }
                // An error means that the sender is gone, which the next round sees.
                _ = self.ended.changed() => {}
            }
        }
    }

    /// The next record if it is written already. Reads block on the disk.
    pub fn next_now(&mut self) -> Option<Result<Record, LogError>> {
        self.records.next()
    }
}

/// Takes all queued notifications: what they say is found by reading the log.
fn drain(changes: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    while rustix::io::read(changes, &mut buffer).is_ok_and(|(filled, _)| !filled.is_empty()) {}
}
