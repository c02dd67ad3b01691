//! Kills for lack of memory: counted, and announced.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::Version;

/// How often the kernel has killed in the cgroup for lack of memory.
pub(super) fn count(memory: &Directory) -> Result<u64> {
    let file = match memory.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    Ok(memory.read_key(file, "oom_kill")?.unwrap_or(0))
}

/// Becomes readable when the kernel runs out of the cgroup's memory.
///
/// Version 1 signals an eventfd before it kills, and also once when the cgroup is removed. In version 2 it is an inotify
/// watch, which other changes of `memory.events` wake as well: after each wake-up the count tells.
#[derive(Debug)]
pub struct OomEvents {
    events: OwnedFd,
    /// Closing the watched file would end version 1's events.
    watched: Option<File>,
    /// The count when it was last looked at.
    seen: u64,
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl OomEvents {
    /// Whether a wake-up was one for lack of memory. `count` is how often the kernel has killed by now, none if that cannot
    /// be read any more. Takes all events that have come.
    pub fn happened(&mut self, count: Option<u64>) -> bool {
        let (woken, seen) = (self.take(), self.seen);
        self.seen = count.unwrap_or(seen);
        // Version 1 announces the kill; in version 2 it has been.
        woken && if self.watched.is_some() { count.is_some() } else { self.seen > seen }
    }

    /// Takes all events that have come, without blocking. True if there were any.
    pub fn take(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut any = false;
        while rustix::io::read(&self.events, &mut buffer).is_ok_and(|length| length > 0) {
            any = true;
        }
        any
    }
}

/// Starts to watch.
pub(super) fn watch(memory: &Directory) -> Result<OomEvents> {
    match memory.version {
        Version::V1 => {
            let control = memory.file("memory.oom_control");
            let watched = File::open(&control).map_err(Error::file("open", &control))?;
            let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| Error::file("watch", &control)(errno.into()))?;
            let request = format!("{} {}", events.as_raw_fd(), watched.as_raw_fd());
            memory.write("cgroup.event_control", &request)?;
            Ok(OomEvents { events, watched: Some(watched), seen: 0 })
        }
        Version::V2 => {
            let file = memory.file("memory.events");
            let failed = |errno: rustix::io::Errno| Error::file("watch", &file)(errno.into());
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let events = inotify::init(flags).map_err(failed)?;
            inotify::add_watch(&events, &file, inotify::WatchFlags::MODIFY).map_err(failed)?;
            Ok(OomEvents { events, watched: None, seen: count(memory)? })
        }
    }
}
