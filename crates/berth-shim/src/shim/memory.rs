//! Lack of memory, told when it happens.

use std::os::fd::AsFd;
use std::path::Path;

use berth_runtime::cgroup::{self, OomEvents};

use super::Shim;
use super::poller::{Interest, Poller, Token, Watched};
use crate::protocol::Event;

/// The kernel's announcements for the container's cgroup.
#[derive(Debug)]
pub(super) struct Memory {
    cgroup: cgroup::Manager,
    events: OomEvents,
    /// Only watched: `events` is what is read.
    _watched: Watched,
}

impl Memory {
    /// Begins to listen; none where there is no cgroup for memory. What cannot be listened to is told at the end.
    pub(super) fn watch(poller: &Poller, cgroup: Option<&Path>) -> Option<Memory> {
        let cgroup = cgroup::Manager::for_path(cgroup?.to_str()?).ok()?;
        let events = cgroup.oom_events().ok()?;
        let copy = events.as_fd().try_clone_to_owned().ok()?;
        let mut watched = poller.adopt(copy, Token::Memory).ok()?;
        watched.set(Some(Interest::IN)).ok()?;
        Some(Memory { cgroup, events, _watched: watched })
    }

    fn happened(&mut self) -> bool {
        self.events.happened(self.cgroup.oom_count().ok())
    }
}

impl Shim {
    /// The kernel has something to announce.
    pub(super) fn on_memory(&mut self) {
        if self.memory.as_mut().is_some_and(Memory::happened) {
            self.tell(&Event::OutOfMemory, &[]);
        }
    }
}
