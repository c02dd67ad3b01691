//! What a log driver sends elsewhere: one message per line, in the form of its protocol.

mod fluentd;
mod gelf;
mod journald;
mod msgpack;
pub(crate) mod splunk;
mod syslog;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Stream;
pub use fluentd::Fluentd;
pub use gelf::{Compression, Gelf};
pub use journald::Journald;
pub use splunk::{Splunk, SplunkForm};
pub use syslog::{Syslog, SyslogForm};

/// A protocol, with everything that is the same in all of a container's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Syslog, by RFC 3164 or 5424.
    Syslog(Syslog),
    /// The journal's native protocol.
    Journald(Journald),
    /// Graylog's.
    Gelf(Gelf),
    /// Fluentd's forward protocol.
    Fluentd(Fluentd),
    /// Splunk's HTTP Event Collector.
    Splunk(Splunk),
}

/// A line, or a piece of a long one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) time: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) text: &'a [u8],
    /// Of a line that came in pieces: which this is.
    pub(crate) piece: Option<Piece<'a>>,
    /// Position among the messages of this run, from 1.
    pub(crate) ordinal: u64,
}

/// Which piece of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The same for all pieces of one line.
    pub(crate) id: &'a str,
    /// From 1.
    pub(crate) ordinal: u32,
    pub(crate) last: bool,
}

/// What is written at once: a datagram, or a part of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// What the other side answers when it has got it.
    pub(crate) acknowledgement: Acknowledgement,
}

/// What the other side of a connection answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// Nothing.
    #[default]
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// What HTTP has for it; the packet is a request with so many messages.
    Http(u64),
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, acknowledgement: Acknowledgement::None }
    }
}

impl Protocol {
    /// The packets of a message, in order; none if the protocol has no form for it (as syslog for an empty line).
    pub(crate) fn encode(&self, message: &Message<'_>) -> Vec<Packet> {
        match self {
            Self::Syslog(syslog) => syslog.encode(message).map(Packet::from).into_iter().collect(),
            Self::Journald(journald) => vec![journald.encode(message).into()],
            Self::Gelf(gelf) => gelf.encode(message).into_iter().map(Packet::from).collect(),
            Self::Fluentd(fluentd) => vec![fluentd.encode(message)],
            Self::Splunk(splunk) => splunk.encode(message).map(Packet::from).into_iter().collect(),
        }
    }
}

/// Random characters for a name, as many as asked for, in hexadecimal.
pub(crate) fn random_name(length: usize) -> String {
    let mut bytes = vec![0u8; length.div_ceil(2)];
    // Without randomness names repeat, which only confuses a reader of partial lines.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let mut name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    name.truncate(length);
    name
}

#[cfg(test)]
pub(super) fn message(text: &[u8]) -> Message<'_> {
    let time = Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap();
    Message { time, stream: Stream::Stdout, text, piece: None, ordinal: 1 }
}
