//! The processes of a cgroup: list, freeze, kill.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::directory::{Directory, value_of};
use super::error::{Error, Result};
use super::layout::Version;

/// How long a freeze may take. Processes in an uninterruptible sleep cannot be frozen.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at a version 1 freezer, which has no event.
const PAUSE: Duration = Duration::from_micros(200);
/// A cgroup whose processes multiply faster than they can be killed is frozen meanwhile; then one pass is enough.
const KILL_PASSES: usize = 100;

/// All processes of the cgroup and of those below it.
pub(super) fn list(directory: &Directory) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    directory.walk(|below| {
        pids.extend(below.processes()?);
        Ok(())
    })?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Freezes or thaws the cgroup and those below it, and waits until all of it is so.
pub(super) fn set_frozen(directory: &Directory, frozen: bool) -> Result<()> {
    match directory.version {
        Version::V1 => set_frozen_v1(directory, frozen),
        Version::V2 => {
            directory.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
            wait_event(directory, "frozen", u64::from(frozen), FREEZE_TIMEOUT)
        }
    }
}

/// Whether the cgroup is frozen, or about to be.
pub(super) fn is_frozen(directory: &Directory) -> Result<bool> {
    let (file, thawed) = match directory.version {
        Version::V1 => ("freezer.state", "THAWED"),
        Version::V2 => ("cgroup.freeze", "0"),
    };
    Ok(directory.read_if_present(file)?.is_some_and(|state| state != thawed))
}

fn set_frozen_v1(directory: &Directory, frozen: bool) -> Result<()> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    directory.write("freezer.state", wanted)?;
    while directory.read("freezer.state")? != wanted {
        if Instant::now() > deadline {
            if frozen {
                directory.write("freezer.state", "THAWED")?;
            }
            return Err(Error::Busy(directory.path.clone()));
        }
        std::thread::sleep(PAUSE);
        // A process that was forked meanwhile is caught by asking again.
        directory.write("freezer.state", wanted)?;
    }
    Ok(())
}

/// Waits until `key` in `cgroup.events` of a version 2 cgroup is `value`; a cgroup that is gone will do.
pub(super) fn wait_event(directory: &Directory, key: &str, value: u64, timeout: Duration) -> Result<()> {
    let path = directory.file("cgroup.events");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("open", &path)(error)),
    };
    let deadline = Instant::now() + timeout;
    loop {
        let mut buffer = [0; 256];
        // Each read arms the next event.
        let length = match file.read_at(&mut buffer, 0) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        match value_of(&text, key) {
            Some(now) if now == value => return Ok(()),
            Some(_) => {}
            None => return Err(Error::Content { path, content: text.into_owned() }),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Busy(directory.path.clone()));
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::file("poll", &path)(errno.into())),
        }
    }
}

/// Sends SIGKILL to every process of the cgroup and of those below it, also to frozen ones.
///
/// `freezer` is the cgroup's directory in version 1's freezer hierarchy, if there is one.
pub(super) fn kill(directory: &Directory, freezer: Option<&Directory>) -> Result<()> {
    if directory.version == Version::V2 {
        return match directory.write("cgroup.kill", "1") {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        };
    }
    // Frozen processes cannot fork, so one list has them all. Where freezing fails, passes go on until no process
    // is left.
    let frozen = freezer.is_some_and(|freezer| set_frozen(freezer, true).is_ok());
    let result = kill_passes(directory, frozen);
    if let Some(freezer) = freezer {
        // Also thaws what was frozen before, since the signal takes effect only then.
        match freezer.write("freezer.state", "THAWED") {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    result
}

fn kill_passes(directory: &Directory, frozen: bool) -> Result<()> {
    for _ in 0..KILL_PASSES {
        let pids = list(directory)?;
        for pid in pids.iter().copied().filter_map(Pid::from_raw) {
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(Error::file("kill processes of", &directory.path)(errno.into())),
            }
        }
        if frozen || pids.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Busy(directory.path.clone()))
}
