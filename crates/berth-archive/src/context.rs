//! Tar out of a build context: the files of a directory that patterns do not leave out.
//!
//! Everything is root's in it, as builders expect; modes, times, capabilities, symbolic and hard links are as they are.

mod listing;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use std::io::Write;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::copy::enter;
use crate::ignore::{Ignore, Inherited};
use crate::overlay::{Found, Opened, join};
use crate::pack::{Entries, Packer};
use crate::{Error, Result};

pub use listing::{Listed, list};

/// A file of the context that the builder is to see instead of what the directory has under its name, or in addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// A name at the top.
    pub name: String,
    /// All of it.
    pub content: Vec<u8>,
}

/// Writes what is beneath `root` and not left out by `ignore`, then what of `inserts` has no place in it. Blocks; needs
/// memory for the names of the directories on the way to one file.
///
/// A directory that is left out is not written, though something in it may be. No symbolic link is followed. What vanishes
/// meanwhile is left out.
///
/// # Errors
/// File errors; a failed write. What was written is then no whole archive: it lacks its end.
pub fn pack(root: BorrowedFd<'_>, ignore: &Ignore, mut inserts: Vec<Insert>, out: impl Write) -> Result<()> {
    let mut packer = Packer::new(out, false).of_root();
    walk(root, ignore, &mut inserts, &mut packer)?;
    for insert in inserts {
        let mut stat = rustix::fs::fstat(root).map_err(|error| Error::file("examining", b".", error))?;
        stat.st_mode = 0o600;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        stat.st_mtime = i64::try_from(now).unwrap_or_default();
        packer.replaced(&stat, insert.name.as_bytes(), &insert.content)?;
    }
    packer.finish()
}

