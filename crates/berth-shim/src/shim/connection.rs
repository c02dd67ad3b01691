//! One client of the shim: a daemon, normally.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::socket::{self, Message};

use super::poller::{Interest, Poller, Token, Watched};
use crate::channel::{self, Packed};
use crate::protocol::{Event, Outgoing, Reply};

/// A client that leaves this many messages unread is dropped; it connects again and loses nothing.
const MAX_QUEUED: usize = 1024;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Watched,
    queued: VecDeque<Packed>,
    /// It is told what happens.
    pub(super) subscribed: bool,
    broken: bool,
}

impl Connection {
    pub(super) fn new(poller: &Poller, socket: OwnedFd, id: u32, subscribed: bool) -> io::Result<Self> {
        let mut socket = poller.adopt(socket, Token::Connection(id))?;
        socket.set(Some(Interest::IN))?;
        Ok(Self { socket, queued: VecDeque::new(), subscribed, broken: false })
    }

    /// Only root and the shim's own user may speak to it (R19: the socket's mode already says so).
    pub(super) fn is_permitted(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        socket::peer(&self.socket).is_ok_and(|peer| peer.uid == 0 || peer.uid == own)
    }

    /// Nothing can be exchanged any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Messages wait to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queued.is_empty()
    }

    pub(super) fn reply(&mut self, number: u64, reply: &Reply) {
        self.send(&Outgoing::Reply { number, reply }, Vec::new());
    }

    pub(super) fn tell(&mut self, event: &Event, fds: Vec<OwnedFd>) {
        self.send(&Outgoing::Event(event), fds);
    }

    fn send(&mut self, message: &Outgoing<'_>, fds: Vec<OwnedFd>) {
        match Packed::new(message, fds) {
            Ok(packed) if self.queued.len() < MAX_QUEUED => self.queued.push_back(packed),
            _ => self.broken = true,
        }
        self.flush();
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        while let Some(packed) = self.queued.front() {
            match packed.send(&self.socket) {
                Ok(()) => drop(self.queued.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        let interest = if self.queued.is_empty() { Interest::IN } else { Interest::IN | Interest::OUT };
        self.broken |= self.socket.set(Some(interest)).is_err();
    }

    /// The next request, if one is there.
    pub(super) fn receive(&mut self) -> Option<Message> {
        match channel::receive(self.socket.as_fd()) {
            Ok(Some(message)) => Some(message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(None) | Err(_) => {
                self.broken = true;
                None
            }
        }
    }
}
