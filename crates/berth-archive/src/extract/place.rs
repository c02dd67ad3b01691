//! The directory being filled: where each entry goes and what it replaces.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes;
use super::hidden::Hidden;
use super::name::{self, Meaning};
use super::origin::{self, Origin};
use super::{DeferredLink, Fixups, Limits, forget};
use crate::format::entry::{Entries, Entry, Kind};
use crate::format::input::Source;
use crate::format::pax::Time;
use crate::marks::Marks;
use crate::meta::Recorder;
use crate::{Error, Result, tree};

/// Most bytes that are written between two looks at the free space.
const CHECK_EVERY: u64 = 16 << 20;
/// Fewest.
const CHECK_LEAST: u64 = 256 << 10;
/// What an entry itself may take, for the same account.
const ENTRY_COST: u64 = 4096;
/// Zero runs are found in pieces of this size; a whole piece becomes a hole.
const HOLE: usize = 64 * 1024;

/// Bytes of a file that the disk is given before more are written.
const WRITE_BACK_LEAST: u64 = 4 << 20;
/// Fewest bytes of a file that it is given at the file's end; smaller files wait for the sync of them all.
const WRITE_BACK_LEAST_AT_END: u64 = 256 << 10;

/// The tree of one layer while it grows.
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory of the last entry: most entries follow their neighbours.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Directories made without an entry of their own.
    pub(super) implied: BTreeMap<Vec<u8>, ()>,
    /// Modification times of directories, set when nothing changes them any more.
    times: BTreeMap<Vec<u8>, Time>,
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) marks: Marks,
    pub(super) hidden: Hidden,
    /// Where files are that need not be written again.
    pub(super) origin: Option<Origin>,
    keep_free: u64,
    unchecked: u64,
    /// Bytes to write until the next look.
    until_check: u64,
}

