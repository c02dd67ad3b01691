//! Where a path leads inside a root, and what is there.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::path;

/// Links followed at most, as in the kernel.
const LINKS_MAX: usize = 40;

/// What stands at a path.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub stat: Stat,
    /// A location of it (`O_PATH`).
    location: OwnedFd,
}

impl Found {
    /// The kind of file.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A location of it (`O_PATH`).
    #[must_use]
    pub fn location(&self) -> BorrowedFd<'_> {
        self.location.as_fd()
    }
}

/// What `path` names inside `root`, as `lstat` sees it: a symbolic link itself, unless a slash or a dot follows it.
///
/// # Errors
/// As `openat2`; `ENOTDIR` if a slash follows what is no directory.
pub fn look(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Found> {
    let location = opened(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    Ok(Found { stat: rustix::fs::fstat(&location)?, location })
}

/// Opens `path` inside `root`; only for directories, and for locations.
///
/// # Errors
/// As `openat2`.
pub fn opened(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    beneath::open(root, Path::new(OsStr::from_bytes(path)), flags, Mode::empty())
}

/// The path without links, inside `root`, to which `path` leads. From where something is missing, it stays as named.
///
/// # Errors
/// File errors; `ELOOP` after 40 links.
pub fn follow(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let reversed = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (mut done, mut remaining, mut links) = (b"/".to_vec(), reversed(path), 0);
    while let Some(part) = remaining.pop() {
        let next = path::join(&done, &part);
        if part == b"." || part == b".." {
            done = next;
            continue;
        }
        let found = match look(root, &next) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => {
                done = next;
                continue;
            }
            Err(error) => return Err(error),
        };
        if found.kind() != FileType::Symlink {
            done = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(found.location(), c"", Vec::new()).map(CString::into_bytes)?;
        if target.starts_with(b"/") {
            done = b"/".to_vec();
        }
        remaining.extend(reversed(&target));
    }
    Ok(done)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("var/real")).unwrap();
        fs::write(root.join("var/real/file"), "x").unwrap();
        symlink("/var/real", root.join("absolute")).unwrap();
        symlink("../../../../var/./real/file", root.join("var/relative")).unwrap();
        symlink("nowhere/deep", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (temp, fd)
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let (_temp, root) = tree();
        let follow = |path: &str| String::from_utf8(follow(root.as_fd(), path.as_bytes()).unwrap()).unwrap();
        assert_eq!(follow("/absolute/file"), "/var/real/file");
        assert_eq!(follow("var/relative"), "/var/real/file");
        assert_eq!(follow("/dangling"), "/nowhere/deep");
        assert_eq!(follow("/absolute/../x"), "/var/x");
        assert_eq!(follow("/../.."), "/");
        assert!(super::follow(root.as_fd(), b"/loop").is_err());
    }

    #[test]
    fn a_link_is_seen_unless_a_slash_follows() {
        let (_temp, root) = tree();
        let kind = |path: &str| look(root.as_fd(), path.as_bytes()).map(|found| found.kind());
        assert_eq!(kind("/absolute").unwrap(), FileType::Symlink);
        assert_eq!(kind("/absolute/").unwrap(), FileType::Directory);
        assert_eq!(kind("/absolute/.").unwrap(), FileType::Directory);
        assert_eq!(kind("/absolute/file").unwrap(), FileType::RegularFile);
        assert_eq!(kind("/").unwrap(), FileType::Directory);
        assert_eq!(kind("/var/real/file/").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(kind("/dangling/").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(kind("/../../etc").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
