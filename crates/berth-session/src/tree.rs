//! A tree of files that becomes what another end tells of its own.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write as _;
use std::iter::Peekable;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::vec::IntoIter;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use rustix::io::Errno;

use crate::entry::CAPABILITY;
use crate::order::{Order, compare, split};
use crate::{Entry, Error, Kind};

/// A tree that nobody else changes meanwhile.
pub struct Tree {
    root: OwnedFd,
    /// What is there, and not yet compared.
    old: Peekable<IntoIter<Entry>>,
    /// What is to be there, in order: the place of each is its number.
    new: Vec<Entry>,
    order: Order,
    /// Files that were there and are to be other ones: their further names are to be linked again.
    replaced: HashSet<Vec<u8>>,
    /// Numbers of further names that are to be linked.
    names: Vec<usize>,
    /// The directory that was opened last.
    parent: Option<(Vec<u8>, OwnedFd)>,
    changed: bool,
}

/// The SHA-256 of a file's content.
pub type Sum = [u8; 32];

/// A file whose content comes.
pub struct Incoming {
    file: File,
    number: usize,
    path: Vec<u8>,
    /// Bytes that were told of it.
    size: u64,
    /// Bytes that it has.
    length: u64,
    /// Of its content, if whoever wrote that has looked at it.
    sum: Option<Sum>,
}

impl Incoming {
    /// Its number among all that was told.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its path in the tree.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Bytes that it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it has all that was told of it.
    pub fn is_whole(&self) -> bool {
        self.length == self.size
    }

    /// Writes a part of it. What is more than was told of it, because it grew meanwhile, is left out. Gives the bytes written.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Error> {
        let room = usize::try_from(self.size - self.length).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(room)];
        self.file.write_all(data).map_err(|error| Error::file("writing", &self.path, error))?;
        self.length += data.len() as u64;
        Ok(data.len())
    }

    /// Has the disk begin with it: it may be in a layer soon, whose sync is waited for.
    pub fn write_back(&self) {
        // What fails here fails again in the sync.
        let _ = berth_sys::writeback::begin(&self.file);
    }

    /// Says what the digest of all that was written is.
    pub fn learn(&mut self, sum: Sum) {
        self.sum = Some(sum);
    }
}

impl Tree {
    /// A tree beneath `root`, which holds what `known` says, in order, and nothing else.
    pub fn new(root: OwnedFd, known: Vec<Entry>) -> Tree {
        Tree {
            root,
            old: known.into_iter().peekable(),
            new: Vec::new(),
            order: Order::default(),
            replaced: HashSet::new(),
            names: Vec::new(),
            parent: None,
            changed: false,
        }
    }

    /// The next file is this. Says whether its content is wanted. Blocks.
    pub fn entry(&mut self, entry: Entry) -> Result<bool, Error> {
        self.order.next(&entry.path, entry.kind == Kind::Directory)?;
        let is_name = entry.kind == Kind::File && !entry.link.is_empty();
        if is_name {
            self.check_target(&entry)?;
        }
        let old = self.old_of(&entry.path)?;
        if old.as_ref() == Some(&entry) && !(is_name && self.replaced.contains(&entry.link)) {
            self.new.push(entry);
            return Ok(false);
        }
        self.changed = true;
        if let Some(old) = old {
            if (old.kind, entry.kind) == (Kind::Directory, Kind::Directory) {
                // Its mode and time are set at the end.
                self.new.push(entry);
                return Ok(false);
            }
            self.remove(&entry.path)?;
        }
        let wanted = self.make(&entry)?;
        if wanted {
            self.replaced.insert(entry.path.clone());
        }
        self.new.push(entry);
        Ok(wanted)
    }

    /// Whether anything is not as it was.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// How many files were told.
    pub fn count(&self) -> usize {
        self.new.len()
    }

    /// No more files come: what was there and was not told goes.
    pub fn end(&mut self) -> Result<(), Error> {
        while let Some(old) = self.old.next() {
            self.changed = true;
            self.remove(&old.path)?;
        }
        Ok(())
    }

