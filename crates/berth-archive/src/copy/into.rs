//! Tar into a tree that is in use.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath;
use berth_sys::ids::Mappings;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::mode::ModeChange;
use super::path;
use super::place::opened;
use super::stage::Stage;
use crate::extract::Limits;
use crate::extract::attributes::{is_overlay, mode, timestamps};
use crate::extract::place::fill;
use crate::format::entry::{Entries, Entry, Kind};
use crate::format::input::Input;
use crate::format::pax::Time;
use crate::meta::Recorder;
use crate::tree::{self, proc_path};
use crate::{Error, Result, owned};

/// How often a name is freed that somebody else takes again and again.
pub(super) const ATTEMPTS: usize = 8;
/// The mode of directories that the archive does not name.
const IMPLIED: u32 = 0o755;

/// To whom new files belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Whom the archive names.
    #[default]
    Archive,
    /// This user and this group.
    Fixed(u32, u32),
    /// Whoever unpacks: nothing is changed, and attributes that need privileges are left out.
    Caller,
}

/// How to unpack.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a file may take the place of a directory, and a directory that of a file.
    pub replace: bool,
    /// Whether a file is seen when it is whole and not before, and what it replaces stays until then: for trees that outlive
    /// a failure. Both are on the disk for a moment.
    pub atomic: bool,
    /// To whom new files belong.
    pub owner: Owner,
    /// Whose the tree's owners are outside of the user namespace that the archive's are in.
    pub ids: Option<Mappings>,
    /// What becomes of the permissions of new files and directories that the archive names.
    pub mode: Option<ModeChange>,
    /// Names that become others, one after the other.
    pub renames: Vec<Rename>,
    /// Bounds on what the archive may ask for.
    pub limits: Limits,
}

/// The first part of names that becomes another, with all that stands below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// What it is; for nothing or `/`, the new name is put before all.
    pub from: Vec<u8>,
    /// What it becomes.
    pub to: Vec<u8>,
}

impl Rename {
    fn of(&self, name: &[u8]) -> Vec<u8> {
        let trimmed = |name: &[u8]| -> Vec<u8> {
            let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
            name[..end].to_vec()
        };
        let (from, to) = (trimmed(&self.from), trimmed(&self.to));
        if from.is_empty() {
            let start = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
            return if to.is_empty() {
                name[start..].to_vec()
            } else {
                [&to, &b"/"[..], &name[start..]].concat()
            };
        }
        match name.strip_prefix(from.as_slice()) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => [&to, rest].concat(),
            _ => name.to_vec(),
        }
    }
}

/// Unpacks an uncompressed tar stream below the directory `destination` inside `root`. Blocks.
///
/// Links that stand in the way of a name are followed inside `root`; one at the end of a name is replaced. Nobody who has
/// open what a file replaces sees it change.
///
/// # Errors
/// Whatever is wrong with the archive, the tree or the disk. What was unpacked before stays; the file that was being
/// written is removed, and with [`Options::atomic`] what it was to replace is there.
pub fn unpack(root: BorrowedFd<'_>, destination: &[u8], options: &Options, reader: impl Read) -> Result<()> {
    let mut entries = Entries::new(Input::unhashed(reader), Recorder::new(None)?, options.limits);
    let mut target = Target {
        root,
        base: path::absolute(destination),
        options,
        cached: None,
        directories: Vec::new(),
        count: 0,
    };
    while let Some(entry) = entries.next()? {
        target.count += 1;
        if target.count > options.limits.entries {
            return Err(Error::Limit { what: "the count of entries", limit: options.limits.entries });
        }
        target.place(entry, &mut entries)?;
    }
    target.finish();
    Ok(())
}

/// The tree, as seen from the destination.
pub(super) struct Target<'a> {
    root: BorrowedFd<'a>,
    /// The destination, absolute and clean.
    base: Vec<u8>,
    pub(super) options: &'a Options,
    /// The directory of the last entry: most entries follow their neighbours.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set when nothing changes them any more.
    directories: Vec<(Vec<u8>, Time)>,
    count: u64,
}

/// A directory to create in, and the name there.
pub(super) struct Spot<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
}

