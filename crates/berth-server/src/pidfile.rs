//! The file with the daemon's process ID.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The file, held and locked. Dropping it removes the file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

/// The file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A daemon that lives has it.
    #[error("process with PID {pid} is still running (from {path})")]
    Running {
        /// The file.
        path: PathBuf,
        /// What it says.
        pid: i32,
    },
    /// A system call failed.
    #[error("pidfile {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl PidFile {
    /// Writes this process's ID to `path`. Refuses if a living daemon has the file: one that holds its lock, or,
    /// for daemons that do not lock, a process with that ID and a daemon's name.
    pub fn create(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        let pid = read(&mut file).map_err(failed)?;
        match locked {
            Err(Errno::WOULDBLOCK) => {
                return Err(PidFileError::Running { path: path.to_owned(), pid: pid.unwrap_or(0) });
            }
            Err(error) => return Err(failed(error.into())),
            Ok(()) => {}
        }
        if let Some(pid) = pid.filter(|pid| is_daemon(*pid)) {
            return Err(PidFileError::Running { path: path.to_owned(), pid });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let same = |a: fs::Metadata, b: fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
        let ours = match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(held), Ok(named)) => same(held, named),
            _ => false,
        };
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the pidfile stays behind");
        }
    }
}

/// The ID that the file holds, if it holds one.
fn read(file: &mut File) -> io::Result<Option<i32>> {
    let mut bytes = Vec::new();
    Read::by_ref(file).take(32).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().parse().ok().filter(|pid| *pid > 0))
}

/// True if the process lives, is not this one, and is a daemon by its name: after a reboot the ID may be anyone's.
fn is_daemon(pid: i32) -> bool {
    let alive = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH));
    if !alive || pid.unsigned_abs() == std::process::id() {
        return false;
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(name.trim(), "dockerd" | "berth")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/daemon.pid");
        let held = PidFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        let error = PidFile::create(&path).unwrap_err();
        assert!(
            matches!(error, PidFileError::Running { pid, .. } if pid.unsigned_abs() == std::process::id())
        );
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.pid");
        // Process 1 lives, but is no daemon of ours; the others cannot be processes.
        for stale in ["1", "999999999", "garbage", ""] {
            fs::write(&path, stale).unwrap();
            drop(PidFile::create(&path).unwrap());
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "precious").unwrap();
        let path = directory.path().join("daemon.pid");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(PidFile::create(&path), Err(PidFileError::Io { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }
}