/// A directory to create in, and the name there.
struct Spot<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, keep_free: u64, marks: Marks) -> Result<Self> {
        rustix::fs::fchmod(&root, attributes::mode(0o755))
            .map_err(|error| Error::file("changing the mode of", b"/", error))?;
        let mut tree = Self {
            root,
            cached: None,
            implied: BTreeMap::from([(Vec::new(), ())]),
            times: BTreeMap::new(),
            links: BTreeMap::new(),
            marks,
            hidden: Hidden::default(),
            origin: None,
            keep_free,
            unchecked: 0,
            until_check: 0,
        };
        tree.check_space()?;
        Ok(tree)
    }

    /// Puts one entry into the tree.
    pub(super) fn place<R: Source>(
        &mut self,
        entry: Entry,
        limits: &Limits,
        entries: &mut Entries<R>,
    ) -> Result<()> {
        self.account(ENTRY_COST)?;
        let path = name::normalise(&entry.name, limits)?;
        match name::meaning(&path)? {
            Meaning::Plain => {}
            Meaning::Ignored => return Ok(()),
            Meaning::Opaque(directory) => return self.opaque(&directory),
            Meaning::Whiteout(hidden) => return self.whiteout(&hidden, &mut entries.recorder),
        }
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(Error::refused(&entry.name, "it would replace the root"));
            }
            return self.attributes_of_root(&entry);
        }
        if !self.links.is_empty() && entry.kind != Kind::Directory {
            forget(&mut self.links, &path);
        }
        match entry.kind {
            Kind::File => self.file(&path, &entry, entries),
            Kind::Directory => self.directory(&path, &entry, &mut entries.recorder),
            Kind::Symlink => self.symlink(&path, &entry, limits, &mut entries.recorder),
            Kind::HardLink => self.hard_link(&path, &entry, limits, &mut entries.recorder),
            Kind::CharDevice(major, minor) => {
                self.node(&path, &entry, FileType::CharacterDevice, (major, minor), &mut entries.recorder)
            }
            Kind::BlockDevice(major, minor) => {
                self.node(&path, &entry, FileType::BlockDevice, (major, minor), &mut entries.recorder)
            }
            Kind::Fifo => self.node(&path, &entry, FileType::Fifo, (0, 0), &mut entries.recorder),
        }
    }

    /// Sets the times of directories and tells what is left for the ordered pass.
    pub(super) fn finish(mut self) -> Result<Fixups> {
        self.check_space()?;
        self.drop_needless_whiteouts()?;
        for (path, &time) in &self.times {
            let directory = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::futimens(&directory, &attributes::timestamps(time))
                .map_err(|error| Error::file("setting the times of", path, error))?;
        }
        Ok(Fixups {
            implied: self.implied.into_keys().collect(),
            links: self.links.into_iter().map(|(path, target)| DeferredLink { path, target }).collect(),
            marks: self.marks,
        })
    }

    fn file<R: Source>(&mut self, path: &[u8], entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        if let Some(mut origin) = self.origin.take() {
            self.enter(path)?;
            let linked = origin.link(path, entry, self.spot(path)?.0);
            self.origin = Some(origin);
            if linked? {
                return origin::pass(path, entry, entries);
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.create(path, &mut entries.recorder, |spot| {
            rustix::fs::openat(spot.parent, spot.name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut dirty = 0;
        fill(&fd, path, entry, entries, |bytes| {
            dirty += bytes;
            if dirty >= WRITE_BACK_LEAST {
                write_back(&fd);
                dirty = 0;
            }
            self.account(bytes)
        })?;
        if dirty >= WRITE_BACK_LEAST_AT_END {
            write_back(&fd);
        }
        attributes::set_open(fd.as_fd(), entry, path)?;
        rustix::fs::futimens(&fd, &attributes::timestamps(entry.mtime))
            .map_err(|error| Error::file("setting the times of", path, error))
    }

    fn directory(&mut self, path: &[u8], entry: &Entry, recorder: &mut Recorder) -> Result<()> {
        let was_link = self.links.remove(path).is_some();
        if !self.make_directory(path, recorder)? {
            tracing::trace!(path = %crate::error::lossy(path), "directory named again");
        }
        if was_link {
            self.mark_opaque(path)?;
        }
        self.implied.remove(path);
        self.times.insert(path.to_vec(), entry.mtime);
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        attributes::set_open(fd.as_fd(), entry, path)
    }

    fn attributes_of_root(&mut self, entry: &Entry) -> Result<()> {
        self.implied.remove(&b""[..]);
        self.times.insert(Vec::new(), entry.mtime);
        attributes::set_open(self.root.as_fd(), entry, b"/")
    }

    fn symlink(
        &mut self,
        path: &[u8],
        entry: &Entry,
        limits: &Limits,
        recorder: &mut Recorder,
    ) -> Result<()> {
        if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > limits.path_bytes {
            return Err(Error::refused(path, "its target is empty, too long or holds a NUL byte"));
        }
        let target = OsStr::from_bytes(&entry.link);
        self.create(path, recorder, |spot| rustix::fs::symlinkat(target, spot.parent, spot.name))?;
        let (parent, name) = self.spot(path)?;
        attributes::set_named(parent, name, entry, true, path)
    }

    fn node(
        &mut self,
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
        recorder: &mut Recorder,
    ) -> Result<()> {
        let device = rustix::fs::makedev(major, minor);
        self.create(path, recorder, |spot| make_node(spot, kind, device))?;
        let (parent, name) = self.spot(path)?;
        attributes::set_named(parent, name, entry, false, path)
    }

    fn hard_link(
        &mut self,
        path: &[u8],
        entry: &Entry,
        limits: &Limits,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let target = name::normalise(&entry.link, limits)
            .map_err(|_| Error::refused(path, "its hard link leads out of the layer"))?;
        if target.is_empty() {
            return Err(Error::refused(path, "it is a hard link to the root"));
        }
        if target == path {
            return Ok(());
        }
        if let Some(below) = self.links.get(&target).cloned() {
            return self.defer(path, below, recorder);
        }
        let (directory, last) = name::split(&target);
        let from = match self.open_beneath_raw(directory, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return self.defer(path, target, recorder),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Error::refused(path, "its hard link passes through a symbolic link or a file"));
            }
            Err(error) => return Err(Error::file("opening", &target, error)),
        };
        let last = OsStr::from_bytes(last);
        match rustix::fs::statat(&from, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(Error::refused(path, "it is a hard link to a directory"));
            }
            Ok(stat) if self.marks.is_whiteout(&stat) => {
                return Err(Error::refused(path, "it is a hard link to a deleted file"));
            }
            Ok(_) => {}
            Err(Errno::NOENT) => return self.defer(path, target, recorder),
            Err(error) => return Err(Error::file("examining", &target, error)),
        }
        self.create(path, recorder, |spot| {
            rustix::fs::linkat(&from, last, spot.parent, spot.name, AtFlags::empty())
        })
    }

    /// Leaves a hard link for the ordered pass. Its name is kept free, and its parents exist.
    fn defer(&mut self, path: &[u8], target: Vec<u8>, recorder: &mut Recorder) -> Result<()> {
        self.enter(path)?;
        self.clear(path, recorder)?;
        self.links.insert(path.to_vec(), target);
        Ok(())
    }

    /// A whiteout hides what lower layers have; what this layer has of that name stays.
    fn whiteout(&mut self, path: &[u8], recorder: &mut Recorder) -> Result<()> {
        // A deferred link is this layer's too, though nothing stands there yet.
        if self.links.contains_key(path) {
            return Ok(());
        }
        self.enter(path)?;
        self.hidden.holds.insert(name::split(path).0.to_vec());
        for again in [false, true] {
            let (parent, name) = self.spot(path)?;
            let spot = Spot { parent, name: OsStr::from_bytes(name) };
            match make_node(&spot, self.marks.whiteout(), 0) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    let stat = rustix::fs::statat(spot.parent, spot.name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|error| Error::file("examining", path, error))?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                        break;
                    }
                    if again || !self.holds_marks_alone(path)? {
                        return self.mark_opaque(path);
                    }
                    self.clear(path, recorder)?;
                }
                Err(error) => return Err(Error::file("creating the whiteout of", path, error)),
            }
        }
        Ok(())
    }

    fn opaque(&mut self, directory: &[u8]) -> Result<()> {
        if !directory.is_empty() {
            let mut inside = directory.to_vec();
            inside.extend_from_slice(b"/x");
            self.enter(&inside)?;
        }
        self.mark_opaque(directory)
    }

    fn mark_opaque(&mut self, directory: &[u8]) -> Result<()> {
        self.hidden.opaque.insert(directory.to_vec());
        let fd = self.open_beneath(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.marks.mark_opaque(&fd).map_err(|error| Error::file("marking as opaque", directory, error))
    }

    /// Runs `make` for `path`; what stands there already is removed, since later entries replace earlier ones.
    fn create<T>(
        &mut self,
        path: &[u8],
        recorder: &mut Recorder,
        make: impl Fn(&Spot<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.enter(path)?;
        for again in [false, true] {
            let (parent, name) = self.spot(path)?;
            match make(&Spot { parent, name: OsStr::from_bytes(name) }) {
                Err(Errno::EXIST) if !again => self.clear(path, recorder)?,
                result => return result.map_err(|error| Error::file("creating", path, error)),
            }
        }
        Err(Error::refused(path, "it cannot be replaced"))
    }

    /// Makes a directory; `false` if it is one already. Anything else of this layer that was there, a whiteout too, means
    /// that nothing below shows through.
    fn make_directory(&mut self, path: &[u8], recorder: &mut Recorder) -> Result<bool> {
        self.enter(path)?;
        let (parent, name) = self.spot(path)?;
        let name = OsStr::from_bytes(name);
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::file("creating", path, error)),
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Error::file("examining", path, error))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(false);
        }
        self.clear(path, recorder)?;
        let (parent, name) = self.spot(path)?;
        rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::RWXU)
            .map_err(|error| Error::file("creating", path, error))?;
        self.mark_opaque(path)?;
        Ok(true)
    }

    /// Removes what stands at `path`; contents that the record still needs go into it first.
    fn clear(&mut self, path: &[u8], recorder: &mut Recorder) -> Result<()> {
        if recorder.is_on() {
            self.save_contents(path, recorder)?;
        }
        let (parent, name) = self.spot(path)?;
        let c_name = CString::new(name).map_err(|_| Error::refused(path, "its name holds a NUL byte"))?;
        tree::remove(parent, &c_name).map_err(|error| Error::file("replacing", path, error))?;
        let below =
            |cached: &[u8]| cached.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if self.cached.as_ref().is_some_and(|(cached, _)| below(cached)) {
            self.cached = None;
        }
        forget(&mut self.implied, path);
        forget(&mut self.times, path);
        forget(&mut self.links, path);
        Ok(())
    }

    fn save_contents(&self, path: &[u8], recorder: &mut Recorder) -> Result<()> {
        let mut pending = vec![path.to_vec()];
        while let Some(path) = pending.pop() {
            let (directory, last) = name::split(&path);
            let parent = self.open_beneath(directory, OFlags::PATH | OFlags::DIRECTORY)?;
            let stat = match rustix::fs::statat(&parent, OsStr::from_bytes(last), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(Error::file("examining", &path, error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_size > 0 => {
                    let file = self.open_beneath(&path, OFlags::RDONLY)?;
                    recorder.orphan(&path, File::from(file))?;
                }
                FileType::Directory => {
                    let directory = self.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                    let listing = rustix::fs::Dir::new(directory)
                        .map_err(|error| Error::file("listing", &path, error))?;
                    for entry in listing {
                        let entry = entry.map_err(|error| Error::file("listing", &path, error))?;
                        let name = entry.file_name().to_bytes();
                        if name != b"." && name != b".." {
                            pending.push([&path[..], b"/", name].concat());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the directory of `path` the cached one, creating it where the archive only implies it.
    fn enter(&mut self, path: &[u8]) -> Result<()> {
        let (directory, _) = name::split(path);
        if directory.is_empty() || self.cached.as_ref().is_some_and(|(cached, _)| cached == directory) {
            return Ok(());
        }
        self.cached = None;
        let fd = match self.open_beneath_raw(directory, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.imply(directory, path)?,
            Err(Errno::LOOP) => return Err(Error::refused(path, "its path passes through a symbolic link")),
            Err(error) => return Err(Error::file("opening", directory, error)),
        };
        self.cached = Some((directory.to_vec(), fd));
        Ok(())
    }

    /// Creates a directory and those above it, one by one, each opened beneath the last.
    fn imply(&mut self, directory: &[u8], wanted_by: &[u8]) -> Result<OwnedFd> {
        let mut above: Option<OwnedFd> = None;
        let ends = directory.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
        for end in ends.chain([directory.len()]) {
            let path = &directory[..end];
            let name = OsStr::from_bytes(name::split(path).1);
            let parent = above.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    let hidden = self.clear_whiteout(parent, name, wanted_by)?;
                    rustix::fs::mkdirat(parent, name, Mode::RWXU)
                        .map_err(|error| Error::file("creating", path, error))?;
                    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())
                        .map_err(|error| Error::file("opening", path, error))?;
                    rustix::fs::fchmod(&fd, attributes::mode(0o755))
                        .map_err(|error| Error::file("changing the mode of", path, error))?;
                    if hidden {
                        self.hidden.opaque.insert(path.to_vec());
                        self.marks
                            .mark_opaque(&fd)
                            .map_err(|error| Error::file("marking as opaque", path, error))?;
                    }
                    self.links.remove(path);
                    self.implied.insert(path.to_vec(), ());
                    fd
                }
                Err(error) => return Err(Error::file("opening", path, error)),
            };
            above = Some(fd);
        }
        above.ok_or_else(|| Error::refused(wanted_by, "it has no directory"))
    }

    /// Takes a whiteout away where a directory is to be; anything else there is no directory, and refused.
    fn clear_whiteout(&self, parent: BorrowedFd<'_>, name: &OsStr, wanted_by: &[u8]) -> Result<bool> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            Ok(stat) if self.marks.is_whiteout(&stat) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(|error| Error::file("replacing", name.as_bytes(), error))?;
                Ok(true)
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                Err(Error::refused(wanted_by, "its path passes through a symbolic link"))
            }
            Ok(_) => Err(Error::refused(wanted_by, "its path passes through a file")),
            Err(error) => Err(Error::file("examining", name.as_bytes(), error)),
        }
    }

    /// The directory and last component of a path that [`Tree::enter`] has been called with.
    fn spot<'a>(&'a self, path: &'a [u8]) -> Result<(BorrowedFd<'a>, &'a [u8])> {
        let (directory, last) = name::split(path);
        match &self.cached {
            _ if directory.is_empty() => Ok((self.root.as_fd(), last)),
            Some((cached, fd)) if cached == directory => Ok((fd.as_fd(), last)),
            _ => Err(Error::refused(path, "its directory is not open")),
        }
    }

    pub(super) fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        self.open_beneath_raw(path, flags).map_err(|error| Error::file("opening", path, error))
    }

    pub(super) fn open_beneath_raw(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
    }

    fn account(&mut self, bytes: u64) -> Result<()> {
        self.unchecked += bytes;
        if self.unchecked >= self.until_check {
            self.check_space()?;
        }
        Ok(())
    }

    fn check_space(&mut self) -> Result<()> {
        self.unchecked = 0;
        self.until_check = CHECK_EVERY;
        if self.keep_free == 0 {
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(&self.root).map_err(|error| Error::file("examining", b"/", error))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.keep_free {
            return Err(Error::DiskFull { free, keep: self.keep_free });
        }
        // The nearer the end, the closer the looks: others write too.
        self.until_check = ((free - self.keep_free) / 4).clamp(CHECK_LEAST, CHECK_EVERY);
        Ok(())
    }
}

/// Has the disk begin with what is written: a layer is synced before it is recorded, and the less is left then the better.
fn write_back(fd: &OwnedFd) {
    // What fails here fails again in the sync.
    let _ = berth_sys::writeback::begin(fd);
}

/// Creates a device or FIFO; the mode is set later.
fn make_node(spot: &Spot<'_>, kind: FileType, device: Dev) -> rustix::io::Result<()> {
    rustix::fs::mknodat(spot.parent, spot.name, kind, Mode::empty(), device)
}

/// Writes an entry's content to its new file, holes left out; `written` is told of what was written, and may end it.
pub(crate) fn fill<R: Source>(
    fd: &OwnedFd,
    path: &[u8],
    entry: &Entry,
    entries: &mut Entries<R>,
    mut written: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut end = 0;
    for (offset, length) in entry.segments() {
        entries.recorder.content(path, offset, length)?;
        let mut done = 0;
        while done < length {
            let part = write(fd, entries.data(length - done, &entry.name)?, offset + done, path)?;
            done += part.bytes;
            end = if part.ends_in_hole { end } else { offset + done };
            written(part.bytes)?;
        }
    }
    let size = entry.size();
    if end < size {
        rustix::fs::ftruncate(fd, size).map_err(|error| Error::file("setting the size of", path, error))?;
    }
    Ok(())
}

struct Written {
    bytes: u64,
    ends_in_hole: bool,
}

/// Writes a chunk at its offset, leaving out pieces that are all zeros.
fn write(fd: &OwnedFd, chunk: &[u8], offset: u64, path: &[u8]) -> Result<Written> {
    let failed = |error: Errno| Error::file("writing", path, error);
    let mut ends_in_hole = false;
    let mut start = 0;
    while start < chunk.len() {
        let mut end = start;
        while end < chunk.len() && !is_hole(&chunk[end..chunk.len().min(end + HOLE)]) {
            end = chunk.len().min(end + HOLE);
        }
        ends_in_hole = end == start;
        if ends_in_hole {
            start += HOLE;
            continue;
        }
        while start < end {
            start += rustix::io::pwrite(fd, &chunk[start..end], offset + start as u64).map_err(failed)?;
        }
    }
    Ok(Written { bytes: chunk.len() as u64, ends_in_hole })
}

fn is_hole(piece: &[u8]) -> bool {
    // A comparison with itself, shifted: one `memcmp`, which stops at the first difference.
    piece.len() == HOLE && piece[0] == 0 && piece[..HOLE - 1] == piece[1..]
}
