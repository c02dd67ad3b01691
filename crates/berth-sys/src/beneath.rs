//! Paths inside a directory tree that somebody else controls: every walk starts at a descriptor and cannot leave it.
//!
//! Symlinks, absolute ones too, resolve inside the root; magic links of procfs are refused (openat2(2)).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Most symlinks that one walk follows, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens `path` inside `root`. `O_CLOEXEC` is always set.
///
/// The last component's symlink is followed (in-root) unless `flags` has `O_NOFOLLOW`.
pub fn open(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // EAGAIN: a rename or mount happened during a walk through `..`, and the kernel could not be sure.
    for _ in 0..128 {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens `path` inside `root` as a location (`O_PATH`), symlinks followed in-root.
pub fn open_path(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH, Mode::empty())
}

/// Opens a regular file inside `root` for reading. Anything else fails: a FIFO or device is never waited for (R26).
pub fn open_regular(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// The directory `path` inside `root`, as a location; missing parts are made with `mode` (less the umask).
///
/// A dangling symlink on the way is resolved in-root, and what it points to is made.
pub fn make_directories(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    make_directories_with(root, path, mode, |_| Ok(()))
}

/// As [`make_directories`]; `made` is called with a location of every directory that was new, such as to give it an owner.
pub fn make_directories_with(
    root: impl AsFd,
    path: &Path,
    mode: Mode,
    mut made: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    match open(&root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let mut walk = Walk::new(root.as_fd(), path)?;
    while let Some(name) = walk.next() {
        walk.enter(&name, |directory, name| {
            match rustix::fs::mkdirat(directory, name, mode) {
                Err(Errno::EXIST) => return Ok(()),
                other => other?,
            }
            let new = rustix::fs::openat(
                directory,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            made(new.as_fd())
        })?;
    }
    walk.into_directory()
}

/// What is at `path` inside `root`, as a location; if nothing is, an empty regular file is made there, with missing parents.
pub fn make_file(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    match open_path(&root, path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let mut walk = Walk::new(root.as_fd(), path)?;
    while let Some(name) = walk.next() {
        let last = walk.is_empty();
        if !last {
            walk.enter(&name, |directory, name| {
                match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => Ok(()),
                    other => Ok(other?),
                }
            })?;
            continue;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(walk.directory(), &name, flags, mode) {
            Ok(file) => return Ok(file),
            Err(Errno::EXIST) => {
                if !walk.follow(&name)? {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    return Ok(rustix::fs::openat(walk.directory(), &name, flags, Mode::empty())?);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    // The path ended in a directory (`/`, `..` or a link to one).
    walk.into_directory()
}

/// A walk by components that keeps every directory it passed, so that `..` needs no name and cannot leave the root.
struct Walk {
    directories: Vec<OwnedFd>,
    remaining: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(root: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        let mut walk =
            Self { directories: vec![root.try_clone_to_owned()?], remaining: Vec::new(), links: 0 };
        walk.push(path.as_os_str());
        Ok(walk)
    }

    fn push(&mut self, path: &OsStr) {
        let components = path.as_bytes().split(|byte| *byte == b'/').rev();
        self.remaining.extend(
            components.filter(|c| !c.is_empty() && *c != b".").map(|c| OsStr::from_bytes(c).to_os_string()),
        );
    }

    fn is_empty(&self) -> bool {
        self.remaining.is_empty()
    }

    fn directory(&self) -> BorrowedFd<'_> {
        // The first is the root, and `..` never removes it.
        self.directories[self.directories.len() - 1].as_fd()
    }

    fn into_directory(mut self) -> io::Result<OwnedFd> {
        let last = self.directories.pop();
        last.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The next name; `..` is handled here.
    fn next(&mut self) -> Option<OsString> {
        while let Some(name) = self.remaining.pop() {
            if name != ".." {
                return Some(name);
            }
            if self.directories.len() > 1 {
                self.directories.pop();
            }
        }
        None
    }

    /// If `name` is a symlink, puts its target before the remaining names and returns true.
    fn follow(&mut self, name: &OsStr) -> io::Result<bool> {
        let target = match rustix::fs::readlinkat(self.directory(), name, Vec::new()) {
            Ok(target) => OsString::from_vec(target.into_bytes()),
            Err(Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.as_bytes().starts_with(b"/") {
            self.directories.truncate(1);
        }
        self.push(&target);
        Ok(true)
    }

    /// Goes into `name`, following it if it is a symlink, calling `make` if it is missing.
    fn enter(
        &mut self,
        name: &OsStr,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> io::Result<()>,
    ) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..2 {
            match rustix::fs::openat(self.directory(), name, flags, Mode::empty()) {
                Ok(directory) => {
                    self.directories.push(directory);
                    return Ok(());
                }
                Err(Errno::NOENT) => make(self.directory(), name)?,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    if self.follow(name)? {
                        return Ok(());
                    }
                    return Err(Errno::NOTDIR.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::NOENT.into())
    }
}

/// Removes a name inside `root`, not following it; a missing one is no error.
pub fn unlink(root: impl AsFd, path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = open_path(root, path.parent().unwrap_or(Path::new("")))?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("root")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(temp.path().join("root"), flags, Mode::empty()).unwrap();
        (temp, fd)
    }

    #[test]
    fn directories_are_made_behind_dangling_links_inside_the_root() {
        let (temp, fd) = root();
        let inside = temp.path().join("root");
        symlink("/../../elsewhere/deep", inside.join("link")).unwrap();
        make_directories(&fd, Path::new("/link/x/../y"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(inside.join("elsewhere/deep/y").is_dir());
        assert!(!temp.path().join("elsewhere").exists());
    }

    #[test]
    fn files_are_made_where_a_dangling_link_points() {
        let (temp, fd) = root();
        let inside = temp.path().join("root");
        fs::create_dir(inside.join("etc")).unwrap();
        symlink("../run/stub.conf", inside.join("etc/resolv.conf")).unwrap();
        make_file(&fd, Path::new("/etc/resolv.conf"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(inside.join("run/stub.conf").is_file());
    }

    #[test]
    fn parents_above_the_root_stay_in_it() {
        let (temp, fd) = root();
        make_directories(&fd, Path::new("../../a"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(temp.path().join("root/a").is_dir());
        make_file(&fd, Path::new("../../b/../f"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(temp.path().join("root/f").is_file());
    }

    #[test]
    fn loops_end() {
        let (temp, fd) = root();
        symlink("b", temp.path().join("root/a")).unwrap();
        symlink("a", temp.path().join("root/b")).unwrap();
        let error = make_directories(&fd, Path::new("a/x"), Mode::from_raw_mode(0o755)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn r26_a_fifo_is_refused_and_not_waited_for() {
        let (temp, fd) = root();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            temp.path().join("root/passwd"),
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert!(open_regular(&fd, Path::new("passwd")).is_err());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (temp, fd) = root();
        fs::write(temp.path().join("root/file"), b"").unwrap();
        assert!(make_directories(&fd, Path::new("file/x"), Mode::from_raw_mode(0o755)).is_err());
    }
}