/// What becomes of the files that are found.
trait Sink {
    /// One that the context has.
    fn entry(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()>;
    /// One that is seen with other content.
    fn replaced(&mut self, stat: &Stat, path: &[u8], content: Vec<u8>) -> Result<()>;
    /// A directory that is left out, though something in it may not be.
    fn passed(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()>;
}

impl<W: Write> Sink for Packer<W> {
    fn entry(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()> {
        Packer::entry(self, here, name, found, path)
    }

    fn replaced(&mut self, stat: &Stat, path: &[u8], content: Vec<u8>) -> Result<()> {
        Packer::replaced(self, stat, path, &content)
    }

    fn passed(&mut self, _: &Opened, _: &CStr, _: &Found, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Goes through all files; what of `inserts` had its place is taken out.
fn walk(
    root: BorrowedFd<'_>,
    ignore: &Ignore,
    inserts: &mut Vec<Insert>,
    sink: &mut impl Sink,
) -> Result<()> {
    let mut levels = vec![Level { path: Vec::new(), inherited: None, left: None }];
    while let Some(level) = levels.last_mut() {
        match level.advance(root, ignore, inserts, sink)? {
            Some(inside) => levels.push(inside),
            None => drop(levels.pop()),
        }
    }
    Ok(())
}

/// A directory on the way down. It is opened again after each one inside it: depth costs no descriptors.
struct Level {
    path: Vec<u8>,
    /// What the patterns say of it.
    inherited: Option<Inherited>,
    /// What is not yet written of it; none before it was listed.
    left: Option<Entries>,
}

impl Level {
    /// Writes what is left up to the first directory that may hold something, which is given, or to the end.
    fn advance(
        &mut self,
        root: BorrowedFd<'_>,
        ignore: &Ignore,
        inserts: &mut Vec<Insert>,
        sink: &mut impl Sink,
    ) -> Result<Option<Level>> {
        let here = match enter(root.as_fd(), &self.path) {
            Ok(here) => Opened::plain(here),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(Error::file("opening", &self.path, error)),
        };
        let left = match &mut self.left {
            Some(left) => left,
            none => {
                let mut entries = here.raw_entries()?;
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                none.insert(entries.into_iter())
            }
        };
        for (name, found) in left {
            let path = join(&self.path, name.to_bytes());
            let text = String::from_utf8_lossy(&path);
            let (left_out, inherited) = ignore.matches_below(&text, self.inherited.as_ref());
            let is_directory = found.kind() == FileType::Directory;
            if left_out && !(is_directory && ignore.may_except_below(&text)) {
                continue;
            }
            let insert = inserts.iter().position(|insert| insert.name == text);
            match insert.filter(|_| found.kind() == FileType::RegularFile) {
                Some(at) => sink.replaced(&found.stat, &path, inserts.remove(at).content)?,
                None if left_out => sink.passed(&here, &name, &found, &path)?,
                None => sink.entry(&here, &name, &found, &path)?,
            }
            if is_directory {
                return Ok(Some(Level { path, inherited: Some(inherited), left: None }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::path::Path;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    fn packed(root: &Path, patterns: &[&str], inserts: Vec<Insert>) -> Vec<u8> {
        let directory = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut out = Vec::new();
        pack(directory.as_fd(), &Ignore::new(patterns).unwrap(), inserts, &mut out).unwrap();
        out
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| String::from_utf8_lossy(&entry.path_bytes()).into_owned()).collect()
    }

    fn tree(root: &Path, files: &[&str]) {
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), file).unwrap();
        }
    }

    #[test]
    fn patterns_leave_files_out_and_exceptions_bring_them_back() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["Dockerfile", "a/x.log", "a/x.txt", "a/b/keep", "a/b/c/d", "node/m/i", "z"]);
        let all = [
            "Dockerfile",
            "a/",
            "a/b/",
            "a/b/c/",
            "a/b/c/d",
            "a/b/keep",
            "a/x.log",
            "a/x.txt",
            "node/",
            "node/m/",
            "node/m/i",
            "z",
        ];
        assert_eq!(names(&packed(temp.path(), &[], vec![])), all);
        assert_eq!(
            names(&packed(temp.path(), &["**/*.log", "node"], vec![])),
            ["Dockerfile", "a/", "a/b/", "a/b/c/", "a/b/c/d", "a/b/keep", "a/x.txt", "z"]
        );
        assert_eq!(names(&packed(temp.path(), &["*", "!a/b/keep", "!z"], vec![])), ["a/b/keep", "z"]);
        assert_eq!(names(&packed(temp.path(), &["a", "!a/b"], vec![]))[1..4], ["a/b/", "a/b/c/", "a/b/c/d"]);
        assert!(names(&packed(temp.path(), &["*"], vec![])).is_empty());
    }

    #[test]
    fn owners_are_root_and_the_rest_is_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["tool", "sub/file"]);
        let _ = chown(temp.path().join("tool"), Some(1000), Some(1001));
        fs::set_permissions(temp.path().join("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(temp.path().join("tool"), temp.path().join("twin")).unwrap();
        symlink("/etc", temp.path().join("way out")).unwrap();
        symlink("nowhere", temp.path().join("dangling")).unwrap();
        let tar = packed(temp.path(), &[], vec![]);
        assert_eq!(names(&tar), ["dangling", "sub/", "sub/file", "tool", "twin", "way out"]);
        let mut archive = tar::Archive::new(tar.as_slice());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            match &*entry.path().unwrap().display().to_string() {
                "tool" => assert_eq!(header.mode().unwrap(), 0o4751),
                "twin" => {
                    assert_eq!((header.entry_type(), link.unwrap()), (tar::EntryType::Link, "tool".into()))
                }
                "way out" => assert_eq!(link.unwrap(), "/etc"),
                _ => {}
            }
        }
    }

    #[test]
    fn inserted_files_take_their_place_or_come_last() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &[".dockerignore", "z"]);
        fs::set_permissions(temp.path().join(".dockerignore"), fs::Permissions::from_mode(0o640)).unwrap();
        let insert =
            |name: &str| Insert { name: name.to_owned(), content: format!("new {name}").into_bytes() };
        let tar = packed(temp.path(), &[], vec![insert(".dockerfile.1"), insert(".dockerignore")]);
        let mut found = Vec::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.push((content, entry.header().mode().unwrap() & 0o777));
        }
        let mode = |name: &str| fs::metadata(temp.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            found,
            [
                ("new .dockerignore".into(), 0o640),
                ("z".into(), mode("z")),
                ("new .dockerfile.1".into(), 0o600)
            ]
        );
    }
}
