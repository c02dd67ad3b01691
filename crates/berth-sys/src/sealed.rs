//! A copy of the own executable that nothing can write to or unwrap.
//!
//! A process inside a container can open `/proc/<pid>/exe` of whatever enters it, and write to the file once no process
//! runs it any more (CVE-2019-5736). What enters containers therefore runs from a read-only overlay that has
//! lower directories only: it has no upper to copy up to, and no other name leads to it. Where the kernel refuses
//! that, the bytes are copied to a sealed memfd.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::mount::{Parameter, attr, new_filesystem};
use crate::process::{CStrings, execve_fd};

/// How an executable is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file on a detached read-only overlay; its pages are shared with the original.
    Overlay,
    /// A sealed memfd: a copy in memory.
    Memfd,
}

/// An executable that cannot be changed by anyone.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    kind: Kind,
}

impl Sealed {
    /// Seals the executable of the calling process.
    ///
    /// Needs `CAP_SYS_ADMIN` for the overlay; without it, or where the kernel refuses, memory is used.
    pub fn own_binary() -> io::Result<Self> {
        let path = std::fs::read_link("/proc/self/exe")?;
        if let Ok(file) = overlay(&path) {
            // The name may have been given to another file since the process started.
            if is_same_file(&file, Path::new("/proc/self/exe"))? {
                return Ok(Self { file, kind: Kind::Overlay });
            }
        }
        let mut own = File::open("/proc/self/exe")?;
        let memfd = new_memfd("berth", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut copy = File::from(memfd);
        io::copy(&mut own, &mut copy)?;
        Ok(Self { file: seal(copy.into())?, kind: Kind::Memfd })
    }

    /// Copies `program` to a sealed memfd called `name`.
    pub fn from_bytes(name: &str, program: &[u8]) -> io::Result<Self> {
        let memfd = new_memfd(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let file = File::from(memfd);
        file.write_all_at(program, 0)?;
        Ok(Self { file: seal(file.into())?, kind: Kind::Memfd })
    }

    /// How it is protected.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A path by which the calling process (and a child before its `execve`) can execute it, such as with
    /// `std::process::Command`. The descriptor itself is close-on-exec.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string())
    }

    /// Replaces the calling process by it, with the present environment; returns only on failure.
    pub fn execute(&self, argv: &[OsString]) -> io::Error {
        let env = std::env::vars_os().map(|(key, value)| {
            let mut entry = key;
            entry.push("=");
            entry.push(value);
            entry
        });
        match (
            CStrings::convert(argv.iter().map(|argument| argument.as_bytes())),
            CStrings::convert(env.map(|entry| entry.as_bytes().to_vec())),
        ) {
            (Ok(argv), Ok(env)) => execve_fd(&self.file, &argv, &env),
            (Err(error), _) | (_, Err(error)) => error,
        }
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Sealed> for OwnedFd {
    fn from(sealed: Sealed) -> Self {
        sealed.file
    }
}

/// A detached read-only overlay over the directory of `program`; returns the file in it.
fn overlay(program: &Path) -> io::Result<OwnedFd> {
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // An overlay without an upper directory wants two lower ones, and neither may contain the other.
    let empty = new_filesystem("tmpfs", &[], attr::RDONLY)?;
    let second = Path::new("/proc/self/fd").join(empty.as_raw_fd().to_string());
    // With `xino=off` the inode number stays the original's, which is compared later.
    let xino = Parameter::value("xino", "off")?;
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV;
    let lower = |path: &Path| Parameter::value("lowerdir+", path.as_os_str().as_bytes());
    let parameters = [lower(directory)?, lower(&second)?, xino.clone()];
    let mount = new_filesystem("overlay", &parameters, attributes).or_else(|_| {
        // Before Linux 6.8 there is one list only.
        let list = [escape(directory.as_os_str()), escape(second.as_os_str())].join(&b':');
        new_filesystem("overlay", &[Parameter::value("lowerdir", list)?, xino], attributes)
    })?;
    Ok(rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Escapes a path for the colon-separated list of `lowerdir`.
fn escape(path: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        if matches!(byte, b':' | b'\\' | b',') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// Whether the overlay's file is the running one. Device numbers differ on an overlay; inode, size and time do not.
fn is_same_file(file: &OwnedFd, original: &Path) -> io::Result<bool> {
    let sealed = rustix::fs::fstat(file)?;
    let running = rustix::fs::stat(original)?;
    Ok(sealed.st_ino == running.st_ino
        && sealed.st_size == running.st_size
        && sealed.st_mtime == running.st_mtime
        && sealed.st_mtime_nsec == running.st_mtime_nsec)
}

fn new_memfd(name: &str, flags: MemfdFlags) -> io::Result<OwnedFd> {
    // Newer kernels want executability said; older ones do not know the flag.
    match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

/// Seals a memfd and returns it opened read-only, so that it can be executed.
fn seal(memfd: OwnedFd) -> io::Result<OwnedFd> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fchmod(&memfd, Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(&memfd, seals)?;
    let path = Path::new("/proc/self/fd").join(memfd.as_raw_fd().to_string());
    // A descriptor that is open for writing makes execve fail with ETXTBSY.
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn refuses_writing(sealed: &Sealed) {
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC] {
            let opened = rustix::fs::open(sealed.path(), flags | OFlags::CLOEXEC, Mode::empty());
            if let Ok(file) = opened {
                // A memfd may be opened; its seals refuse the write itself.
                assert!(rustix::io::write(&file, b"x").is_err());
            }
        }
    }

    #[test]
    fn r1_own_binary_cannot_be_written() {
        let sealed = Sealed::own_binary().unwrap();
        assert_eq!(sealed.kind(), Kind::Overlay);
        refuses_writing(&sealed);
    }

    #[test]
    fn r1_memfd_cannot_be_written() {
        let program = std::fs::read("/bin/busybox").or_else(|_| std::fs::read("/bin/true")).unwrap();
        let sealed = Sealed::from_bytes("test", &program).unwrap();
        refuses_writing(&sealed);
        let status = Command::new(sealed.path()).arg("true").status().unwrap();
        assert!(status.code().is_some());
    }

    #[test]
    fn the_sealed_binary_runs() {
        let sealed = Sealed::own_binary().unwrap();
        let output = Command::new(sealed.path()).arg("--list").output().unwrap();
        assert!(output.status.success());
    }

    #[test]
    fn separators_are_escaped() {
        assert_eq!(escape(OsStr::new("/a:b,c\\d")), b"/a\\:b\\,c\\\\d");
    }
}
