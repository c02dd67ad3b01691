//! `tmpcopyup`: what a tmpfs hides is copied into it first.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Copies directories, regular files and symlinks with owner and mode from one open directory into another.
///
/// No symlink is followed. Other kinds of file are left out.
pub(super) fn copy(from: impl AsFd, into: impl AsFd) -> io::Result<()> {
    let directory = open(&from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(&into, name, mode)?;
                let below = open(&into, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                rustix::fs::fchown(&below, owner.0, owner.1)?;
                rustix::fs::fchmod(&below, mode)?;
                copy(open(&directory, name, OFlags::RDONLY | OFlags::DIRECTORY)?, below)?;
            }
            FileType::RegularFile => {
                let mut source = File::from(open(&directory, name, OFlags::RDONLY | OFlags::NONBLOCK)?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut target = File::from(rustix::fs::openat(&into, name, flags, mode)?);
                io::copy(&mut source, &mut target)?;
                rustix::fs::fchown(&target, owner.0, owner.1)?;
                rustix::fs::fchmod(&target, mode)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&directory, name, Vec::new())?;
                rustix::fs::symlinkat(&target, &into, name)?;
                rustix::fs::chownat(&into, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn open(directory: impl AsFd, name: &std::ffi::CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}
