//! The merged view of layers as a tree of its own: for file systems on which overlayfs cannot work.
//!
//! Contents are shared with the layers where the file system can (reflinks), and copied with their holes where it cannot.
//! Owners, modes, extended attributes, times, devices and hard links are those of the view.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use berth_sys::ids::Mappings;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::marks::Marks;
use crate::overlay::{Found, Opened, Overlay, join, open_beneath};
use crate::pack::{Attributes, attributes};
use crate::tree::proc_path;
use crate::{Error, Result, owned};

/// Bytes copied between two looks at the free space.
const CHECK_EVERY: u64 = 16 << 20;
/// What a file takes beside its contents, for the same account.
const ENTRY_COST: u64 = 4096;
/// Bytes read at a time where the kernel cannot copy by itself.
const BUFFER: usize = 128 * 1024;

/// Says of a path that it, and what is below it, is left out.
pub type Skip<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Says whether the copy is still wanted.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

/// How a view is copied.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Bytes that stay free: copying stops before less are.
    pub keep_free: u64,
    /// The user namespace outside of which the copy's owners are who the view's are inside.
    pub owners: Option<&'a Mappings>,
    /// To whom everything belongs, whoever owns it in the view.
    pub owner: Option<(u32, u32)>,
    /// Whether a file that the copy is to have just as it is gets one more name, where it can. Whoever changes the one then
    /// changes the other.
    pub link: bool,
    /// What is left out.
    pub skip: Option<Skip<'a>>,
    /// Asked before each name.
    pub go_on: Option<GoOn<'a>>,
}

/// Copies all that `view` shows into the empty directory `to`, the root's own attributes included. Blocks. Nothing is synced;
/// what was copied before an error stays.
///
/// # Errors
/// [`Error::DiskFull`]; an owner who is not in the user namespace; file errors; `ECANCELED` of what [`Options::go_on`] ends.
pub fn copy(view: &Overlay, to: BorrowedFd<'_>, options: &Options<'_>) -> Result<()> {
    let copier = Copier::with(to, options)?;
    let root = match view.enter(&view.root())?.itself()? {
        None => None,
        Some((stat, kept)) => {
            let (stat, kept) = copier.owned(stat, kept, b"/")?;
            set_open(to, &stat, &kept).map_err(|error| Error::file("preparing", b"/", error))?;
            Some(stat)
        }
    };
    contents(view, to, options, copier)?;
    // Last: whatever is made in a directory changes its time.
    root.map_or(Ok(()), |stat| set_times(to, b"/", &stat))
}

/// As [`copy`], without the attributes of the root.
///
/// # Errors
/// As [`copy`]; with [`Options::link`], a device that is overlayfs's mark of a removed name.
pub fn copy_contents(view: &Overlay, to: BorrowedFd<'_>, options: &Options<'_>) -> Result<()> {
    contents(view, to, options, Copier::with(to, options)?)
}

fn contents(view: &Overlay, to: BorrowedFd<'_>, options: &Options<'_>, mut copier: Copier) -> Result<()> {
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut directories: Vec<(Vec<u8>, Stat)> = Vec::new();
    let mut pending = vec![view.root()];
    while let Some(place) = pending.pop() {
        let here = view.enter(&place)?;
        let target = beneath(to, &place.path)?;
        for (name, found) in here.entries()? {
            let path = join(&place.path, name.to_bytes());
            if options.go_on.is_some_and(|go_on| !go_on()) {
                return Err(Error::file("copying", &path, Errno::CANCELED));
            }
            if options.skip.is_some_and(|skip| skip(&path)) {
                continue;
            }
            copier.account(ENTRY_COST)?;
            let spot = Spot { directory: target.as_fd(), name: &name, path: &path };
            if found.kind() == FileType::Directory {
                let stat = copier.directory(&here, &found, &spot)?;
                directories.push((path, stat));
                pending.extend(here.below(&place, &name, &found)?);
                continue;
            }
            let from = here.directory(&found);
            if options.link && linked(&found.stat, from, &spot, options)? {
                continue;
            }
            if found.stat.st_nlink > 1 {
                let key = (found.stat.st_dev, found.stat.st_ino);
                if let Some(first) = links.get(&key) {
                    link(to, first, &target, &name, &path)?;
                    continue;
                }
                links.insert(key, path.clone());
            }
            copier.file(from, &name, &found.stat, &spot)?;
        }
    }
    // The deepest first.
    directories.iter().rev().try_for_each(|(path, stat)| set_times(beneath(to, path)?.as_fd(), path, stat))
}

