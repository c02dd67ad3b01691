//! Files that are taken over from the tree that an archive was made of, instead of being written once more.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::attributes;
use super::name;
use crate::copy::enter;
use crate::format::entry::{Entries, Entry};
use crate::format::input::Source;
use crate::pack::attributes::names;
use crate::{Error, Result};

/// The tree that an archive was made of. Nobody uses it any more.
#[derive(Debug)]
pub(super) struct Origin {
    root: OwnedFd,
    /// The directory of the last file: most follow their neighbours.
    cached: Option<(Vec<u8>, OwnedFd)>,
}

impl Origin {
    pub fn new(root: OwnedFd) -> Self {
        Self { root, cached: None }
    }

    /// Gives the file that `entry` was made of the name in `directory` too, with all that the entry says of it but its content.
    /// `false` if there is no such file, or if it cannot be had: nothing has happened then.
    pub fn link(&mut self, path: &[u8], entry: &Entry, directory: BorrowedFd<'_>) -> Result<bool> {
        let (from, last) = name::split(path);
        let last = OsStr::from_bytes(last);
        let Some(from) = self.directory(from) else { return Ok(false) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(from, last, flags, Mode::empty()) else { return Ok(false) };
        let stat = rustix::fs::fstat(&file).map_err(|error| Error::file("examining", path, error))?;
        let size = entry.sparse.as_ref().map_or(entry.stored, |map| map.real_size);
        let is_same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(size);
        // One with other names is somebody else's too, and stays as it is.
        let is_own = stat.st_nlink == 1;
        if !is_same || !is_own && !is_dressed(&file, &stat, entry, path)? {
            return Ok(false);
        }
        if rustix::fs::linkat(from, last, directory, last, AtFlags::empty()).is_err() {
            return Ok(false);
        }
        if is_own {
            dress(&file, &stat, entry, path)?;
        }
        Ok(true)
    }

    fn directory(&mut self, path: &[u8]) -> Option<BorrowedFd<'_>> {
        if self.cached.as_ref().is_none_or(|(cached, _)| cached != path) {
            self.cached = Some((path.to_vec(), enter(&self.root, path).ok()?));
        }
        self.cached.as_ref().map(|(_, directory)| directory.as_fd())
    }
}

/// Reads what the archive repeats of a file, for its hash and its record.
pub(super) fn pass<R: Source>(path: &[u8], entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
    let whole = [(0, entry.stored)];
    let segments = entry.sparse.as_ref().map_or(&whole[..], |map| &map.segments);
    for &(offset, length) in segments {
        entries.recorder.content(path, offset, length)?;
        let mut done = 0;
        while done < length {
            done += entries.data(length - done, &entry.name)?.len() as u64;
        }
    }
    Ok(())
}

/// Whether a file is already all that an entry says, but for the part of a second.
fn is_dressed(file: &OwnedFd, stat: &Stat, entry: &Entry, path: &[u8]) -> Result<bool> {
    let is_so = (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid)
        && stat.st_mode & 0o7777 == entry.mode & 0o7777
        && stat.st_mtime == entry.mtime.seconds;
    let told = |name: &Vec<u8>| entry.xattrs.iter().any(|(told, _)| told == name);
    Ok(is_so && names(file.as_fd(), path)?.iter().all(told))
}

/// Gives a file what an entry says of it, and takes what it does not say.
fn dress(file: &OwnedFd, stat: &Stat, entry: &Entry, path: &[u8]) -> Result<()> {
    for name in names(file.as_fd(), path)? {
        if !entry.xattrs.iter().any(|(told, _)| *told == name) {
            rustix::fs::fremovexattr(file, OsStr::from_bytes(&name))
                .map_err(|error| Error::file("removing an extended attribute of", path, error))?;
        }
    }
    let is_so =
        (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (entry.uid, entry.gid, entry.mode & 0o7777);
    if !is_so {
        attributes::set_open(file.as_fd(), entry, path)?;
    }
    rustix::fs::futimens(file, &attributes::timestamps(entry.mtime))
        .map_err(|error| Error::file("setting the times of", path, error))
}
