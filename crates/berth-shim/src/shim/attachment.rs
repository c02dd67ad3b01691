//! One connection that is attached to a process.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::detach::DetachKeys;
use super::poller::{Interest, Poller, Token, Watched};
use crate::log::Stream;
use crate::protocol::{AttachOptions, Framing};

/// A connection that has got everything is closed after this time, if the other side has not closed it by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes of a connection's input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Something may have been added to the input.
    Input,
    /// Nothing more comes, the connection stays.
    End,
    /// The client asked to be detached.
    Detach,
    /// The connection is broken.
    Broken,
}

/// An attached connection. At most one chunk of output waits in it while its process runs: the process's outputs are
/// not read before that is sent.
#[derive(Debug)]
pub(super) struct Attachment {
    connection: Watched,
    options: AttachOptions,
    keys: Option<DetachKeys>,
    /// Input is still to come.
    stdin: bool,
    pending: Vec<u8>,
    /// The other side takes no more output.
    hung_up: bool,
    /// The other side sends no more input. It may well go on to take output.
    ended: bool,
    /// No more output follows what is pending.
    finishing: bool,
    /// When the other side was told so, after all the output.
    shut: Option<Instant>,
}

impl Attachment {
    pub(super) fn new(
        poller: &Poller,
        connection: OwnedFd,
        token: Token,
        mut options: AttachOptions,
        terminal: bool,
    ) -> io::Result<Self> {
        let connection = poller.adopt(connection, token)?;
        let keys = DetachKeys::new(std::mem::take(&mut options.detach_keys)).filter(|_| terminal);
        let stdin = options.stdin;
        let mut attachment = Self {
            connection,
            options,
            keys,
            stdin,
            pending: Vec::new(),
            hung_up: false,
            ended: false,
            finishing: false,
            shut: None,
        };
        attachment.watch(true)?;
        Ok(attachment)
    }

    /// Output waits for the other side.
    pub(super) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The client sends input.
    pub(super) fn is_source(&self) -> bool {
        self.stdin
    }

    /// It is of no more use.
    pub(super) fn is_done(&self) -> bool {
        let silent = !self.stdin || self.finishing;
        (self.hung_up && silent) || (self.shut.is_some() && self.ended)
    }

    /// When a connection that is only waited for is given up. A client may take its output as slowly as it likes, as
    /// when a user reads it page by page.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.shut.map(|since| since + PATIENCE)
    }

    /// Input that came before the connection did, with the detach sequence taken out.
    pub(super) fn take_prefix(&mut self, out: &mut Vec<u8>) -> Received {
        let prefix = std::mem::take(&mut self.options.prefix);
        if !self.stdin {
            return Received::Input;
        }
        self.filter(&prefix, out)
    }

    fn filter(&mut self, input: &[u8], out: &mut Vec<u8>) -> Received {
        let Some(keys) = &mut self.keys else {
            out.extend_from_slice(input);
            return Received::Input;
        };
        if keys.filter(input, out) { Received::Detach } else { Received::Input }
    }

    /// Sends `bytes` of `stream`, keeping what does not go out at once.
    pub(super) fn send(&mut self, stream: Stream, bytes: &[u8]) {
        let wanted = match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        if !wanted || self.hung_up || bytes.is_empty() {
            return;
        }
        let header = header(self.options.framing, stream, bytes.len());
        let mut sent = 0;
        if self.pending.is_empty() {
            let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
            match rustix::io::retry_on_intr(|| rustix::io::writev(&self.connection, &parts)) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN) => {}
                Err(_) => return self.hang_up(),
            }
        }
        let in_header = sent.min(header.len());
        self.pending.extend_from_slice(&header[in_header..]);
        self.pending.extend_from_slice(&bytes[sent - in_header..]);
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.connection, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.hang_up(),
            }
        }
        self.pending = Vec::new();
        self.shut_if_finished();
    }

    /// No more output follows. Input is read and thrown away until the other side closes: a connection closed with
    /// unread input would be reset, and the last output with it.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
        self.shut_if_finished();
    }

    fn shut_if_finished(&mut self) {
        if self.finishing && self.pending.is_empty() && self.shut.is_none() {
            self.shut = Some(Instant::now());
            // What is no socket has no halves: it is closed at once.
            if rustix::net::shutdown(&self.connection, rustix::net::Shutdown::Write).is_err() {
                self.hang_up();
            }
        }
    }

    /// The other side is gone as a receiver.
    pub(super) fn hang_up(&mut self) {
        self.hung_up = true;
        self.pending = Vec::new();
    }

    /// Reads input once, into `buffer`, and appends what is meant for the process to `out`.
    pub(super) fn receive(&mut self, buffer: &mut [u8], out: &mut Vec<u8>) -> Received {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.connection, &mut *buffer)) {
            Ok(0) => {
                self.ended = true;
                self.stdin = false;
                Received::End
            }
            Ok(_) if self.finishing => Received::Input,
            Ok(count) => self.filter(&buffer[..count], out),
            Err(Errno::AGAIN) => Received::Input,
            Err(_) => {
                self.ended = true;
                self.stdin = false;
                self.hang_up();
                Received::Broken
            }
        }
    }

    /// Watches for what can be dealt with now: input only if `room` says so.
    pub(super) fn watch(&mut self, room: bool) -> io::Result<()> {
        let reads = !self.ended && (self.finishing || (self.stdin && room));
        let mut interest = Interest::empty();
        interest.set(Interest::IN, reads);
        interest.set(Interest::OUT, !self.pending.is_empty());
        // A hang-up is always told: once known, only input is of interest.
        self.connection.set((!self.hung_up || reads).then_some(interest))
    }
}