/// Gives a file one more name, if it is regular, belongs to whom the copy is to belong to, and the file system can. One that has
/// two already is another copy's, too: whoever sees both copies would take them for one file.
fn linked(stat: &Stat, from: BorrowedFd<'_>, to: &Spot<'_>, options: &Options<'_>) -> Result<bool> {
    if Marks::Overlay.is_whiteout(stat) {
        return Err(Error::refused(to.path, "it would mean that a file was removed"));
    }
    let owned = options.owners.is_none()
        && options.owner.is_none_or(|owner| owner == (stat.st_uid, stat.st_gid))
        && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1;
    let failed = |error| Error::file("linking", to.path, error);
    match owned.then(|| rustix::fs::linkat(from, to.name, to.directory, to.name, AtFlags::empty())) {
        None | Some(Err(Errno::XDEV | Errno::MLINK | Errno::PERM)) => return Ok(false),
        Some(done) => done.map_err(failed)?,
    }
    // Somebody else may have had the same thought.
    let now = rustix::fs::statat(to.directory, to.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if now.st_nlink > 2 {
        rustix::fs::unlinkat(to.directory, to.name, AtFlags::empty()).map_err(failed)?;
    }
    Ok(now.st_nlink <= 2)
}

/// Whether files of the file system of `directory` can share their contents (reflinks), by trying it with two files that
/// never have names. Blocks.
///
/// # Errors
/// File errors.
pub fn shares(directory: BorrowedFd<'_>) -> Result<bool> {
    let failed = |error: Errno| Error::file("trying to share the contents of", b"a file", error);
    let nameless = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(directory, c".", flags, Mode::RUSR | Mode::WUSR)
    };
    let files = nameless().and_then(|from| Ok((from, nameless()?)));
    let (from, to) = match files {
        Ok(files) => files,
        // A file system that cannot even do that is none of those.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    rustix::io::retry_on_intr(|| rustix::io::pwrite(&from, b"x", 0)).map_err(failed)?;
    match rustix::fs::ioctl_ficlone(&to, &from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::XDEV) => {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Where a copy is made: a name that is free in an open directory. The path is for errors.
pub(crate) struct Spot<'a> {
    pub directory: BorrowedFd<'a>,
    pub name: &'a CStr,
    pub path: &'a [u8],
}

/// Copies files to one file system.
pub(crate) struct Copier {
    /// Something on the file system.
    place: OwnedFd,
    keep_free: u64,
    unchecked: u64,
    /// Whether contents can be shared, as far as is known.
    shares: bool,
    /// To whom copies belong instead of the owners inside of a user namespace.
    owners: Option<Mappings>,
    /// To whom copies belong, whoever owns the originals.
    owner: Option<(u32, u32)>,
}

impl Copier {
    fn with(place: BorrowedFd<'_>, options: &Options<'_>) -> Result<Self> {
        let (owners, owner) = (options.owners.cloned(), options.owner);
        Ok(Self { owners, owner, ..Self::new(place, options.keep_free)? })
    }

    pub fn new(place: BorrowedFd<'_>, keep_free: u64) -> Result<Self> {
        let place = place.try_clone_to_owned().map_err(|source| Error::file("opening", b"/", source))?;
        let mut copier = Self { place, keep_free, unchecked: 0, shares: true, owners: None, owner: None };
        copier.check_space()?;
        Ok(copier)
    }

    /// Copies what is no directory.
    pub fn file(&mut self, from: BorrowedFd<'_>, name: &CStr, stat: &Stat, to: &Spot<'_>) -> Result<()> {
        let failed = |error: Errno| Error::file("copying", to.path, error);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.regular(from, name, to),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed)?;
                rustix::fs::symlinkat(&*link, to.directory, to.name).map_err(failed)?;
            }
            kind => {
                #[expect(clippy::allow_attributes, reason = "the number's type differs between targets")]
                #[allow(clippy::unnecessary_cast, reason = "the number's type differs between targets")]
                let device = stat.st_rdev as _;
                rustix::fs::mknodat(to.directory, to.name, kind, Mode::empty(), device).map_err(failed)?;
            }
        }
        let (stat, kept) = self.owned(*stat, attributes::all(from, name)?, to.path)?;
        set_named(to, &stat, &kept).map_err(failed)
    }

    /// Makes a directory as the one that was found, and tells what it is; what is in it is not copied.
    fn directory(&self, here: &Opened, found: &Found, to: &Spot<'_>) -> Result<Stat> {
        let failed = |error: Errno| Error::file("copying", to.path, error);
        rustix::fs::mkdirat(to.directory, to.name, Mode::RWXU).map_err(failed)?;
        let made = crate::tree::open_directory(to.directory, to.name)
            .map_err(|source| Error::file("opening", to.path, source))?;
        let (stat, kept) = self.owned(found.stat, here.attributes(found, to.name)?, to.path)?;
        set_open(made.as_fd(), &stat, &kept).map_err(failed)?;
        Ok(stat)
    }

    /// What a copy gets for what its original has.
    fn owned(&self, mut stat: Stat, kept: Attributes, path: &[u8]) -> Result<(Stat, Attributes)> {
        (stat.st_uid, stat.st_gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        match &self.owners {
            None => Ok((stat, kept)),
            Some(ids) => Ok((owned::stat_outside(ids, stat, path)?, owned::outside(ids, kept))),
        }
    }

    fn regular(&mut self, from: BorrowedFd<'_>, name: &CStr, to: &Spot<'_>) -> Result<()> {
        let failed = |error: Errno| Error::file("copying", to.path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&source).map_err(failed)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to.directory, to.name, flags, Mode::RUSR | Mode::WUSR);
        let target = target.map_err(failed)?;
        self.contents(&source, &target, u64::try_from(stat.st_size).unwrap_or(0), to.path)?;
        let (stat, kept) = self.owned(stat, attributes::all(from, name)?, to.path)?;
        set_open(target.as_fd(), &stat, &kept).map_err(failed)?;
        rustix::fs::futimens(&target, &times(&stat)).map_err(failed)
    }

    /// Shares or copies contents; what was a hole stays one.
    fn contents(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64, path: &[u8]) -> Result<()> {
        let failed = |error: Errno| Error::file("copying", path, error);
        if size == 0 {
            return Ok(());
        }
        if self.shares {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // Other files may be shared for all that.
                Err(Errno::INVAL | Errno::TXTBSY) => {}
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS | Errno::PERM) => {
                    self.shares = false;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        rustix::fs::ftruncate(to, size).map_err(failed)?;
        let mut at = 0;
        while at < size {
            at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => at,
                Err(error) => return Err(failed(error)),
            };
            let end = match rustix::fs::seek(from, SeekFrom::Hole(at)) {
                Ok(hole) => hole.min(size),
                Err(Errno::INVAL | Errno::NXIO) => size,
                Err(error) => return Err(failed(error)),
            };
            while at < end {
                let piece = (end - at).min(CHECK_EVERY);
                self.account(piece)?;
                match transfer(from, to, at, piece).map_err(failed)? {
                    0 => return Ok(()),
                    done => at += done,
                }
            }
        }
        Ok(())
    }

    fn account(&mut self, bytes: u64) -> Result<()> {
        self.unchecked += bytes;
        if self.unchecked >= CHECK_EVERY { self.check_space() } else { Ok(()) }
    }

    fn check_space(&mut self) -> Result<()> {
        self.unchecked = 0;
        if self.keep_free == 0 {
            return Ok(());
        }
        let stat =
            rustix::fs::fstatvfs(&self.place).map_err(|error| Error::file("examining", b"/", error))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.keep_free { Err(Error::DiskFull { free, keep: self.keep_free }) } else { Ok(()) }
    }
}

