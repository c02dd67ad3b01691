//! Which descriptors the shim waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{Timespec, epoll};

/// Events handled at once.
const BATCH: usize = 16;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The listening socket.
    Listener,
    /// A client's connection.
    Connection(u32),
    /// The pidfd of a process; 0 is init.
    Process(u32),
    /// An output of a process, by index.
    Output(u32, u32),
    /// The standard input of a process.
    Input(u32),
    /// An attached connection of a process.
    Attachment(u32, u32),
    /// The connection over which the container's output is sent elsewhere.
    Delivery,
    /// The kernel's announcements that it lacks memory.
    Memory,
}

impl Token {
    /// Kind in 8 bits, process in 24 (a container sees fewer execs), detail in 32.
    fn pack(self) -> u64 {
        let (kind, process, detail) = match self {
            Self::Listener => (0, 0, 0),
            Self::Connection(id) => (1, 0, id),
            Self::Process(process) => (2, process, 0),
            Self::Output(process, index) => (3, process, index),
            Self::Input(process) => (4, process, 0),
            Self::Attachment(process, id) => (5, process, id),
            Self::Delivery => (6, 0, 0),
            Self::Memory => (7, 0, 0),
        };
        kind << 56 | u64::from(process & 0xff_ffff) << 32 | u64::from(detail)
    }

    fn unpack(value: u64) -> Option<Self> {
        let (process, detail) = ((value >> 32 & 0xff_ffff) as u32, value as u32);
        Some(match value >> 56 {
            0 => Self::Listener,
            1 => Self::Connection(detail),
            2 => Self::Process(process),
            3 => Self::Output(process, detail),
            4 => Self::Input(process),
            5 => Self::Attachment(process, detail),
            6 => Self::Delivery,
            7 => Self::Memory,
            _ => return None,
        })
    }
}

/// An epoll instance; copies share it.
#[derive(Debug, Clone)]
pub(super) struct Poller(Rc<OwnedFd>);

pub(super) use epoll::EventFlags as Interest;

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Rc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)))
    }

    /// Watches nothing of `descriptor` yet, which becomes non-blocking.
    pub(super) fn adopt(&self, descriptor: OwnedFd, token: Token) -> io::Result<Watched> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        if !flags.contains(rustix::fs::OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&descriptor, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Watched { poller: self.clone(), descriptor, token, interest: None })
    }

    /// Waits for events, at most until `timeout`.
    pub(super) fn wait(&self, timeout: Option<std::time::Duration>) -> io::Result<Vec<(Token, Interest)>> {
        let mut events = Vec::with_capacity(BATCH);
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match epoll::wait(&*self.0, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events
            .into_iter()
            .filter_map(|event: epoll::Event| Some((Token::unpack(event.data.u64())?, event.flags)))
            .collect())
    }
}

/// A descriptor that the poller may watch; dropped, it is forgotten and closed.
#[derive(Debug)]
pub(super) struct Watched {
    poller: Poller,
    descriptor: OwnedFd,
    token: Token,
    interest: Option<Interest>,
}

impl Watched {
    /// Watches for `interest` (errors and hang-ups always), or for nothing at all.
    pub(super) fn set(&mut self, interest: Option<Interest>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.token.pack());
        let epoll = &*self.poller.0;
        match (self.interest, interest) {
            (old, new) if old == new => return Ok(()),
            (None, Some(new)) => epoll::add(epoll, &self.descriptor, data, new)?,
            (Some(_), Some(new)) => epoll::modify(epoll, &self.descriptor, data, new)?,
            (_, None) => epoll::delete(epoll, &self.descriptor)?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Watched {
    /// Closing alone would not do: a child between its clone and its `execve` may share the open file.
    fn drop(&mut self) {
        if self.interest.is_some() {
            let _ = epoll::delete(&*self.poller.0, &self.descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token::Listener,
            Token::Connection(u32::MAX),
            Token::Process(0),
            Token::Process(77),
            Token::Output(3, 1),
            Token::Input(0xff_ffff),
            Token::Attachment(9, u32::MAX),
            Token::Delivery,
            Token::Memory,
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