/// Docker's frame header, or nothing.
fn header(framing: Framing, stream: Stream, length: usize) -> Vec<u8> {
    match framing {
        Framing::Raw => Vec::new(),
        Framing::Multiplexed => {
            let kind = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            // Chunks are far shorter than 4 GiB.
            let length = (length as u32).to_be_bytes();
            [kind, 0, 0, 0, length[0], length[1], length[2], length[3]].to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(framing: Framing) -> AttachOptions {
        AttachOptions {
            prefix: b"early".to_vec(),
            stdin: true,
            stdout: true,
            stderr: false,
            framing,
            detach_keys: Vec::new(),
        }
    }

    fn attached(framing: Framing) -> (Attachment, std::os::unix::net::UnixStream) {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        let attachment =
            Attachment::new(&poller, near.into(), Token::Attachment(0, 0), options(framing), false).unwrap();
        (attachment, far)
    }

    #[test]
    fn frames_carry_stream_and_length() {
        use std::io::Read;
        let (mut attachment, mut far) = attached(Framing::Multiplexed);
        attachment.send(Stream::Stdout, b"hello");
        attachment.send(Stream::Stderr, b"not wanted");
        let mut frame = [0; 13];
        far.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x05hello");
        assert!(!attachment.is_blocked());
    }

    #[test]
    fn a_full_connection_blocks_and_loses_nothing() {
        use std::io::Read;
        let (mut attachment, mut far) = attached(Framing::Raw);
        let chunk = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while !attachment.is_blocked() {
            attachment.send(Stream::Stdout, &chunk);
            sent += chunk.len();
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all.len()
        });
        attachment.finish();
        while attachment.is_blocked() {
            attachment.flush();
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), sent);
    }

    /// The stock client ends its half at once when it has no input to send.
    #[test]
    fn output_outlives_the_end_of_the_input() {
        use std::io::Read;
        let (mut attachment, mut far) = attached(Framing::Raw);
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let chunk = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while !attachment.is_blocked() {
            attachment.send(Stream::Stdout, &chunk);
            sent += chunk.len();
        }
        attachment.finish();
        assert_eq!(attachment.receive(&mut [0; 16], &mut Vec::new()), Received::End);
        assert!(!attachment.is_done(), "output waits still");
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all.len()
        });
        while attachment.is_blocked() {
            attachment.flush();
            std::thread::yield_now();
        }
        assert!(attachment.is_done());
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[test]
    fn a_gone_client_is_noticed() {
        let (mut attachment, far) = attached(Framing::Raw);
        drop(far);
        attachment.send(Stream::Stdout, b"hello");
        attachment.finish();
        assert!(attachment.is_done());
    }

    #[test]
    fn the_prefix_comes_first() {
        let (mut attachment, _far) = attached(Framing::Raw);
        let mut out = Vec::new();
        assert_eq!(attachment.take_prefix(&mut out), Received::Input);
        assert_eq!(out, b"early");
    }
}
