//! A request of the daemon on its way in, and its answer on the way out, beside everything else.

use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::MESSAGE_LIMIT;

/// A daemon that stops in the middle of a request is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Descriptors of one request.
const MAX_FDS: usize = 64;

/// A connection of the daemon: one request, one answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) stream: UnixStream,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
    output: Vec<u8>,
    answered: bool,
    pub(super) deadline: Instant,
}

/// How far a request has come.
#[derive(Debug)]
pub(super) enum State {
    /// More is to come.
    Waiting,
    /// The whole request, to be answered.
    Asked(Vec<u8>, Vec<OwnedFd>),
    /// There is nothing more to do.
    Over,
}

impl Exchange {
    /// A new connection; `PermissionDenied` unless it is root's, or this process's user's.
    pub(super) fn new(stream: UnixStream, now: Instant) -> io::Result<Exchange> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            return Err(ErrorKind::PermissionDenied.into());
        }
        stream.set_nonblocking(true)?;
        let (body, fds, output) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Exchange { stream, body, fds, output, answered: false, deadline: now + PATIENCE })
    }

    /// Reads or writes what can be.
    pub(super) fn progress(&mut self) -> State {
        let result = if self.answered { self.write() } else { self.read() };
        match result {
            Ok(state) => state,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                State::Waiting
            }
            // A broken connection is its daemon's loss, not ours.
            Err(_) => State::Over,
        }
    }

    fn read(&mut self) -> io::Result<State> {
        let mut buffer = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let buffers = &mut [IoSliceMut::new(&mut buffer)];
            let received = recvmsg(&self.stream, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    self.fds.extend(rights);
                }
            }
            if received == 0 {
                return Ok(State::Asked(std::mem::take(&mut self.body), std::mem::take(&mut self.fds)));
            }
            self.body.extend_from_slice(buffer.get(..received).unwrap_or_default());
            if self.body.len() as u64 > MESSAGE_LIMIT || self.fds.len() > MAX_FDS {
                return Ok(State::Over);
            }
        }
    }

    /// Begins the answer.
    pub(super) fn answer(&mut self, answer: Vec<u8>) -> State {
        self.output = answer;
        self.answered = true;
        self.progress()
    }

    fn write(&mut self) -> io::Result<State> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output)? {
                0 => return Ok(State::Over),
                written => drop(self.output.drain(..written)),
            }
        }
        Ok(State::Over)
    }
}
