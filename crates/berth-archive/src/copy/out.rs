//! Tar out of a tree.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::path;
use super::place::{look, opened};
use crate::overlay::{Opened, join};
use crate::pack::Packer;
use crate::{Error, Result};

/// Writes what `path` names inside `root`, and all below it, under `name`. Blocks.
///
/// A directory is named `name/`, and what it holds stands below; with `.` it is `./`, and with the empty name `/`. A
/// symbolic link is written as one, unless a slash or a dot follows it in `path`. What vanishes meanwhile is left out.
///
/// # Errors
/// File errors; a failed write. What was written is then no whole archive: it lacks its end.
pub fn pack(root: BorrowedFd<'_>, path: &[u8], name: &[u8], out: impl Write) -> Result<()> {
    let failed = |error| Error::file("opening", path, error);
    let mut packer = Packer::new(out, false);
    let found = look(root, path).map_err(failed)?;
    if found.kind() == FileType::Directory {
        let top = opened(found.location(), b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        packer.directory(&found.stat, name)?;
        tree(&mut packer, &top, name)?;
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

/// Everything below `top`. Directories wait by their paths: depth costs no descriptors.
fn tree<W: Write>(packer: &mut Packer<W>, top: &OwnedFd, name: &[u8]) -> Result<()> {
    let mut pending = vec![Vec::new()];
    while let Some(inside) = pending.pop() {
        let here = match enter(top, &inside) {
            Ok(here) => Opened::plain(here),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(Error::file("opening", &inside, error)),
        };
        let mut entries = here.raw_entries()?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut below = Vec::new();
        for (entry, found) in entries {
            let path = join(&inside, entry.to_bytes());
            packer.entry(&here, &entry, &found, &[name, b"/", &path].concat())?;
            if found.kind() == FileType::Directory {
                below.push(path);
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

fn enter(top: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
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