    /// The content of a file begins.
    pub fn open(&mut self, number: usize) -> Result<Incoming, Error> {
        let path = self.new[number].path.clone();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (parent, name) = self.place(&path)?;
        let file = rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Error::file("creating", &path, error))?;
        let size = self.new[number].size;
        Ok(Incoming { file: File::from(file), number, path, size, length: 0, sum: None })
    }

    /// It has come whole. Gives it with the digest of its content, if that is known.
    pub fn close(&mut self, incoming: Incoming) -> Result<Option<(File, Sum)>, Error> {
        let entry = &mut self.new[incoming.number];
        dress(incoming.file.as_fd(), entry).map_err(|error| Error::file("changing", &entry.path, error))?;
        if incoming.length < entry.size {
            // It shrank while it was read: whatever it is the next time, it is another one.
            entry.size = incoming.length;
            entry.modified = i64::MIN;
        }
        Ok(incoming.sum.map(|sum| (incoming.file, sum)))
    }

    /// Everything has come. Gives what the tree holds now.
    pub fn finish(mut self) -> Result<Vec<Entry>, Error> {
        if self.changed {
            let new = std::mem::take(&mut self.new);
            for number in std::mem::take(&mut self.names) {
                self.link(&new[number])?;
            }
            for entry in new.iter().filter(|entry| entry.kind == Kind::Directory) {
                let failed = |error: Errno| Error::file("changing", &entry.path, error);
                let (parent, name) = self.place(&entry.path)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty());
                dress(directory.map_err(failed)?.as_fd(), entry).map_err(failed)?;
            }
            self.new = new;
        }
        Ok(self.new)
    }

    /// What was at this path before. What was before it and was not told goes.
    fn old_of(&mut self, path: &[u8]) -> Result<Option<Entry>, Error> {
        loop {
            let Some(old) = self.old.peek() else { return Ok(None) };
            match compare(&old.path, path) {
                std::cmp::Ordering::Equal => return Ok(self.old.next()),
                std::cmp::Ordering::Greater => return Ok(None),
                std::cmp::Ordering::Less => {
                    let Some(old) = self.old.next() else { return Ok(None) };
                    self.changed = true;
                    self.remove(&old.path)?;
                }
            }
        }
    }

    /// A further name must be that of a file that was told.
    fn check_target(&self, entry: &Entry) -> Result<(), Error> {
        let found = self.new.binary_search_by(|other| compare(&other.path, &entry.link));
        match found.is_ok_and(|at| self.new[at].has_content()) {
            true => Ok(()),
            false => Err(Error::refused(format!(
                "invalid link {:?} to unknown path {:?}",
                String::from_utf8_lossy(&entry.path),
                String::from_utf8_lossy(&entry.link)
            ))),
        }
    }

    /// Makes a file that is not there. One with content is not made before that comes.
    fn make(&mut self, entry: &Entry) -> Result<bool, Error> {
        let failed = |error: Errno| Error::file("creating", &entry.path, error);
        if entry.kind == Kind::File {
            if !entry.link.is_empty() {
                // The content may be on its way: it is linked when all is there.
                self.names.push(self.new.len());
            }
            return Ok(entry.link.is_empty());
        }
        let (parent, name) = self.place(&entry.path)?;
        let name = OsStr::from_bytes(name);
        match entry.kind {
            Kind::File => {}
            Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(failed)?,
            Kind::Link => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name).map_err(failed)?;
            }
            Kind::Pipe | Kind::CharacterDevice | Kind::BlockDevice => {
                let kind = match entry.kind {
                    Kind::Pipe => FileType::Fifo,
                    Kind::CharacterDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = makedev(entry.device.0, entry.device.1);
                rustix::fs::mknodat(parent, name, kind, Mode::empty(), device).map_err(failed)?;
                rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.permissions), AtFlags::empty())
                    .map_err(failed)?;
            }
        }
        if entry.kind != Kind::Directory {
            let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), flags).map_err(failed)?;
            rustix::fs::utimensat(parent, name, &times(entry.modified), flags).map_err(failed)?;
        }
        Ok(false)
    }

    /// Gives a file one more name.
    fn link(&mut self, entry: &Entry) -> Result<(), Error> {
        let (directory, first) = split(&entry.link);
        let directory =
            enter(&self.root, directory).map_err(|error| Error::file("opening", &entry.link, error))?;
        let (parent, name) = self.place(&entry.path)?;
        let (first, name) = (OsStr::from_bytes(first), OsStr::from_bytes(name));
        rustix::fs::linkat(directory, first, parent, name, AtFlags::empty())
            .map_err(|error| Error::file("linking", &entry.path, error))
    }

    /// Removes what is at a path, with all that it holds; nothing may be there any more.
    fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        // The directory itself may be another one soon.
        self.parent = None;
        let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(|errno| Some(errno.raw_os_error()));
        let (parent, name) = match self.place(path) {
            Err(Error::File { source, .. }) if gone.contains(&source.raw_os_error()) => return Ok(()),
            place => place?,
        };
        let name = CString::new(name).map_err(|error| Error::file("removing", path, error))?;
        match berth_archive::tree::remove(parent, &name) {
            Err(error) if !gone.contains(&error.raw_os_error()) => Err(Error::file("removing", path, error)),
            _ => Ok(()),
        }
    }

    /// The directory of a path, without links, and its last name.
    fn place<'a>(&mut self, path: &'a [u8]) -> Result<(BorrowedFd<'_>, &'a [u8]), Error> {
        let (directory, name) = split(path);
        if self.parent.as_ref().is_none_or(|(known, _)| known != directory) {
            let opened =
                enter(&self.root, directory).map_err(|error| Error::file("opening", directory, error))?;
            self.parent = Some((directory.to_vec(), opened));
        }
        let opened = self.parent.as_ref().map_or(self.root.as_fd(), |(_, opened)| opened.as_fd());
        Ok((opened, name))
    }
}

/// Opens a directory beneath another one, without links.
fn enter(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Gives an open file what was told of it.
fn dress(file: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    if !entry.capability.is_empty() {
        rustix::fs::fsetxattr(file, CAPABILITY, &entry.capability, XattrFlags::empty())?;
    }
    // After the owner, whose change takes these bits away.
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.permissions))?;
    rustix::fs::futimens(file, &times(entry.modified))
}

fn times(modified: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    let time = Timespec { tv_sec: modified.div_euclid(SECOND), tv_nsec: modified.rem_euclid(SECOND) };
    Timestamps { last_access: time, last_modification: time }
}
