//! The data root: one private directory, one holder, directories of fixed names.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::{Error, Result};

/// Directories that every data root has, parents first. `layers/empty` is the lower layer of images without layers.
const DIRECTORIES: [&str; 12] = [
    "blobs",
    "blobs/sha256",
    "layers",
    "layers/empty",
    "layers/empty/fs",
    "containers",
    "volumes",
    crate::contexts::DIRECTORY,
    crate::build_caches::DIRECTORY,
    "staging",
    TRASH,
    // Docker's place for temporary files, where scripts and tests look; nothing is ever put there.
    "tmp",
];

/// Removed trees wait here for the housekeeper.
pub(crate) const TRASH: &str = "staging/trash";
/// Blobs that came in part.
pub(crate) const PARTIAL: &str = "staging/partial";
/// The name beside the chain IDs in `layers`.
pub(crate) const EMPTY_LAYER: &str = "empty";

/// The locked data root.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    /// Distinguishes names within `staging`.
    counter: AtomicU64,
    /// Holds the lock; closing it lets go.
    _lock: File,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = private_directory(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| Error::file("opening", &path, error))?;
        let lock = lock(&path)?;
        for name in DIRECTORIES.into_iter().chain([PARTIAL]) {
            match rustix::fs::mkdirat(&fd, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(Error::file("creating", name, error)),
            }
        }
        // The root directory of a container without layers.
        rustix::fs::chmodat(&fd, "layers/empty/fs", Mode::from_raw_mode(0o755), AtFlags::empty())
            .map_err(|error| Error::file("changing the mode of", "layers/empty/fs", error))?;
        Ok(Self { path, fd, counter: AtomicU64::new(0), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A name that is free in every directory of `staging`, which each start empties.
    pub(crate) fn unique(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let time = jiff::Timestamp::now().as_nanosecond();
        format!("{time:x}-{number}")
    }

    pub(crate) fn open_directory(&self, path: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, path, flags, Mode::empty())
            .map_err(|error| Error::file("opening", path, error))
    }

    /// Names in a directory of the root.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>> {
        let failed = |error: io::Error| Error::file("listing", path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path.join(path)).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Moves a path of the root into the trash; `false` if nothing is there.
    pub(crate) fn trash(&self, path: &str) -> Result<bool> {
        match rustix::fs::renameat(&self.fd, path, &self.fd, format!("{TRASH}/{}", self.unique())) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Error::file("moving to the trash", path, error)),
        }
    }

    /// Removes everything in the trash, and calls `go_on` before each tree. Blocks.
    pub(crate) fn empty_trash(&self, go_on: impl Fn() -> bool) -> Result<()> {
        let trash = self.open_directory(TRASH)?;
        for name in self.list(TRASH)? {
            if !go_on() {
                break;
            }
            let Ok(c_name) = CString::new(name.as_bytes()) else { continue };
            if let Err(error) = berth_archive::tree::remove(trash.as_fd(), &c_name) {
                tracing::warn!(%name, %error, "removing from the trash");
            }
        }
        Ok(())
    }

    /// Fails when less than `keep` bytes are free.
    pub(crate) fn check_space(&self, keep: u64) -> Result<()> {
        let free = self.free_bytes()?;
        if free < keep { Err(Error::DiskFull { free, keep }) } else { Ok(()) }
    }

    /// Free bytes of the file system.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let stat =
            rustix::fs::fstatvfs(&self.fd).map_err(|error| Error::file("examining", &self.path, error))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes of the whole file system.
    pub(crate) fn file_system_size(&self) -> Result<u64> {
        let stat =
            rustix::fs::fstatvfs(&self.fd).map_err(|error| Error::file("examining", &self.path, error))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

/// Makes sure that the root exists, is ours and lets nobody else in (R20), and returns its absolute path.
fn private_directory(path: &Path) -> Result<PathBuf> {
    let refused = |problem: &str| Error::RootRefused { root: path.to_owned(), problem: problem.to_owned() };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::file("creating", parent, error))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file("creating", path, error));
        }
        _ => {}
    }
    let given = fs::metadata(path).map_err(|error| Error::file("examining", path, error))?;
    let path = path.canonicalize().map_err(|error| Error::file("resolving", path, error))?;
    let metadata = fs::metadata(&path).map_err(|error| Error::file("examining", &path, error))?;
    if (given.dev(), given.ino()) != (metadata.dev(), metadata.ino()) {
        // A link of /proc may lead where no path does: what has the same name elsewhere is somebody else's.
        return Err(refused("it has no path of its own"));
    }
    if !metadata.is_dir() {
        return Err(refused("it is not a directory"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(&format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o7777 != 0o700 {
        tracing::warn!(root = %path.display(), mode = format!("{:o}", metadata.mode() & 0o7777), "data root was open to others; now 0700");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(|error| Error::file("changing the mode of", &path, error))?;
    }
    let mode = fs::metadata(&path).map_err(|error| Error::file("examining", &path, error))?.mode();
    if mode & 0o077 != 0 {
        return Err(refused("its file system does not keep permissions"));
    }
    Ok(path)
}

/// Takes the root's lock and leaves this process' number in it.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let failed = |operation| {
        let path = path.clone();
        move |error: io::Error| Error::file(operation, path, error)
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("opening"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The number is a courtesy; without it the error still tells the reason.
            let _ = file.read_to_string(&mut text);
            return Err(Error::RootInUse { root: root.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(error) => return Err(Error::file("locking", &path, error)),
    }
    file.set_len(0).map_err(failed("writing"))?;
    file.rewind().map_err(failed("writing"))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("writing"))?;
    Ok(file)
}
