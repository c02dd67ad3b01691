//! The files of a client, and those that it sent before.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::Digest;
use berth_session::{Bounds, Entry, Session, Wanted};
use berth_storage::Scratch;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::super::digests::{About, Digests};
use super::super::executor::Worker;
use super::super::tree;
use super::failed;
use crate::Error;
use crate::engine::Parts;

/// Where the files are in the directory that is kept.
const FILES: &str = "files";
/// What is known of them.
const ENTRIES: &str = "entries";
/// The digests of those that were read.
const DIGESTS: &str = "digests";
/// Where files are that a build is not to see.
const ASIDE: &str = "aside";

/// Files that a client sent. When this goes, they are kept for the next build.
pub(crate) struct Received {
    parts: Arc<Parts>,
    scratch: Option<Scratch>,
    /// The name under which they are kept; none if the client has no name for them.
    key: Option<Digest>,
    description: String,
    size: u64,
    /// What is known of the files.
    digests: Arc<Digests>,
    /// Files that were moved away, by their paths.
    aside: Mutex<Vec<Vec<u8>>>,
}

/// Brings those files of a directory of the build's client that match patterns. They are not kept. Blocks.
pub(crate) fn bring(worker: &Worker, name: &str, include: Vec<String>) -> Result<(OwnedFd, Scratch), Error> {
    let parts = worker.parts();
    parts.storage.check_space()?;
    let session = session(worker)?;
    let scratch = parts.storage.scratch()?;
    let root = root(&scratch)?;
    let wanted = Wanted { directory: name.to_owned(), include, ..Wanted::default() };
    transfer(worker, &session, wanted, &root, Vec::new(), &scratch, &Digests::default())?;
    Ok((root, scratch))
}

fn session(worker: &Worker) -> Result<Arc<Session>, Error> {
    let id = worker.request.session.clone().unwrap_or_default();
    let sessions = &worker.parts().sessions;
    worker.wait(async { sessions.get(&id).await.map_err(|error| failed(&error)) })
}

/// Brings the files of a directory of the build's client. Blocks.
pub(crate) fn receive(worker: &Worker, directory: &str) -> Result<(OwnedFd, Received), Error> {
    let parts = Arc::clone(worker.parts());
    parts.storage.check_space()?;
    let session = session(worker)?;
    let offer = session.offer();
    let key = Some(&offer.shared_key).filter(|key| !key.is_empty());
    let key = key.map(|key| Digest::of(format!("{directory}\0{key}").as_bytes()));
    let kept = key.as_ref().map(|key| parts.storage.contexts().take(key)).transpose()?.flatten();
    let (scratch, known) = match kept.and_then(known) {
        Some(kept) => kept,
        None => (parts.storage.scratch()?, Vec::new()),
    };
    let root = root(&scratch)?;
    let wanted = Wanted { directory: directory.to_owned(), ..Wanted::default() };
    let digests = Arc::new(Digests::read(&scratch.path().join(DIGESTS)));
    let entries = transfer(worker, &session, wanted, &root, known, &scratch, &digests)?;
    let size = entries.iter().map(|entry| entry.size).sum();
    let description = match offer.name.as_str() {
        "" => "files of a build context".to_owned(),
        name => format!("files of the build context {name}"),
    };
    let aside = Mutex::default();
    Ok((root, Received { parts, scratch: Some(scratch), key, description, size, digests, aside }))
}

/// What is known of files that were kept; none if that cannot be read.
fn known(scratch: Scratch) -> Option<(Scratch, Vec<Entry>)> {
    let entries = fs::read(scratch.path().join(ENTRIES)).ok()?;
    let entries = berth_session::from_bytes(&entries).ok()?;
    Some((scratch, entries))
}