impl Target<'_> {
    fn place<R: Read>(&mut self, mut entry: Entry, entries: &mut Entries<R>) -> Result<()> {
        for rename in &self.options.renames {
            entry.name = rename.of(&entry.name);
            if entry.kind == Kind::HardLink {
                entry.link = rename.of(&entry.link);
            }
        }
        let Some(name) = self.name(&entry.name)? else { return Ok(()) };
        if let Owner::Fixed(uid, gid) = self.options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some(ids) = &self.options.ids {
            let outside = ids.outside(entry.uid, entry.gid);
            (entry.uid, entry.gid) = outside
                .ok_or_else(|| Error::refused(&entry.name, "its owner is not in the user namespace"))?;
            entry.xattrs = owned::outside(ids, entry.xattrs);
        }
        if let Some(change) = &self.options.mode {
            entry.mode = change.apply(entry.mode, entry.kind == Kind::Directory);
        }
        if entry.kind == Kind::HardLink && self.linked(&name, &entry)? == name {
            return Ok(());
        }
        self.make_way(&name, &entry)?;
        match entry.kind {
            Kind::Directory => self.directory(&name, &entry),
            Kind::File => self.file(&name, &entry, entries),
            Kind::Symlink => self.symlink(&name, &entry),
            Kind::HardLink => self.hard_link(&name, &entry),
            Kind::Fifo => self.node(&name, &entry, FileType::Fifo, (0, 0)),
            Kind::CharDevice(major, minor) => {
                self.node(&name, &entry, FileType::CharacterDevice, (major, minor))
            }
            Kind::BlockDevice(major, minor) => {
                self.node(&name, &entry, FileType::BlockDevice, (major, minor))
            }
        }
    }

    /// A name below the destination; none for the destination itself, which stays as it is.
    fn name(&self, given: &[u8]) -> Result<Option<Vec<u8>>> {
        if given.contains(&0) {
            return Err(Error::refused(given, "its name holds a NUL byte"));
        }
        if given.len() > self.options.limits.path_bytes {
            return Err(Error::Limit {
                what: "the length of a path",
                limit: self.options.limits.path_bytes as u64,
            });
        }
        let start = given.iter().position(|byte| *byte != b'/').unwrap_or(given.len());
        let name = path::clean(&given[start..]);
        if name == b".." || name.starts_with(b"../") {
            return Err(Error::refused(given, "its name leads upwards (\"..\")"));
        }
        Ok((name != b".").then_some(name))
    }

    /// Removes what the entry replaces, or sees that it can be replaced.
    fn make_way(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        self.enter(name)?;
        let Some(stat) = self.examine(name)? else { return Ok(()) };
        let (is, becomes) = (is_directory(&stat), entry.kind == Kind::Directory);
        if is && becomes {
            return Ok(());
        }
        if is != becomes && !self.options.replace {
            let (old, new) = if is { ("directory", "non-directory") } else { ("non-directory", "directory") };
            let (name, directory) = (crate::error::lossy(name), crate::error::lossy(&self.base));
            return Err(Error::Overwrite { old, name, new, directory });
        }
        if self.options.atomic && !becomes { self.check_mounts(name) } else { self.clear(name) }
    }

    fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let spot = self.spot(name)?;
        match rustix::fs::mkdirat(spot.parent, spot.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::file("creating", name, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(spot.parent, spot.name, flags, Mode::empty())
            .map_err(|error| Error::file("opening", name, error))?;
        self.attributes(made.as_fd(), entry, name)?;
        self.directories.push((name.to_vec(), entry.mtime));
        Ok(())
    }

    fn file<R: Read>(&mut self, name: &[u8], entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        let (made, stage) = self.begin_file(name)?;
        let filled = fill(&made, name, entry, entries, |_| Ok(()))
            .and_then(|()| self.attributes(made.as_fd(), entry, name))
            .and_then(|()| {
                rustix::fs::futimens(&made, &timestamps(entry.mtime))
                    .map_err(|error| Error::file("setting the times of", name, error))
            });
        match (filled, stage) {
            (Ok(()), Stage::Unnamed) => {
                let stage = self.name_file(name, made.as_fd())?;
                self.end(name, &stage, Ok(()))
            }
            (filled, stage) => self.end(name, &stage, filled),
        }
    }

    fn symlink(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty()
            || entry.link.contains(&0)
            || entry.link.len() > self.options.limits.path_bytes
        {
            return Err(Error::refused(name, "its target is empty, too long or holds a NUL byte"));
        }
        let target = OsStr::from_bytes(&entry.link);
        let ((), stage) = self.begin(name, |spot| rustix::fs::symlinkat(target, spot.parent, spot.name))?;
        let set = self.spot(name).and_then(|spot| self.attributes_of_link(&stage.at(spot), entry, name));
        self.end(name, &stage, set)
    }

    fn attributes_of_link(&self, spot: &Spot<'_>, entry: &Entry, name: &[u8]) -> Result<()> {
        if self.options.owner != Owner::Caller {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(spot.parent, spot.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| Error::file("changing the owner of", name, error))?;
        }
        rustix::fs::utimensat(spot.parent, spot.name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Error::file("setting the times of", name, error))
    }

    fn node(&mut self, name: &[u8], entry: &Entry, kind: FileType, (major, minor): (u32, u32)) -> Result<()> {
        let device = rustix::fs::makedev(major, minor);
        let make = |spot: &Spot<'_>| rustix::fs::mknodat(spot.parent, spot.name, kind, Mode::empty(), device);
        let ((), stage) = self.begin(name, make)?;
        let set =
            self.spot(name).and_then(|spot| self.attributes_of_node(&stage.at(spot), kind, entry, name));
        self.end(name, &stage, set)
    }

    fn attributes_of_node(&self, spot: &Spot<'_>, kind: FileType, entry: &Entry, name: &[u8]) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |error| Error::file("opening", name, error);
        let made = rustix::fs::openat(spot.parent, spot.name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&made).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            // Somebody has put something else there, which is theirs.
            return Err(failed(Errno::AGAIN));
        }
        self.attributes_of_location(made.as_fd(), entry, name)
    }

    /// A link to what the same archive, or the destination, has under another name.
    fn hard_link(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let target = self.linked(name, entry)?;
        let (directory, last) = split(&target);
        let failed = |error: io::Error| Error::file("opening", &target, error);
        let from =
            opened(self.root, &self.below(directory), OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let last = OsStr::from_bytes(last);
        let ((), stage) = self.begin(name, |spot| {
            // A link is not followed: without AT_SYMLINK_FOLLOW, it is the link that gets another name.
            rustix::fs::linkat(&from, last, spot.parent, spot.name, AtFlags::empty())
        })?;
        self.end(name, &stage, Ok(()))?;
        if matches!(stage, Stage::Beside(_)) {
            // Where both are the same file already, the kernel has moved nothing.
            self.discard(name, &stage);
        }
        Ok(())
    }

    /// What a hard link is another name of.
    fn linked(&self, name: &[u8], entry: &Entry) -> Result<Vec<u8>> {
        let target = self.name(&entry.link).ok().flatten();
        target.ok_or_else(|| Error::refused(name, "its hard link leads out of the archive"))
    }

    /// Runs `make` for a name that is free, or is made so.
    pub(super) fn create<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(&Spot<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            match make(&self.spot(name)?) {
                Err(Errno::EXIST) => {
                    // Taken since it was looked at: a directory is not removed for that.
                    if !self.examine(name)?.is_some_and(|stat| is_directory(&stat)) {
                        self.clear(name)?;
                    }
                }
                other => return other.map_err(|error| Error::file("creating", name, error)),
            }
        }
        Err(Error::file("creating", name, Errno::EXIST))
    }

    pub(super) fn clear(&mut self, name: &[u8]) -> Result<()> {
        self.check_mounts(name)?;
        let spot = self.spot(name)?;
        tree::remove(spot.parent, &terminated(spot.name)?)
            .map_err(|error| Error::file("replacing", name, error))
    }

    /// Refuses to replace what something is mounted on: asked from outside its mount namespace, the kernel would remove
    /// what is below a mount, and the mount with it.
    pub(super) fn check_mounts(&self, name: &[u8]) -> Result<()> {
        let spot = self.spot(name)?;
        let failed = |error: io::Error| Error::file("replacing", name, error);
        match tree::holds_mount(spot.parent, &terminated(spot.name)?).map_err(failed)? {
            true => Err(failed(Errno::BUSY.into())),
            false => Ok(()),
        }
    }

    pub(super) fn examine(&self, name: &[u8]) -> Result<Option<Stat>> {
        let spot = self.spot(name)?;
        match rustix::fs::statat(spot.parent, spot.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::file("examining", name, error)),
        }
    }

    /// Makes the directory of `name` the cached one; missing parts are made.
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        let (directory, _) = split(name);
        if self.cached.as_ref().is_some_and(|(cached, _)| cached == directory) {
            return Ok(());
        }
        self.cached = None;
        let path = self.below(directory);
        let fd = match opened(self.root, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = Path::new(OsStr::from_bytes(&path));
                beneath::make_directories_with(self.root, path, Mode::RWXU, |made| {
                    Ok(rustix::fs::chmodat(CWD, proc_path(made), mode(IMPLIED), AtFlags::empty())?)
                })
            }
            other => other,
        };
        self.cached =
            Some((directory.to_vec(), fd.map_err(|error| Error::file("opening", directory, error))?));
        Ok(())
    }

    /// Where [`Target::enter`] has been with this name.
    pub(super) fn spot<'s>(&'s self, name: &'s [u8]) -> Result<Spot<'s>> {
        let (directory, last) = split(name);
        match &self.cached {
            Some((cached, fd)) if cached == directory => {
                Ok(Spot { parent: fd.as_fd(), name: OsStr::from_bytes(last) })
            }
            _ => Err(Error::refused(name, "its directory is not open")),
        }
    }

    fn below(&self, directory: &[u8]) -> Vec<u8> {
        [&self.base, &b"/"[..], directory].concat()
    }

    /// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities too).
    fn attributes(&self, fd: BorrowedFd<'_>, entry: &Entry, name: &[u8]) -> Result<()> {
        if self.options.owner != Owner::Caller {
            rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|error| Error::file("changing the owner of", name, error))?;
        }
        rustix::fs::fchmod(fd, mode(entry.mode))
            .map_err(|error| Error::file("changing the mode of", name, error))?;
        for (attribute, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay(name)) {
            let set = rustix::fs::fsetxattr(fd, OsStr::from_bytes(attribute), value, XattrFlags::empty());
            tolerate(set, name)?;
        }
        Ok(())
    }

    /// The same for what cannot be opened without effects, by a location of it.
    fn attributes_of_location(&self, fd: BorrowedFd<'_>, entry: &Entry, name: &[u8]) -> Result<()> {
        if self.options.owner != Owner::Caller {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .map_err(|error| Error::file("changing the owner of", name, error))?;
        }
        let itself = proc_path(fd);
        rustix::fs::chmodat(CWD, &itself, mode(entry.mode), AtFlags::empty())
            .map_err(|error| Error::file("changing the mode of", name, error))?;
        for (attribute, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay(name)) {
            let set = rustix::fs::setxattr(&itself, OsStr::from_bytes(attribute), value, XattrFlags::empty());
            tolerate(set, name)?;
        }
        rustix::fs::utimensat(CWD, &itself, &timestamps(entry.mtime), AtFlags::empty())
            .map_err(|error| Error::file("setting the times of", name, error))
    }

    /// Sets the times of directories, the innermost first. Who moves one away meanwhile keeps its times.
    fn finish(self) {
        for (name, time) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(directory) = opened(self.root, &self.below(name), flags) {
                let _ = rustix::fs::futimens(&directory, &timestamps(*time));
            }
        }
    }
}

/// As Docker does: attributes that the file system does not have, or that the caller may not set, are left out.
fn tolerate(set: rustix::io::Result<()>, name: &[u8]) -> Result<()> {
    match set {
        Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        Err(error) => Err(Error::file("setting an extended attribute of", name, error)),
    }
}

fn terminated(name: &OsStr) -> Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| Error::refused(name.as_bytes(), "its name holds a NUL byte"))
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The directory of a clean relative path, empty for the top, and the last part.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
