//! What is recorded of a container: one directory for each, with `state.json` and the FIFO that `start` opens.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, FlockOperation, Mode};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::error::{Context, Error, Result};
use crate::cgroup::Manager;

/// What is written to `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub id: String,
    pub pid: i32,
    /// When the process started, in ticks since boot: its number alone may be another's one day.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub cgroup_path: PathBuf,
    pub config: Spec,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The directory of one container's state.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    id: String,
}

impl Directory {
    /// The directory of `id` beneath `root`, whether or not it exists.
    pub fn new(root: &Path, id: &str) -> Result<Self> {
        let valid = |character: char| character.is_ascii_alphanumeric() || "_+-.".contains(character);
        if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.chars().all(valid) {
            return Err(Error::InvalidId(id.to_owned()));
        }
        Ok(Self { path: root.join(id), id: id.to_owned() })
    }

    /// Makes it; the ID is taken by that. With `fifo` also the FIFO.
    pub fn make(&self, fifo: bool) -> Result<()> {
        if let Some(root) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(root).at("create", root)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(self.id.clone()));
            }
            other => other.at("create", &self.path)?,
        }
        if fifo {
            let path = self.fifo();
            let made = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
            made.at("create", &path)?;
        }
        Ok(())
    }

    /// The FIFO; it exists until the program is executed.
    pub fn fifo(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    /// Lets one command at a time change the container; until the descriptor is closed.
    pub fn lock(&self) -> Result<File> {
        let directory = self.existing(File::open(&self.path), "open")?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).at("lock", &self.path)?;
        Ok(directory)
    }

    /// Removes it and what is recorded in it.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path).at("remove", &self.path)
    }

    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    fn existing<T>(&self, result: io::Result<T>, action: &str) -> Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(self.id.clone())),
            other => other.at(action, &self.path),
        }
    }

    /// Reads what is recorded.
    pub fn read(&self) -> Result<State> {
        let path = self.path.join("state.json");
        let bytes = self.existing(fs::read(&path), "read")?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })
    }

    /// Records, so that a reader sees the old state or the new one.
    pub fn write(&self, state: &State) -> Result<()> {
        let path = self.path.join("state.json");
        let bytes = serde_json::to_vec(state).map_err(|source| Error::Json { path: path.clone(), source })?;
        replace_file(&path, &bytes)
    }
}

/// Writes a file under another name first, and renames it.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    // A reboot leaves no container to have a state: the order of the bytes and the rename is enough.
    let write = || -> io::Result<()> {
        File::create(&temporary)?.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.at("write", path)
}

/// IDs of the containers beneath `root`, in order.
pub(super) fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("read", root)?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names)
}

impl State {
    /// A descriptor of the first process, unless it has ended.
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at only now, when the number cannot go to another process any more.
        (start_time(self.pid) == Some(self.start_time) && !has_ended(&pidfd)).then_some(pidfd)
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> Result<Manager> {
        Ok(Manager::for_path(&self.cgroup_path.to_string_lossy())?)
    }

    pub fn status(&self, directory: &Directory) -> Result<Status> {
        if self.process().is_none() {
            return Ok(Status::Stopped);
        }
        // Without a freezer nothing is paused. A created container can be, and then cannot start.
        if self.cgroup()?.is_frozen().unwrap_or(false) {
            return Ok(Status::Paused);
        }
        Ok(if directory.fifo().exists() { Status::Created } else { Status::Running })
    }

    /// The state as the runtime specification defines it; `owner` and others are runc's additions.
    pub fn report(&self, status: &str) -> Report<'_> {
        Report {
            oci_version: self.config.version(),
            id: &self.id,
            pid: if status == "stopped" { 0 } else { self.pid },
            status: status.to_owned(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: self.config.annotations().as_ref(),
            owner: "root",
        }
    }

    /// The report in one line, as hooks read it.
    pub fn report_line(&self, status: &str) -> String {
        serde_json::to_string(&self.report(status)).unwrap_or_default()
    }
}

/// See [`State::report`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a HashMap<String, String>>,
    pub owner: &'static str,
}

/// When a process started, in ticks since boot (`/proc/PID/stat`, field 22).
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process has ended, reaped or not.
fn has_ended(pidfd: &OwnedFd) -> bool {
    await_end(pidfd, Duration::ZERO)
}

/// Waits for the end of a process; false if it has not come in time.
pub(super) fn await_end(pidfd: impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&timeout)))
        .is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_root() {
        let root = Path::new("/nowhere");
        for id in ["", ".", "..", "a/b", "a\n", "ä", &"x".repeat(256)] {
            assert!(matches!(Directory::new(root, id), Err(Error::InvalidId(_))), "{id:?}");
        }
        assert!(Directory::new(root, "a_b+c-d.0").is_ok());
    }

    #[test]
    fn an_id_is_taken_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::new(&temp.path().join("a/b"), "x").unwrap();
        assert!(matches!(directory.read(), Err(Error::NotFound(_))));
        directory.make(true).unwrap();
        assert!(matches!(directory.make(true), Err(Error::Exists(_))));
        assert!(directory.fifo().exists());
        assert_eq!(ids(&temp.path().join("a/b")).unwrap(), ["x"]);
        directory.remove().unwrap();
        assert!(ids(&temp.path().join("a/b")).unwrap().is_empty());
        assert!(ids(&temp.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn processes_are_known_by_their_start() {
        let state = |pid: i32, start_time| State {
            id: "x".to_owned(),
            pid,
            start_time,
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            cgroup_path: PathBuf::new(),
            config: Spec::default(),
        };
        let own = std::process::id() as i32;
        let start = start_time(own).unwrap();
        assert!(state(own, start).process().is_some());
        assert!(state(own, start + 1).process().is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let start = start_time(pid).unwrap();
        let running = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(await_end(&running, Duration::from_secs(60)));
        assert!(state(pid, start).process().is_none(), "ended, though not reaped");
        child.wait().unwrap();
    }
}
