//! Questions on their way to upstreams.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::cache::Answer;
use super::wire::{self, HEADER, Query, flag};
use super::{Token, Upstream};

/// After this long without an answer the next upstream is asked as well.
const STEP: Duration = Duration::from_millis(500);
/// A second round begins so long after the first question: UDP loses messages.
const SECOND_ROUND: Duration = Duration::from_secs(2);
/// The client is told that there is no answer before it gives up itself, after five seconds as a rule.
const PATIENCE: Duration = Duration::from_millis(4500);
/// Messages that are not the answer before a socket is taken to be under attack.
const MAX_STRANGE: u8 = 64;
/// Clients that wait for the same answer.
pub(super) const MAX_WAITERS: usize = 128;
/// Bytes of an OPT record without options.
const OPT: usize = 11;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A datagram's sender.
    Udp(SocketAddr),
    /// A connection.
    Tcp(Token),
}

/// A client that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) attachment: Token,
    pub(super) source: Source,
    pub(super) query: Query,
    /// Header and question as the client wrote them.
    pub(super) packet: Box<[u8]>,
}

/// One question, all that is done to have it answered, and who waits for it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Box<[u8]>,
    pub(super) query: Query,
    /// What is sent, but for the id.
    message: Box<[u8]>,
    pub(super) upstreams: Rc<[Upstream]>,
    /// The container from whose namespace upstreams are asked that are not the host's.
    pub(super) attachment: Token,
    pub(super) waiters: Vec<Waiter>,
    attempts: Vec<Option<Attempt>>,
    launches: usize,
    failed: Vec<bool>,
    by_tcp: bool,
    started: Instant,
    /// A truncated answer, for want of a whole one.
    pub(super) fallback: Option<Answer>,
    /// When something is to be done although nothing came.
    pub(super) timer: Instant,
}

/// One question to one upstream over one socket.
#[derive(Debug)]
struct Attempt {
    upstream: usize,
    id: u16,
    strange: u8,
    socket: Exchange,
}

#[derive(Debug)]
enum Exchange {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, output: Vec<u8>, input: Vec<u8> },
}

/// What came of looking at a socket.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing yet.
    Waiting,
    /// The upstream cannot be asked this way.
    Failed,
    /// The upstream answered.
    Answered(Answer),
}

impl Flight {
    /// A question that nobody has been asked yet. `by_tcp` if the client came that way.
    pub(super) fn new(
        key: Box<[u8]>,
        first: Waiter,
        upstreams: Rc<[Upstream]>,
        by_tcp: bool,
        now: Instant,
    ) -> Flight {
        let (query, packet) = (first.query.clone(), &first.packet);
        let mut message = Vec::with_capacity(packet.len() + OPT);
        let kept = flag::RECURSION_DESIRED | flag::AUTHENTIC | flag::CHECKING_DISABLED;
        message.extend_from_slice(&[0, 0]);
        message.extend_from_slice(&(query.flags & kept).to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(packet.get(HEADER..query.question_end).unwrap_or_default());
        super::answer::append_opt(&mut message, &query, 0);
        Flight {
            key,
            query,
            message: message.into(),
            failed: vec![false; upstreams.len()],
            upstreams,
            attachment: first.attachment,
            waiters: vec![first],
            attempts: Vec::new(),
            launches: 0,
            by_tcp,
            started: now,
            fallback: None,
            timer: now,
        }
    }

    /// The next upstream to be asked, if it is time or `at_once`, and how: by TCP?
    pub(super) fn next_launch(&mut self, now: Instant, at_once: bool) -> Option<(usize, bool)> {
        let count = self.upstreams.len();
        loop {
            let due = self.due()?;
            let upstream = self.launches % count;
            // What failed is not asked again; what is slow is, in its time.
            let eager = at_once && self.launches < count;
            if self.failed.get(upstream) == Some(&false) && now < due && !eager {
                return None;
            }
            self.launches += 1;
            if self.failed.get(upstream) == Some(&false) {
                return Some((upstream, self.by_tcp));
            }
        }
    }

    /// When the next upstream is to be asked; `None` when all have been asked often enough.
    fn due(&self) -> Option<Instant> {
        let count = self.upstreams.len();
        let rounds = if self.by_tcp { 1 } else { 2 };
        if self.launches >= rounds * count {
            return None;
        }
        let step = STEP * (self.launches % count) as u32;
        Some(self.started + step + if self.launches < count { Duration::ZERO } else { SECOND_ROUND })
    }

    /// When [`Flight::next_launch`] or the end is due.
    pub(super) fn wake(&self) -> Instant {
        let end = self.started + PATIENCE;
        self.due().map_or(end, |due| due.min(end))
    }

    /// Whether nothing more can come.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let waits = self.attempts.iter().any(Option::is_some);
        let more = self.due().is_some() && self.failed.contains(&false);
        now >= self.started + PATIENCE || !waits && !more
    }

