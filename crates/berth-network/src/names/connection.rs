//! A client's TCP connection: several queries one after another, answered as the answers come.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Token, wire};

/// A connection on which nothing happens for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that the client does not read.
const MAX_OUTPUT: usize = 256 << 10;
/// Queries of one connection that wait for upstreams.
pub(super) const MAX_WAITING: usize = 64;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) attachment: Token,
    pub(super) stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Queries that wait for upstreams.
    pub(super) waiting: usize,
    ended: bool,
    /// When it is closed if nothing happens.
    pub(super) timer: Instant,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be closed.
    Close,
    /// These events: to be read, to be written.
    Poll(bool, bool),
}

impl Connection {
    pub(super) fn new(attachment: Token, stream: TcpStream, now: Instant) -> Connection {
        let (input, output) = (Vec::new(), Vec::new());
        Connection { attachment, stream, input, output, waiting: 0, ended: false, timer: now + IDLE }
    }

    /// Reads what is there; false if the connection is broken.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        self.timer = now + IDLE;
        match self.stream.read(buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => self.input.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
        true
    }

    /// The next whole query that was read.
    pub(super) fn next_query(&mut self) -> Option<Vec<u8>> {
        let end = usize::from(wire::word(&self.input, 0)?) + 2;
        if self.input.len() < end {
            return None;
        }
        let query = self.input.get(2..end)?.to_vec();
        self.input.drain(..end);
        Some(query)
    }

    /// Queues an answer.
    pub(super) fn answer(&mut self, packet: &[u8]) {
        let Ok(length) = u16::try_from(packet.len()) else { return };
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(packet);
    }

    /// Writes what can be written, and says what is next.
    pub(super) fn flush(&mut self) -> Wish {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) if written > 0 => drop(self.output.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                _ => return Wish::Close,
            }
        }
        let done = self.ended && self.waiting == 0 && self.output.is_empty();
        if done || self.output.len() > MAX_OUTPUT {
            return Wish::Close;
        }
        Wish::Poll(!self.ended, !self.output.is_empty())
    }
}
