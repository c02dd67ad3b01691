//! The ordered pass: what a layer takes from the layers below it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::attributes::{is_overlay, mode};
use super::{Fixups, name};
use crate::marks::Marks;
use crate::replica::{Copier, Spot, times};
use crate::{Error, Result};

/// Completes an extracted layer from the layers below it, whose directories are `lower`, the topmost first: implied
/// directories take owner, mode, extended attributes and times of the directory that they cover, if there is one;
/// hard links to files of lower layers become copies, linked to each other where they share a target. Returns the bytes of
/// those copies. Blocks.
///
/// # Errors
/// A link's target that no lower layer has, or that is a directory; a failed file system operation.
pub fn fixup(dir: BorrowedFd<'_>, fixups: &Fixups, lower: &[impl AsRef<Path>]) -> Result<u64> {
    if fixups.is_empty() {
        return Ok(0);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut layers = vec![reopen(dir)?];
    for path in lower {
        let path = path.as_ref();
        layers.push(
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
                Error::file("opening the lower layer", path.as_os_str().as_bytes(), error)
            })?,
        );
    }
    for path in &fixups.implied {
        if let [own, Node::Directory(below), ..] = &look_up(&layers, path, fixups.marks)?[..] {
            copy_attributes(own.fd(), below, path)?;
        }
    }
    let mut copier = Copier::new(dir, 0)?;
    let mut copied: HashMap<&[u8], &[u8]> = HashMap::new();
    // A link changes the time of its directory, which the archive or a lower layer said.
    let mut touched: HashMap<&[u8], Timestamps> = HashMap::new();
    let mut bytes = 0;
    for link in &fixups.links {
        let (folder, last) = name::split(&link.path);
        let parent = directory(&layers[0], folder)?;
        if !touched.contains_key(folder) {
            let stat = rustix::fs::fstat(&parent).map_err(|error| Error::file("examining", folder, error))?;
            touched.insert(folder, times(&stat));
        }
        let last = OsStr::from_bytes(last);
        if let Some(&twin) = copied.get(link.target.as_slice()) {
            let (twin_parent, twin_last) = name::split(twin);
            let twin_parent = directory(&layers[0], twin_parent)?;
            rustix::fs::linkat(&twin_parent, OsStr::from_bytes(twin_last), &parent, last, AtFlags::empty())
                .map_err(|error| Error::file("creating", &link.path, error))?;
            continue;
        }
        // What came to stand there after the link is another file.
        match look_up(&layers[1..], &link.target, fixups.marks)?.first() {
            Some(Node::Other { parent: from, stat }) => {
                let (_, source) = name::split(&link.target);
                let (source, name) = (c_name(source)?, c_name(last.as_bytes())?);
                let spot = Spot { directory: parent.as_fd(), name: &name, path: &link.path };
                copier.file(from.as_fd(), &source, stat, &spot)?;
                bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
            Some(Node::Directory(_)) => {
                return Err(Error::refused(&link.path, "it is a hard link to a directory"));
            }
            None => {
                let target = crate::error::lossy(&link.target);
                return Err(Error::refused(
                    &link.path,
                    format!("its hard link's target {target:?} does not exist"),
                ));
            }
        }
        copied.insert(&link.target, &link.path);
    }
    for (folder, times) in touched {
        rustix::fs::futimens(directory(&layers[0], folder)?, &times)
            .map_err(|error| Error::file("setting the times of", folder, error))?;
    }
    Ok(bytes)
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::refused(name, "its name holds a NUL byte"))
}

/// What one layer has at a path.
enum Node {
    Directory(OwnedFd),
    /// Anything else, by its directory.
    Other {
        parent: OwnedFd,
        stat: Box<Stat>,
    },
}

impl Node {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Directory(fd) | Self::Other { parent: fd, .. } => fd.as_fd(),
        }
    }
}

/// What overlayfs would merge at `path` from `layers`, the topmost first: several directories, or one other file.
fn look_up(layers: &[OwnedFd], path: &[u8], marks: Marks) -> Result<Vec<Node>> {
    let mut here = Vec::new();
    for layer in layers {
        here.push(reopen(layer.as_fd())?);
    }
    let mut components =
        path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()).peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        let mut next = Vec::new();
        for parent in here {
            match look(&parent, OsStr::from_bytes(component), path, marks)? {
                Look::Nothing => {}
                Look::Whiteout => break,
                Look::Directory(fd, opaque) => {
                    next.push(fd);
                    if opaque {
                        break;
                    }
                }
                Look::Other(stat) if last && next.is_empty() => {
                    return Ok(vec![Node::Other { parent, stat }]);
                }
                Look::Other(_) => break,
            }
        }
        here = next;
    }
    Ok(here.into_iter().map(Node::Directory).collect())
}

enum Look {
    Nothing,
    Whiteout,
    Directory(OwnedFd, bool),
    Other(Box<Stat>),
}

fn look(parent: &OwnedFd, name: &OsStr, path: &[u8], marks: Marks) -> Result<Look> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => {
            let opaque = marks.is_opaque(fd.as_fd())?;
            return Ok(Look::Directory(fd, opaque));
        }
        Err(Errno::NOENT) => return Ok(Look::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(error) => return Err(Error::file("opening", path, error)),
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Error::file("examining", path, error))?;
    Ok(if marks.is_whiteout(&stat) { Look::Whiteout } else { Look::Other(Box::new(stat)) })
}

fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(fd, ".", flags, Mode::empty()).map_err(|error| Error::file("opening", b"/", error))
}

/// Opens a directory of the layer itself.
fn directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
        .map_err(|error| Error::file("opening", path, error))
}

/// Owner, mode, extended attributes and times of one open file for another.
fn copy_attributes(to: BorrowedFd<'_>, from: &OwnedFd, path: &[u8]) -> Result<()> {
    let failed = |error: Errno| Error::file("copying the attributes of", path, error);
    let stat = rustix::fs::fstat(from).map_err(failed)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed)?;
    rustix::fs::fchmod(to, mode(stat.st_mode)).map_err(failed)?;
    copy_xattrs(to, from.as_fd()).map_err(failed)?;
    rustix::fs::futimens(to, &times(&stat)).map_err(failed)
}

fn copy_xattrs(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // 64 KiB are the kernel's bound for a list and for a value.
    let mut names = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if is_overlay(name.to_bytes()) {
            continue;
        }
        value.resize(64 * 1024, 0);
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
