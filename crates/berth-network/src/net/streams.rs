//! A connection that is carried: two sockets, and what goes each way, with an end of its own each way.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect, ipproto, recv, send,
    shutdown, socket_with, sockopt,
};

use super::forward::{Role, token};

/// Reads before others have their turn.
const ROUNDS: usize = 8;
/// After so long without a word, the other end is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);
/// So long it has to answer, each of so many times.
const QUESTION: (Duration, u32) = (Duration::from_secs(15), 4);

/// What goes one way.
#[derive(Debug, Default)]
struct Half {
    /// What was read and could not be written yet.
    waiting: Vec<u8>,
    /// Bytes of it that are written.
    written: usize,
    /// Nothing comes any more.
    ended: bool,
    /// And that was passed on.
    told: bool,
}

impl Half {
    fn is_empty(&self) -> bool {
        self.written == self.waiting.len()
    }

    /// Carries what there is; comes back when one of the sockets has to be waited for.
    fn carry(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..ROUNDS {
            if !self.write_waiting(to)? {
                return Ok(());
            }
            if self.ended {
                self.tell_end(to);
                return Ok(());
            }
            let length = match recv(from, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if length == 0 {
                self.ended = true;
                // At once: neither socket would be waited for again.
                self.tell_end(to);
                return Ok(());
            }
            let sent = match send(to, &buffer[..length], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            if sent < length {
                self.waiting.extend_from_slice(&buffer[sent..length]);
            }
        }
        Ok(())
    }

    /// Passes the end on, once, when all before it was.
    fn tell_end(&mut self, to: &OwnedFd) {
        if !self.told {
            self.told = true;
            // A peer that is gone needs no word.
            let _ = shutdown(to, Shutdown::Write);
        }
    }

    /// True when nothing waits any more.
    fn write_waiting(&mut self, to: &OwnedFd) -> io::Result<bool> {
        while !self.is_empty() {
            match send(to, &self.waiting[self.written..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.written += sent,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        // Memory only while something waits.
        self.waiting = Vec::new();
        self.written = 0;
        Ok(true)
    }
}

/// One of the two sockets, and what epoll waits for at it.
#[derive(Debug)]
struct Side {
    socket: OwnedFd,
    interest: EventFlags,
}

/// Sees to it that who vanishes without a word does not hold a connection for ever.
fn keep_alive(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE)?;
    sockopt::set_tcp_keepintvl(socket, QUESTION.0)?;
    Ok(sockopt::set_tcp_keepcnt(socket, QUESTION.1)?)
}

/// A client's connection and the one to the container.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    client: Side,
    target: Side,
    connecting: bool,
    up: Half,
    down: Half,
}

impl Connection {
    /// Begins to connect to the container.
    pub(super) fn open(
        poll: &OwnedFd,
        id: u64,
        client: OwnedFd,
        target: SocketAddr,
    ) -> io::Result<Connection> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = sockopt::socket_protocol(&client)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, protocol)?;
        if protocol.is_none_or(|protocol| protocol == ipproto::TCP) {
            // The others have questions of their own.
            keep_alive(&client)?;
            keep_alive(&socket)?;
        }
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let side = |socket| Side { socket, interest: EventFlags::empty() };
        let mut connection = Connection {
            id,
            client: side(client),
            target: side(socket),
            connecting: true,
            up: Half::default(),
            down: Half::default(),
        };
        connection.wait(poll)?;
        Ok(connection)
    }

    /// Does what an event at one of its sockets allows; false when it is over.
    pub(super) fn step(
        &mut self,
        poll: &OwnedFd,
        at_target: bool,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        if self.connecting {
            let settled = EventFlags::OUT | EventFlags::ERR | EventFlags::HUP;
            if !at_target || !flags.intersects(settled) {
                return Ok(true);
            }
            sockopt::socket_error(&self.target.socket)??;
            self.connecting = false;
        }
        self.up.carry(&self.client.socket, &self.target.socket, buffer)?;
        self.down.carry(&self.target.socket, &self.client.socket, buffer)?;
        if self.up.told && self.down.told {
            return Ok(false);
        }
        self.wait(poll)?;
        Ok(true)
    }

    /// Waits for what can go on. A socket that nothing is wanted of is not waited for at all: its end would be told
    /// without end.
    fn wait(&mut self, poll: &OwnedFd) -> io::Result<()> {
        let wanted = |reads: bool, writes: bool| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, reads);
            flags.set(EventFlags::OUT, writes);
            flags
        };
        let open = !self.connecting;
        let client = wanted(open && !self.up.ended && self.up.is_empty(), !self.down.is_empty());
        let reads = open && !self.down.ended && self.down.is_empty();
        let target = wanted(reads, self.connecting || !self.up.is_empty());
        let sides = [(&mut self.client, Role::Client, client), (&mut self.target, Role::Target, target)];
        for (side, role, interest) in sides {
            if side.interest == interest {
                continue;
            }
            let (socket, data) = (side.socket.as_fd(), token(self.id, role));
            match (side.interest.is_empty(), interest.is_empty()) {
                (true, _) => epoll::add(poll, socket, data, interest)?,
                (false, true) => epoll::delete(poll, socket)?,
                (false, false) => epoll::modify(poll, socket, data, interest)?,
            }
            side.interest = interest;
        }
        Ok(())
    }
}
