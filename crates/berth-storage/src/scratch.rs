//! Directories for what is needed for a while only.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Mode;

use crate::{Error, Result, Shared};

/// A private, empty directory on the data root's file system. It goes when this is dropped, and with a crash.
#[derive(Debug)]
pub struct Scratch {
    shared: Arc<Shared>,
    name: String,
}

impl Scratch {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self> {
        let name = format!("staging/{}", shared.root.unique());
        rustix::fs::mkdirat(shared.root.fd(), &name, Mode::RWXU)
            .map_err(|error| Error::file("creating", &name, error))?;
        Ok(Self { shared: Arc::clone(shared), name })
    }

    /// Makes a directory of the data root the caller's alone; none if it is not there.
    pub(crate) fn adopt(shared: &Arc<Shared>, path: &str) -> Result<Option<Self>> {
        let name = format!("staging/{}", shared.root.unique());
        match rustix::fs::renameat(shared.root.fd(), path, shared.root.fd(), &name) {
            Ok(()) => Ok(Some(Self { shared: Arc::clone(shared), name })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::file("moving", path, error)),
        }
    }

    /// Moves it to a place where it stays, if that is free.
    pub(crate) fn keep(self, path: &str) -> Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let root = self.shared.root.fd();
        // What is then left behind under its old name is nothing.
        rustix::fs::renameat_with(root, &self.name, root, path, flags)
            .map_err(|error| Error::file("moving", &self.name, error))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.shared.root.path().join(&self.name)
    }

    /// Opens it.
    ///
    /// # Errors
    /// File errors.
    pub fn open(&self) -> Result<OwnedFd> {
        self.shared.root.open_directory(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it goes with the next start.
        if let Err(error) = self.shared.root.trash(&self.name) {
            tracing::warn!(%error, "a directory stays until the next start");
        }
        self.shared.waker.wake();
    }
}
