//! Owner, mode, extended attributes and times, set by descriptor wherever the kernel allows it.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::format::entry::Entry;
use crate::format::pax::Time;
use crate::tree::proc_path;
use crate::{Error, Result};

/// Whether an attribute steers overlayfs and is therefore never taken from an archive or another layer.
pub(crate) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Access and modification time, both the entry's.
pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

/// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities too) of an open file or
/// directory.
pub(super) fn set_open(fd: BorrowedFd<'_>, entry: &Entry, path: &[u8]) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(|error| Error::file("changing the owner of", path, error))?;
    rustix::fs::fchmod(fd, mode(entry.mode))
        .map_err(|error| Error::file("changing the mode of", path, error))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay(name)) {
        let set = rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty());
        tolerate(set, name, path)?;
    }
    Ok(())
}

/// The same for what cannot be opened without effects: links, devices, FIFOs. The name is one that was just created in
/// a directory of ours, and is never followed.
pub(super) fn set_named(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    is_link: bool,
    path: &[u8],
) -> Result<()> {
    let file = OsStr::from_bytes(name);
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, file, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::file("changing the owner of", path, error))?;
    if !is_link {
        rustix::fs::chmodat(parent, file, mode(entry.mode), AtFlags::empty())
            .map_err(|error| Error::file("changing the mode of", path, error))?;
    }
    if !entry.xattrs.is_empty() {
        let mut by_path = proc_path(parent).into_bytes();
        by_path.push(b'/');
        by_path.extend_from_slice(name);
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay(name)) {
            let by_path = OsStr::from_bytes(&by_path);
            let set = rustix::fs::lsetxattr(by_path, OsStr::from_bytes(name), value, XattrFlags::empty());
            tolerate(set, name, path)?;
        }
    }
    rustix::fs::utimensat(parent, file, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::file("setting the times of", path, error))
}

/// As Docker does: an attribute that the file system does not support, or a `user.` one where the kernel allows none
/// (links, devices), is left out.
fn tolerate(set: rustix::io::Result<()>, name: &[u8], path: &[u8]) -> Result<()> {
    match set {
        Ok(()) => Ok(()),
        Err(Errno::NOTSUP) => {
            tracing::debug!(path = %crate::error::lossy(path), name = %crate::error::lossy(name), "extended attribute not supported");
            Ok(())
        }
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        Err(error) => Err(Error::file("setting an extended attribute of", path, error)),
    }
}
