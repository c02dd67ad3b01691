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
        let is_same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(entry.size());
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
    for (offset, length) in entry.segments() {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use rustix::fs::XattrFlags;

    use super::*;
    use crate::extract::{Extracted, Extractor, Options};
    use crate::overlay::Overlay;
    use crate::pack::layer;

    fn directory(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    /// Seven seconds and a half after the epoch.
    fn at_seven(path: &Path) {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::from_millis(7500))
            .unwrap();
    }

    fn tar(upper: &Path, lower: &Path, latest: Option<i64>) -> Vec<u8> {
        let (upper, lower) = (Overlay::open([upper]).unwrap(), Overlay::open([lower]).unwrap());
        let mut tar = Vec::new();
        layer::pack(&upper, &lower, &layer::Options { latest, ..Default::default() }, &mut tar).unwrap();
        tar
    }

    fn extract(tar: &[u8], to: &Path, origin: Option<&Path>) -> Extracted {
        fs::create_dir(to).unwrap();
        let record = File::create(to.with_extension("record")).unwrap();
        let mut extractor = Extractor::new(directory(to), Options::default()).record(record);
        if let Some(origin) = origin {
            extractor = extractor.take_over(directory(origin));
        }
        extractor.layer(tar).unwrap()
    }

    fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(path, name, &mut value[..]).ok().map(|length| value[..length].to_vec())
    }

    #[test]
    fn what_is_taken_over_is_what_would_have_been_written() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["lower", "upper", "upper/d", "elsewhere"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["upper/d/plain", "upper/d/first", "upper/setuid", "elsewhere/shared"] {
            fs::write(path(name), name.repeat(1000)).unwrap();
        }
        fs::set_permissions(path("upper/setuid"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(path("upper/d/first"), path("upper/second")).unwrap();
        fs::hard_link(path("elsewhere/shared"), path("upper/shared")).unwrap();
        symlink("d/plain", path("upper/link")).unwrap();
        let sparse = File::create(path("upper/sparse")).unwrap();
        sparse.write_all_at(b"end", 5 << 20).unwrap();
        for (name, value) in [("trusted.overlay.origin", "no"), ("user.kept", "yes")] {
            rustix::fs::setxattr(path("upper/d/plain"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
        }
        for name in ["upper/d/plain", "upper/d/first", "upper/shared"] {
            at_seven(&path(name));
        }

        let tar = tar(&path("upper"), &path("lower"), None);
        let written = extract(&tar, &path("written"), None);
        let taken = extract(&tar, &path("taken"), Some(&path("upper")));
        assert_eq!((&taken.diff_id, taken.content), (&written.diff_id, written.content));
        let mut again = Vec::new();
        let mut record = File::open(path("taken.record")).unwrap();
        crate::meta::rebuild(&mut record, directory(&path("taken")).as_fd(), temp.path(), &mut again)
            .unwrap();
        assert!(again == tar, "the tar comes back");
        let number = |name: &str| fs::symlink_metadata(path(name)).unwrap().ino();
        for name in ["d/plain", "d/first", "second", "setuid", "shared", "sparse"] {
            assert_eq!(number(&format!("taken/{name}")), number(&format!("upper/{name}")), "{name}");
            let [taken, written] = ["taken", "written"].map(|root| path(root).join(name));
            assert!(fs::read(&taken).unwrap() == fs::read(&written).unwrap(), "{name}");
            let [taken, written] = [taken, written].map(|file| fs::metadata(file).unwrap());
            assert_eq!((taken.mode(), taken.mtime()), (written.mode(), written.mtime()), "{name}");
        }
        let plain = path("taken/d/plain");
        assert_eq!(fs::metadata(&plain).unwrap().mtime_nsec(), 0);
        assert_eq!(attribute(&plain, "user.kept").as_deref(), Some(&b"yes"[..]));
        assert_eq!(attribute(&plain, "trusted.overlay.origin"), None);
        assert_eq!(fs::metadata(path("elsewhere/shared")).unwrap().mtime_nsec(), 500_000_000);
    }

    #[test]
    fn what_somebody_else_has_too_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["lower", "upper"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("shared"), "x").unwrap();
        fs::hard_link(path("shared"), path("upper/shared")).unwrap();
        fs::write(path("other"), "y").unwrap();
        rustix::fs::setxattr(path("other"), "trusted.overlay.origin", b"no", XattrFlags::empty()).unwrap();
        fs::hard_link(path("other"), path("upper/other")).unwrap();
        at_seven(&path("shared"));
        let tar = tar(&path("upper"), &path("lower"), Some(5));
        extract(&tar, &path("taken"), Some(&path("upper")));
        let about = |name: &str| fs::metadata(path(name)).unwrap();
        assert_eq!((about("taken/shared").mtime(), about("shared").mtime()), (5, 7));
        assert_ne!(about("taken/other").ino(), about("other").ino());
        assert!(attribute(&path("other"), "trusted.overlay.origin").is_some());
        assert!(attribute(&path("taken/other"), "trusted.overlay.origin").is_none());
    }

    #[test]
    fn a_file_that_is_not_there_or_not_the_same_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["lower", "upper", "other"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["missing", "longer", "link", "below/deep"] {
            fs::create_dir_all(path("upper").join(name).parent().unwrap()).unwrap();
            fs::write(path("upper").join(name), name).unwrap();
        }
        fs::write(path("other/longer"), "something else").unwrap();
        symlink("longer", path("other/link")).unwrap();
        symlink("../upper/below", path("other/below")).unwrap();
        let tar = tar(&path("upper"), &path("lower"), None);
        extract(&tar, &path("taken"), Some(&path("other")));
        for name in ["missing", "longer", "link", "below/deep"] {
            assert_eq!(fs::read_to_string(path("taken").join(name)).unwrap(), name);
            assert_eq!(fs::symlink_metadata(path("taken").join(name)).unwrap().nlink(), 1);
        }
    }
}
