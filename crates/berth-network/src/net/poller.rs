//! epoll(7), with what each descriptor is for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::names::Token;

/// Events that are taken at once.
const EVENTS: usize = 64;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The daemon's socket.
    Control,
    /// A request of the daemon.
    Request,
    /// Queries of a container by UDP.
    Datagrams,
    /// Connections of a container.
    Listener,
    /// A container's connection.
    Connection,
    /// What tells that a container ended.
    Life,
    /// A socket to an upstream: the attempt's number in its flight.
    Attempt(u8),
}

impl Kind {
    fn number(self) -> u64 {
        match self {
            Kind::Control => 0,
            Kind::Request => 1,
            Kind::Datagrams => 2,
            Kind::Listener => 3,
            Kind::Connection => 4,
            Kind::Life => 5,
            Kind::Attempt(number) => 16 + u64::from(number.min(239)),
        }
    }

    fn from_number(number: u64) -> Kind {
        match number {
            0 => Kind::Control,
            1 => Kind::Request,
            2 => Kind::Datagrams,
            3 => Kind::Listener,
            4 => Kind::Connection,
            5 => Kind::Life,
            attempt => Kind::Attempt(attempt.saturating_sub(16) as u8),
        }
    }
}

/// Which events are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const READ: Interest = Interest { read: true, write: false };

    fn flags(self) -> epoll::EventFlags {
        let when = |wanted, flags| if wanted { flags } else { epoll::EventFlags::empty() };
        when(self.read, epoll::EventFlags::IN) | when(self.write, epoll::EventFlags::OUT)
    }
}

/// An epoll instance. A descriptor leaves it when it is closed, unless another process has the same one.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(
        &self,
        fd: BorrowedFd<'_>,
        kind: Kind,
        token: Token,
        wanted: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, data(kind, token), wanted.flags())?)
    }

    pub(crate) fn change(
        &self,
        fd: BorrowedFd<'_>,
        kind: Kind,
        token: Token,
        wanted: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, data(kind, token), wanted.flags())?)
    }

    /// Takes out a descriptor that came from another process: closing it here would not.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // One that is not there is no harm.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for events until `deadline`, and tells what they belong to.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<(Kind, Token)>> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let left = deadline.map(|deadline| deadline.saturating_duration_since(crate::names::now()));
        let timeout = left.map(timespec);
        match epoll::wait(&self.0, &mut events[..], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok((events, _)) => Ok(events.iter().map(|event| split(event.data.u64())).collect()),
        }
    }
}

fn timespec(left: Duration) -> Timespec {
    // epoll_wait(2) counts milliseconds: rounded up, or the loop would turn without pause before every deadline.
    let millis = left.as_millis() as i64 + 1;
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}

fn data(kind: Kind, token: Token) -> epoll::EventData {
    epoll::EventData::new_u64(kind.number() << 56 | token.bits())
}

fn split(data: u64) -> (Kind, Token) {
    (Kind::from_number(data >> 56), Token::from_bits(data))
}