fn root(scratch: &Scratch) -> Result<OwnedFd, Error> {
    let opening = |source: rustix::io::Errno| Error::Io {
        operation: "open the build context".into(),
        source: source.into(),
    };
    let directory = scratch.open()?;
    match rustix::fs::mkdirat(&directory, FILES, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(opening(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&directory, FILES, flags, Mode::empty()).map_err(opening)?;
    // A step that sees it may not be root.
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(opening)?;
    Ok(root)
}

/// Makes the files beneath `root` those of the client. Blocks.
fn transfer(
    worker: &Worker,
    session: &Session,
    wanted: Wanted,
    root: &OwnedFd,
    known: Vec<Entry>,
    scratch: &Scratch,
    digests: &Digests,
) -> Result<Vec<Entry>, Error> {
    let storage = Arc::clone(&worker.parts().storage);
    let mut room = move || {
        let full = |error: berth_storage::Error| berth_session::Error::Call(crate::error::chain(&error));
        storage.check_space().map_err(full)
    };
    let io = |source: std::io::Error| Error::Io { operation: "keep the build context".into(), source };
    let writable = root.try_clone().map_err(io)?;
    let received = worker.wait(async {
        let mut learned = |file: &fs::File, sum| {
            if let Ok(about) = About::of(file) {
                digests.keep(&about, sum);
            }
        };
        let received = session.files(&wanted, writable, known, Bounds::new(&mut room), &mut learned).await;
        received.map_err(|error| failed(&error))
    })?;
    if received.changed {
        fs::write(scratch.path().join(ENTRIES), berth_session::to_bytes(&received.entries)).map_err(io)?;
    }
    tracing::debug!(
        files = received.entries.len(),
        sent = received.sent,
        bytes = received.moved,
        "files of a build's client"
    );
    Ok(received.entries)
}

impl Received {
    /// What is known of the files.
    pub fn digests(&self) -> Arc<Digests> {
        Arc::clone(&self.digests)
    }

    /// Moves a file away until the build is over: it is not to be seen, and the client need not send it again.
    pub fn set_aside(&self, path: &[u8]) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(scratch) = &self.scratch else { return };
        let there = scratch.path().join(format!("{ASIDE}-{}", aside.len()));
        let path = berth_archive::copy::path::clean(path);
        match self
            .moved(scratch, &path, |parent, name| rustix::fs::renameat(parent, name, rustix::fs::CWD, &there))
        {
            Ok(()) => aside.push(path),
            Err(error) => tracing::debug!(%error, "a file that is to be left out of a context stays"),
        }
    }

    /// Does something to a file in its directory, whose time stays.
    fn moved(
        &self,
        scratch: &Scratch,
        path: &[u8],
        change: impl FnOnce(&OwnedFd, &Path) -> rustix::io::Result<()>,
    ) -> std::io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let root = fs::File::open(scratch.path().join(FILES))?;
        let (directory, name) = tree::split(path);
        let parent =
            berth_archive::copy::opened(root.as_fd(), directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&parent)?;
        change(&parent, Path::new(std::ffi::OsStr::from_bytes(name)))?;
        let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0) };
        Ok(rustix::fs::futimens(&parent, &Timestamps { last_access: time, last_modification: time })?)
    }

    fn keep(&mut self) -> Result<(), Error> {
        let (Some(scratch), Some(key)) = (self.scratch.take(), self.key.take()) else { return Ok(()) };
        let aside = std::mem::take(&mut *self.aside.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, path) in aside.iter().enumerate() {
            let there = scratch.path().join(format!("{ASIDE}-{number}"));
            let back = self.moved(&scratch, path, |parent, name| {
                rustix::fs::renameat(rustix::fs::CWD, &there, parent, name)
            });
            back.map_err(|source| Error::Io { operation: "put a file back".into(), source })?;
        }
        if let Err(error) = self.digests.write(&scratch.path().join(DIGESTS)) {
            tracing::debug!(%error, "digests of a context's files are not kept");
        }
        Ok(self.parts.storage.contexts().keep(&key, scratch, self.size, &self.description)?)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Err(error) = self.keep() {
            tracing::warn!(%error, "the files of a build's client are not kept");
        }
    }
}
