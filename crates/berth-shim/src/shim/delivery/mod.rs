//! Sending a container's output elsewhere, without ever waiting: one socket among those that the shim watches.

mod answer;
mod queue;
mod secure;
mod socket;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::poller::{Interest, Poller, Token, Watched};
use crate::log::remote::Acknowledgement;
use crate::log::{RemotePlan, Stream};
use answer::Answer;
use queue::Queue;
use secure::Session;
use socket::Connected;

/// Packets that go into one write.
const TOGETHER: usize = 64;
/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(10);
/// `retry_wait` is doubled this many times at most.
const DOUBLINGS: u32 = 5;
/// How long the other side of a TLS connection may take to close it. Closed before that, what it has not read yet could
/// be lost: it may still be sending, which the kernel would answer with a reset.
const CLOSING: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Delivery {
    poller: Poller,
    plan: RemotePlan,
    /// Where a unix socket lies.
    directory: Option<OwnedFd>,
    queue: Queue,
    state: State,
    /// TLS on the connection, if that is wanted and there is one.
    session: Option<Box<Session>>,
    /// Everything is sent, and the other side is waited for until then.
    closing: Option<Instant>,
    /// Attempts that failed since something was last sent.
    failures: u32,
    /// Bytes of the packet at the front that are sent already.
    sent: usize,
    /// What was received of the acknowledgement that is waited for.
    received: Vec<u8>,
    /// When something last went on.
    progress: Instant,
}

#[derive(Debug)]
enum State {
    /// There is no connection, and none is made before this moment.
    Down(Instant),
    Connecting(Watched),
    Up(Watched),
}

impl Delivery {
    /// `descriptors` are those that the plan announces.
    pub(super) fn new(poller: &Poller, plan: RemotePlan, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let directory = if socket::is_unix(&plan.endpoint) { descriptors.next() } else { None };
        let state = match descriptors.next().filter(|_| plan.connected) {
            Some(socket) => State::Up(poller.adopt(socket, Token::Delivery)?),
            None => State::Down(Instant::now()),
        };
        let mut delivery = Self {
            poller: poller.clone(),
            queue: Queue::new(plan.protocol.clone(), plan.queue_bytes),
            plan,
            directory,
            state,
            session: None,
            closing: None,
            failures: 0,
            sent: 0,
            received: Vec::new(),
            progress: Instant::now(),
        };
        delivery.watch(false);
        Ok(delivery)
    }

    /// Takes a chunk that the container wrote.
    pub(super) fn write(&mut self, stream: Stream, chunk: &[u8]) {
        let waits = self.plan.blocking && !self.is_given_up();
        self.begin();
        self.queue.write(stream, chunk, waits);
        self.go_on();
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, stream: Stream) {
        self.begin();
        self.queue.finish(stream);
        self.go_on();
    }

    /// The container has to wait.
    pub(super) fn is_blocking(&self) -> bool {
        self.plan.blocking && self.queue.is_full() && !self.is_given_up()
    }

    /// There is still something to be sent, and some hope.
    pub(super) fn is_delivering(&self) -> bool {
        (!self.queue.is_empty() && !self.is_given_up())
            || (self.session.is_some() && self.closing.is_some_and(|until| until > Instant::now()))
    }

    /// The outputs have ended: closes a TLS connection once everything is sent.
    pub(super) fn end(&mut self) {
        if self.queue.is_empty()
            && self.closing.is_none()
            && !self.is_agreeing()
            && let Some(session) = &mut self.session
        {
            session.close();
            self.closing = Some(Instant::now() + CLOSING);
            self.go_on();
        }
    }

