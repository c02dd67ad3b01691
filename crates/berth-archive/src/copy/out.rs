//! Tar out of a tree.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use berth_sys::ids::Mappings;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::path;
use super::place::{look, opened};
use crate::overlay::{Opened, join};
use crate::pack::{Entries, Packer};
use crate::{Error, Result};

/// Says what is left out.
type Skip<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Writes what `path` names inside `root`, and all below it, under `name`. Blocks.
///
/// A directory is named `name/`, and what it holds stands below; with `.` it is `./`, and with the empty name `/`. A
/// symbolic link is written as one, unless a slash or a dot follows it in `path`. What vanishes meanwhile is left out.
///
/// # Errors
/// File errors; a failed write. What was written is then no whole archive: it lacks its end.
pub fn pack(root: BorrowedFd<'_>, path: &[u8], name: &[u8], out: impl Write) -> Result<()> {
    write(root, path, name, Packer::new(out, false), &|_| false)
}

/// As [`pack_inside`], with all extended attributes of the files that mean something elsewhere.
///
/// # Errors
/// As [`pack`].
pub fn pack_with_attributes(
    root: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    out: impl Write,
    ids: Option<&Mappings>,
) -> Result<()> {
    write(root, path, name, Packer::new(out, false).with_attributes().with_ids(ids.cloned()), &|_| false)
}

/// As [`pack`], from a tree whose owners are seen from outside of a user namespace, as they are inside.
///
/// # Errors
/// As [`pack`].
pub fn pack_inside(
    root: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    out: impl Write,
    ids: Option<&Mappings>,
) -> Result<()> {
    write(root, path, name, Packer::new(out, false).with_ids(ids.cloned()), &|_| false)
}

/// As [`pack`], with all extended attributes, without what `skip` names, which is asked for paths below a directory, and
/// without what lies below a directory that it names.
///
/// # Errors
/// As [`pack`].
pub fn pack_selected(
    root: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    skip: &dyn Fn(&[u8]) -> bool,
    out: impl Write,
) -> Result<()> {
    write(root, path, name, Packer::new(out, false).with_attributes(), skip)
}

fn write<W: Write>(
    root: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    mut packer: Packer<W>,
    skip: Skip<'_>,
) -> Result<()> {
    let failed = |error| Error::file("opening", path, error);
    let found = look(root, path).map_err(failed)?;
    if found.kind() == FileType::Directory {
        let top = opened(found.location(), b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        packer.directory(&found.stat, name)?;
        tree(&mut packer, &top, name, skip)?;
    } else {
        let (directory, last) = path::split_entry(path);
        let here = opened(root, &directory, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let here = Opened::plain(here);
        let last = std::ffi::CString::new(last).map_err(|_| failed(Errno::INVAL.into()))?;
        // It may have become something else, or have gone, since it was looked at.
        if let Some(found) = here.examine(&last)? {
            packer.entry(&here, &last, &found, name)?;
        }
    }
    packer.finish()
}

/// Everything below `top`: directories in the order of their names, each directly before what it holds. They wait by their
/// paths: depth costs no descriptors.
fn tree<W: Write>(packer: &mut Packer<W>, top: &OwnedFd, name: &[u8], skip: Skip<'_>) -> Result<()> {
    let mut levels: Vec<(Vec<u8>, Option<Entries>)> = vec![(Vec::new(), None)];
    while let Some((directory, left)) = levels.last_mut() {
        match level(packer, top, name, (directory, skip), left)? {
            Some(inside) => levels.push((inside, None)),
            None => drop(levels.pop()),
        }
    }
    Ok(())
}

/// Writes what is left of a directory up to the first one in it, which is returned, or to the end.
fn level<W: Write>(
    packer: &mut Packer<W>,
    top: &OwnedFd,
    name: &[u8],
    (directory, skip): (&[u8], Skip<'_>),
    left: &mut Option<Entries>,
) -> Result<Option<Vec<u8>>> {
    let here = match enter(top, directory) {
        Ok(here) => Opened::plain(here),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(Error::file("opening", directory, error)),
    };
    let left = match left {
        Some(left) => left,
        none => {
            let mut entries = here.raw_entries()?;
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            none.insert(entries.into_iter())
        }
    };
    for (entry, found) in left {
        let path = join(directory, entry.to_bytes());
        if skip(&path) {
            continue;
        }
        packer.entry(&here, &entry, &found, &[name, b"/", &path].concat())?;
        if found.kind() == FileType::Directory {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Opens a directory beneath `top`, by a path without links.
pub(crate) fn enter(top: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(&top, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
