//! Removing the directories of a cgroup.

use std::time::{Duration, Instant};

use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::Version;
use super::processes::wait_event;

/// Between two attempts where the kernel announces nothing.
const PAUSE: Duration = Duration::from_millis(1);

/// Removes the cgroup and those below it, which its processes have made. Waits at most until `deadline` for
/// processes that are about to end.
pub(super) fn remove(directory: &Directory, deadline: Instant) -> Result<()> {
    match try_remove(directory)? {
        Outcome::Gone => return Ok(()),
        Outcome::Busy => {}
    }
    loop {
        let mut all = Vec::new();
        directory.walk(|below| {
            all.push(below.clone());
            Ok(())
        })?;
        // Children come after their parents in the walk.
        let mut busy = None;
        for below in all.iter().rev() {
            if let Outcome::Busy = try_remove(below)? {
                busy = Some(below);
            }
        }
        if busy.is_none() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Busy(directory.path.clone()));
        }
        match directory.version {
            Version::V2 => wait_event(directory, "populated", 0, left)?,
            Version::V1 => std::thread::sleep(PAUSE.min(left)),
        }
    }
}

enum Outcome {
    Gone,
    Busy,
}

fn try_remove(directory: &Directory) -> Result<Outcome> {
    match rustix::fs::rmdir(&directory.path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(Outcome::Gone),
        // Not empty is what other file systems say; tests use one.
        Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => Ok(Outcome::Busy),
        Err(errno) => Err(Error::file("remove", &directory.path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everything_below_goes_first() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("cgroup");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c")).unwrap();
        let directory = Directory { version: Version::V1, path: root.clone() };
        remove(&directory, Instant::now()).unwrap();
        assert!(!root.exists());
        remove(&directory, Instant::now()).unwrap();
    }

    #[test]
    fn what_stays_busy_is_reported_in_time() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("occupant"), "").unwrap();
        let directory = Directory { version: Version::V1, path: temporary.path().to_path_buf() };
        let started = Instant::now();
        let result = remove(&directory, started + Duration::from_millis(20));
        assert!(matches!(result, Err(Error::Busy(_))));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