    /// When to look again without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return self.closing.filter(|_| self.session.is_some());
        }
        match &self.state {
            State::Down(at) => Some(*at),
            State::Connecting(_) => Some(self.progress + CONNECTING),
            State::Up(_) if self.is_agreeing() => Some(self.progress + CONNECTING),
            State::Up(_) => self.plan.patience.map(|patience| self.progress + patience),
        }
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &self.state {
            State::Down(_) => self.connect(),
            State::Connecting(_) | State::Up(_) => self.fail(),
        }
    }

    /// Something happened to the connection.
    pub(super) fn on_event(&mut self, flags: Interest) {
        match &self.state {
            State::Down(_) => return,
            State::Connecting(socket) => match socket::outcome(socket) {
                Ok(()) => self.up(),
                Err(_) => return self.fail(),
            },
            State::Up(_) => {}
        }
        if flags.intersects(Interest::IN | Interest::HUP | Interest::ERR) && !self.receive() {
            return self.fail();
        }
        self.go_on();
    }

    /// Messages that found no room or could not be sent, in all.
    pub(super) fn lost(&self) -> u64 {
        self.queue.total_lost()
    }

    /// TLS is not agreed on yet.
    fn is_agreeing(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_beginning())
    }

    fn is_given_up(&self) -> bool {
        let up = matches!(self.state, State::Up(_)) && !self.is_agreeing();
        self.failures >= self.plan.attempts && !up
    }

    /// Patience is counted from the first packet that waits.
    fn begin(&mut self) {
        if self.queue.is_empty() {
            self.progress = Instant::now();
        }
    }

    fn up(&mut self) {
        let now = Instant::now();
        if let State::Connecting(socket) = std::mem::replace(&mut self.state, State::Down(now)) {
            self.state = State::Up(socket);
        }
        (self.sent, self.progress) = (0, now);
        self.received.clear();
        if let Some(tls) = &self.plan.tls {
            match Session::new(tls) {
                Ok(session) => self.session = Some(Box::new(session)),
                // Without it nothing may be sent.
                Err(_) => self.fail(),
            }
        }
    }

    fn connect(&mut self) {
        self.progress = Instant::now();
        let connected = socket::connect(&self.plan.endpoint, self.directory.as_ref(), self.failures);
        let adopted = connected.and_then(|connected| match connected {
            Connected::Now(socket) => Ok((self.poller.adopt(socket, Token::Delivery)?, true)),
            Connected::Soon(socket) => Ok((self.poller.adopt(socket, Token::Delivery)?, false)),
        });
        match adopted {
            Ok((socket, now)) => {
                self.state = State::Connecting(socket);
                if now {
                    self.up();
                    self.go_on();
                } else {
                    self.watch(true);
                }
            }
            Err(_) => self.fail(),
        }
    }

    /// The connection is of no use any more. A packet that was sent in part is sent again.
    fn fail(&mut self) {
        let wait = self.plan.retry_wait * (1 << self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down(Instant::now() + wait);
        self.session = None;
        self.sent = 0;
    }

    /// Sends as much as goes.
    fn go_on(&mut self) {
        if let State::Down(at) = &self.state {
            if !self.queue.is_empty() && *at <= Instant::now() {
                self.connect();
            }
            return;
        }
        let State::Up(_) = &self.state else { return };
        match self.send() {
            Ok(waits) => self.watch(waits),
            Err(_) => self.fail(),
        }
    }

    /// True if the socket takes no more now.
    fn send(&mut self) -> io::Result<bool> {
        if let (State::Up(socket), Some(session)) = (&self.state, &mut self.session) {
            let flushed = session.flush(socket)?;
            if session.is_beginning() {
                return Ok(!flushed);
            }
        }
        let datagrams = socket::has_datagrams(&self.plan.endpoint);
        loop {
            self.queue.gather();
            let (State::Up(socket), Some(front)) = (&self.state, self.queue.first()) else { break };
            let acknowledged = front.acknowledgement != Acknowledgement::None;
            if acknowledged && self.sent == front.bytes.len() {
                return Ok(false);
            }
            let together = if datagrams || acknowledged { 1 } else { TOGETHER };
            let rest = &front.bytes[self.sent..];
            let others = self.queue.all().skip(1).take(together - 1).map(|packet| &packet.bytes[..]);
            let parts: Vec<_> = std::iter::once(rest).chain(others).map(IoSlice::new).collect();
            let written = match &mut self.session {
                Some(session) => session.write(socket, &parts).map_err(errno),
                None => rustix::io::retry_on_intr(|| rustix::io::writev(socket, &parts)),
            };
            match written {
                Ok(_) if datagrams => self.queue.pop(),
                Ok(count) => self.advance(count, acknowledged),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::MSGSIZE | Errno::NOBUFS) if datagrams => self.queue.lose_front(),
                Err(error) => return Err(error.into()),
            }
            (self.failures, self.progress) = (0, Instant::now());
        }
        match (&self.state, &mut self.session) {
            (State::Up(socket), Some(session)) => Ok(!session.flush(socket)?),
            _ => Ok(false),
        }
    }

    /// So many bytes have gone into the stream.
    fn advance(&mut self, count: usize, acknowledged: bool) {
        self.sent += count;
        while let Some(front) = self.queue.first()
            && !acknowledged
            && self.sent >= front.bytes.len()
        {
            self.sent -= front.bytes.len();
            self.queue.pop();
        }
    }

    /// Reads what the other side says; false if the connection is over.
    fn receive(&mut self) -> bool {
        let State::Up(socket) = &self.state else { return true };
        let mut buffer = [0; 512];
        let read = match &mut self.session {
            Some(session) => session.read(socket, &mut buffer).map_err(errno),
            None => rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut buffer)),
        };
        match read {
            Ok(0) => return false,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return true,
            // Somebody who listens on no UDP port may do so later.
            Err(Errno::CONNREFUSED) if matches!(self.plan.endpoint, crate::log::Endpoint::Udp(_)) => {
                return true;
            }
            Err(_) => return false,
        }
        match self.answer() {
            Answer::Unfinished => return true,
            Answer::Failed => return false,
            Answer::Refused => {
                let whole = self.queue.first().is_some_and(|front| self.sent >= front.bytes.len());
                self.queue.lose_front();
                // The rest of it would be read as another request.
                if !whole {
                    return false;
                }
            }
            Answer::Taken => self.queue.pop(),
        }
        self.received.clear();
        (self.sent, self.progress) = (0, Instant::now());
        true
    }

    /// What was received says of the packet at the front.
    fn answer(&mut self) -> Answer {
        let front = self.queue.first();
        match front.map(|front| (&front.acknowledgement, front.bytes.len())) {
            None | Some((Acknowledgement::None, _)) => {
                self.received.clear();
                Answer::Unfinished
            }
            Some((Acknowledgement::Bytes(expected), _)) if self.received == *expected => Answer::Taken,
            Some((Acknowledgement::Bytes(expected), _)) if expected.starts_with(&self.received) => {
                Answer::Unfinished
            }
            Some((Acknowledgement::Bytes(_), _)) => Answer::Failed,
            // Who answers before the end of a request does not want the rest of it.
            Some((Acknowledgement::Http(_), length)) => match answer::read(&self.received) {
                Answer::Taken if self.sent < length => Answer::Failed,
                answer => answer,
            },
        }
    }

    fn watch(&mut self, writable: bool) {
        let interest = if writable { Interest::IN | Interest::OUT } else { Interest::IN };
        let (State::Connecting(socket) | State::Up(socket)) = &mut self.state else { return };
        if socket.set(Some(interest)).is_err() {
            self.fail();
        }
    }
}

/// An error of TLS itself is as bad as a broken connection.
fn errno(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WouldBlock => Errno::AGAIN,
        _ => Errno::from_io_error(&error).unwrap_or(Errno::PROTO),
    }
}