    /// Asks an upstream with a socket from [`open`]; returns the attempt's number and what to poll.
    pub(super) fn ask(
        &mut self,
        upstream: usize,
        socket: OwnedFd,
        by_tcp: bool,
        id: u16,
    ) -> io::Result<(usize, BorrowedFd<'_>)> {
        let address = self.upstreams.get(upstream).ok_or(ErrorKind::NotFound)?.address;
        match connect(&socket, &address) {
            Err(rustix::io::Errno::INPROGRESS) if by_tcp => {}
            other => other?,
        }
        let mut message = self.message.to_vec();
        wire::set_word(&mut message, 0, id);
        let socket = if by_tcp {
            let mut output = (message.len() as u16).to_be_bytes().to_vec();
            output.append(&mut message);
            Exchange::Tcp { stream: socket.into(), output, input: Vec::new() }
        } else {
            let socket = UdpSocket::from(socket);
            socket.send(&message)?;
            Exchange::Udp(socket)
        };
        self.attempts.push(Some(Attempt { upstream, id, strange: 0, socket }));
        let number = self.attempts.len() - 1;
        self.attempts[number]
            .as_ref()
            .map(|attempt| (number, attempt.socket.fd()))
            .ok_or(ErrorKind::NotFound.into())
    }

    /// Notes that an upstream cannot be asked.
    pub(super) fn fail(&mut self, upstream: usize) {
        if let Some(failed) = self.failed.get_mut(upstream) {
            *failed = true;
        }
    }

    /// Ends an attempt; returns its upstream.
    pub(super) fn give_up(&mut self, attempt: usize) -> Option<usize> {
        Some(self.attempts.get_mut(attempt)?.take()?.upstream)
    }

    /// Reads, and writes what is left to be written.
    pub(super) fn progress(&mut self, attempt: usize, buffer: &mut [u8]) -> Progress {
        let Some(Some(attempt)) = self.attempts.get_mut(attempt) else { return Progress::Waiting };
        match &mut attempt.socket {
            Exchange::Udp(socket) => loop {
                let length = match socket.recv(buffer) {
                    Ok(length) => length,
                    Err(error) => return waiting_or_failed(&error),
                };
                let packet = buffer.get(..length).unwrap_or_default();
                if let Some(answer) = read(packet, attempt.id, &self.query) {
                    return Progress::Answered(answer);
                }
                // Somebody guesses, or the upstream is out of order: the right answer may still come.
                attempt.strange += 1;
                if attempt.strange >= MAX_STRANGE {
                    return Progress::Failed;
                }
            },
            Exchange::Tcp { stream, output, input } => match exchange(stream, output, input, buffer) {
                Err(error) => waiting_or_failed(&error),
                Ok(()) => read(input, attempt.id, &self.query).map_or(Progress::Failed, Progress::Answered),
            },
        }
    }

    /// Whether all of the question was sent by this attempt, so that only reading is left.
    pub(super) fn is_sent(&self, attempt: usize) -> bool {
        match self.attempts.get(attempt) {
            Some(Some(Attempt { socket: Exchange::Tcp { output, .. }, .. })) => output.is_empty(),
            _ => true,
        }
    }

    /// What to poll for an attempt.
    pub(super) fn fd(&self, attempt: usize) -> Option<BorrowedFd<'_>> {
        Some(self.attempts.get(attempt)?.as_ref()?.socket.fd())
    }

    /// Whether an attempt is made by TCP.
    pub(super) fn uses_tcp(&self, attempt: usize) -> bool {
        matches!(self.attempts.get(attempt), Some(Some(Attempt { socket: Exchange::Tcp { .. }, .. })))
    }
}

impl Exchange {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Exchange::Udp(socket) => socket.as_fd(),
            Exchange::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

/// A socket for an upstream, in the calling thread's namespace; the kernel chooses a port at random when it is connected.
pub(super) fn open(upstream: &Upstream, by_tcp: bool) -> io::Result<OwnedFd> {
    let family = if upstream.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if by_tcp { SocketType::STREAM } else { SocketType::DGRAM };
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

fn read(packet: &[u8], id: u16, query: &Query) -> Option<Answer> {
    let response = wire::Response::read(packet, id, query)?;
    Some(Answer { packet: packet.get(..response.end)?.into(), response, age: 0 })
}

fn waiting_or_failed(error: &io::Error) -> Progress {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected => Progress::Waiting,
        _ => Progress::Failed,
    }
}

/// Writes the question and reads one whole message into `input`; `WouldBlock` until it is there.
fn exchange(
    stream: &mut TcpStream,
    output: &mut Vec<u8>,
    input: &mut Vec<u8>,
    buffer: &mut [u8],
) -> io::Result<()> {
    while !output.is_empty() {
        match stream.write(output)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => drop(output.drain(..written)),
        }
    }
    loop {
        if let Some(length) = wire::word(input, 0)
            && input.len() >= usize::from(length) + 2
        {
            input.truncate(usize::from(length) + 2);
            input.drain(..2);
            return Ok(());
        }
        match stream.read(buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
}