/// Copies at most so many bytes at an offset; none means that the file has become shorter.
fn transfer(from: &OwnedFd, to: &OwnedFd, at: u64, bytes: u64) -> Result<u64, Errno> {
    let (mut source, mut target) = (at, at);
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
        Ok(done) if done > 0 => return Ok(done as u64),
        Ok(_) | Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let mut buffer = vec![0; BUFFER.min(length)];
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer, at))?;
    let mut written = 0;
    while written < read {
        let rest = &buffer[written..read];
        written += rustix::io::retry_on_intr(|| rustix::io::pwrite(to, rest, at + written as u64))?;
    }
    Ok(read as u64)
}

fn link(root: BorrowedFd<'_>, first: &[u8], target: &OwnedFd, name: &CStr, path: &[u8]) -> Result<()> {
    let (folder, last) = match first.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&first[..slash], &first[slash + 1..]),
        None => (&b""[..], first),
    };
    let folder = beneath(root, folder)?;
    rustix::fs::linkat(&folder, OsStr::from_bytes(last), target, name, AtFlags::empty())
        .map_err(|error| Error::file("linking", path, error))
}

fn beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(root, path).map_err(|error| Error::file("opening", path, error))
}

type Kept = [(Vec<u8>, Vec<u8>)];

/// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities too).
fn set_open(to: BorrowedFd<'_>, stat: &Stat, kept: &Kept) -> Result<(), Errno> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in kept {
        tolerate(rustix::fs::fsetxattr(to, OsStr::from_bytes(name), value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// The same, and the times, for what cannot be opened without effects. The name was just made in a directory of ours.
fn set_named(to: &Spot<'_>, stat: &Stat, kept: &Kept) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to.directory, to.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(to.directory, to.name, mode, AtFlags::empty())?;
    }
    if !kept.is_empty() {
        let path = [proc_path(to.directory).as_bytes(), b"/", to.name.to_bytes()].concat();
        for (name, value) in kept {
            let name = OsStr::from_bytes(name);
            tolerate(rustix::fs::lsetxattr(OsStr::from_bytes(&path), name, value, XattrFlags::empty()))?;
        }
    }
    rustix::fs::utimensat(to.directory, to.name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// What the file system cannot keep, the layer there does not have either; another one may.
fn tolerate(set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

fn set_times(directory: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Result<()> {
    rustix::fs::futimens(directory, &times(stat))
        .map_err(|error| Error::file("setting the times of", path, error))
}

/// Access and modification time.
#[expect(clippy::allow_attributes, reason = "the numbers' types differ between targets")]
#[allow(clippy::unnecessary_cast, reason = "the numbers' types differ between targets")]
pub(crate) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::path::Path;

    use super::*;

    fn view(path: &Path) -> Overlay {
        Overlay::open_marked([(path, Marks::Whole { made: None })]).unwrap()
    }

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn files_get_one_more_name_where_nothing_is_to_change() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("d/left-out")).unwrap();
        fs::create_dir(&to).unwrap();
        for name in ["same", "owned", "d/same", "d/left-out/x"] {
            fs::write(from.join(name), name).unwrap();
        }
        fs::set_permissions(from.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
        chown(from.join("owned"), Some(7), Some(8)).unwrap();
        chown(from.join("d"), Some(7), Some(8)).unwrap();
        fs::hard_link(from.join("owned"), from.join("owned-too")).unwrap();
        symlink("same", from.join("link")).unwrap();
        let root = fs::metadata(&to).unwrap();

        let skip = |path: &[u8]| path == b"d/left-out";
        let options = Options { owner: Some((0, 0)), link: true, skip: Some(&skip), ..Options::default() };
        copy_contents(&view(&from), open(&to).as_fd(), &options).unwrap();
        let about = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        let original = |path: &str| fs::symlink_metadata(from.join(path)).unwrap();
        for name in ["same", "d/same"] {
            assert_eq!(about(name).ino(), original(name).ino(), "{name}");
        }
        let second = temp.path().join("second");
        fs::create_dir(&second).unwrap();
        copy_contents(&view(&from), open(&second).as_fd(), &options).unwrap();
        assert_ne!(fs::metadata(second.join("same")).unwrap().ino(), original("same").ino());
        assert_eq!((about("owned").uid(), original("owned").uid()), (0, 7));
        assert_ne!(about("owned").ino(), original("owned").ino());
        assert_eq!(about("owned").ino(), about("owned-too").ino());
        assert_eq!((about("d").mode() & 0o777, about("d").uid()), (0o750, 0));
        assert_eq!(about("d").mtime(), original("d").mtime());
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("same"));
        assert!(!to.join("d/left-out").exists());
        assert_eq!(fs::metadata(&to).unwrap().mode(), root.mode());
    }

    #[test]
    fn a_copy_that_nobody_wants_ends() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        for directory in [&from, &to] {
            fs::create_dir(directory).unwrap();
        }
        for name in ["a", "b", "c"] {
            fs::write(from.join(name), name).unwrap();
        }
        let left = std::cell::Cell::new(2);
        let go_on = || left.replace(left.get() - 1) > 0;
        let options = Options { go_on: Some(&go_on), ..Options::default() };
        let error = copy_contents(&view(&from), open(&to).as_fd(), &options).unwrap_err();
        assert!(
            matches!(error, Error::File { source, .. } if Errno::from_io_error(&source) == Some(Errno::CANCELED))
        );
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
    }

    #[test]
    fn a_mark_of_a_removed_name_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        for directory in [&from, &to] {
            fs::create_dir(directory).unwrap();
        }
        let kind = FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, from.join("gone"), kind, Mode::empty(), 0).unwrap();
        let options = Options { link: true, ..Options::default() };
        let error = copy_contents(&view(&from), open(&to).as_fd(), &options).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
