//! nftables messages as bytes: headers, attributes, and the transaction that carries them.
//!
//! The packet crates have neither NAT nor masquerade, conntrack or fib expressions, so the attributes are
//! written here; names and numbers are those of `linux/netfilter/nf_tables.h`.

use std::io;

use netlink_sys::Socket;

use crate::Error;

const NETLINK_NETFILTER: isize = 12;
const SUBSYS_NFTABLES: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const F_DUMP: u16 = 0x300;
const F_DUMP_INTERRUPTED: u16 = 0x10;
const DUMP_ATTEMPTS: usize = 5;
/// `NFNLGRP_NFTABLES`.
const GROUP_NFTABLES: u32 = 7;
const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
const F_EXCLUSIVE: u16 = 0x200;
const F_CREATE: u16 = 0x400;
const F_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// `NFPROTO_INET`: one table for IPv4 and IPv6.
pub(super) const FAMILY_INET: u8 = 1;
/// `NFPROTO_BRIDGE`: what goes from port to port of a bridge.
pub(super) const FAMILY_BRIDGE: u8 = 7;
/// Answers of a transaction come at once; a kernel that keeps silent this long never will.
const ANSWER_SECONDS: u64 = 10;

/// Kinds of nftables messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    NewElements = 12,
    DelElements = 14,
}

/// The attributes of one message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // An attribute longer than its length field would be cut: callers keep lists below `u16::MAX`.
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A number in network byte order, as nftables wants all of its own.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// All of them as they are sent.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A transaction: all of it takes effect, or nothing.
pub(super) struct Transaction {
    buffer: Vec<u8>,
    describe: Vec<String>,
    family: u8,
}

/// Bits of a sequence number that count; those above say that the transaction is of this process.
const COUNT_BITS: u32 = 20;

/// What sequence numbers of this process start with. Notifications repeat them.
fn tag() -> u32 {
    static TAG: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *TAG.get_or_init(|| {
        let mut bytes = [0u8; 4];
        // Without entropy (never after boot) another process's changes might be taken for our own: no worse.
        let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK);
        (u32::from_ne_bytes(bytes) | 1 << 31) >> COUNT_BITS << COUNT_BITS
    })
}

/// Whether a notification's sequence number is of a transaction of this process.
pub(super) fn is_ours(sequence: u32) -> bool {
    sequence >> COUNT_BITS == tag() >> COUNT_BITS
}

impl Transaction {
    /// One of the family `inet`.
    pub(super) fn new() -> Self {
        Transaction::of(FAMILY_INET)
    }

    /// One whose messages are about tables of a family.
    pub(super) fn of(family: u8) -> Self {
        let mut transaction = Transaction { buffer: Vec::new(), describe: Vec::new(), family };
        transaction.frame(BATCH_BEGIN, F_REQUEST, 0, SUBSYS_NFTABLES >> 8, &[]);
        transaction
    }

    /// Adds something that must not be there yet: `EEXIST` if it is.
    pub(super) fn push_new(&mut self, kind: Kind, describe: impl Into<String>, attributes: Attributes) {
        self.describe.push(describe.into());
        let flags = F_REQUEST | F_ACK | F_CREATE | F_EXCLUSIVE;
        self.frame(SUBSYS_NFTABLES | kind as u16, flags, self.family, 0, &attributes.0);
    }

    pub(super) fn push(&mut self, kind: Kind, describe: impl Into<String>, attributes: Attributes) {
        let flags = match kind {
            Kind::DelTable | Kind::DelElements | Kind::DelRule => F_REQUEST | F_ACK,
            Kind::NewRule => F_REQUEST | F_ACK | F_CREATE | F_APPEND,
            _ => F_REQUEST | F_ACK | F_CREATE,
        };
        self.push_with(kind, flags, self.family, describe.into(), attributes);
    }

    /// A change of another table's rules. A new rule goes to the end of its chain, or before the one whose handle is
    /// among the attributes.
    pub(super) fn push_foreign(&mut self, kind: Kind, family: u8, before: bool, attributes: Attributes) {
        let create = if kind == Kind::NewRule { F_CREATE } else { 0 };
        let append = if kind == Kind::NewRule && !before { F_APPEND } else { 0 };
        let describe = "change another table's forward chain".to_owned();
        self.push_with(kind, F_REQUEST | F_ACK | create | append, family, describe, attributes);
    }

    fn push_with(&mut self, kind: Kind, flags: u16, family: u8, describe: String, attributes: Attributes) {
        self.describe.push(describe);
        self.frame(SUBSYS_NFTABLES | kind as u16, flags, family, 0, &attributes.0);
    }

    /// Whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.describe.is_empty()
    }

    /// One `nlmsghdr` with its `nfgenmsg`; sequence numbers count the described messages from one.
    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let length = (16 + 4 + body.len()) as u32;
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        let sequence = tag() | self.describe.len() as u32;
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        self.buffer.extend_from_slice(body);
    }

    /// Sends the transaction and waits for the kernel's word on each message.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        let messages = self.describe.len();
        self.frame(BATCH_END, F_REQUEST, 0, SUBSYS_NFTABLES >> 8, &[]);
        let failed = |operation: &str| {
            let operation = operation.to_string();
            move |source: io::Error| Error::Firewall { operation, source }
        };
        let socket = open().map_err(failed("open a netfilter socket"))?;
        socket.send(&self.buffer, 0).map_err(failed("send the transaction"))?;
        let mut answered = 0;
        while answered < messages {
            let (data, _) = socket.recv_from_full().map_err(failed("read the answer"))?;
            for (sequence, errno) in answers(&data) {
                if errno != 0 {
                    let source = io::Error::from_raw_os_error(errno);
                    let index = ((sequence & ((1 << COUNT_BITS) - 1)) as usize).checked_sub(1);
                    let operation = index.and_then(|i| self.describe.get(i)).map_or("commit", String::as_str);
                    return Err(Error::Firewall { operation: operation.into(), source });
                }
                answered += 1;
            }
        }
        Ok(())
    }
}

/// A socket that hears of every change of rules in this network namespace.
pub(super) fn open_for_notifications() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.add_membership(GROUP_NFTABLES)?;
    Ok(socket)
}

/// Asks for a list of objects: the messages that describe them, family and attributes each.
pub(super) fn dump(kind: Kind, family: u8, attributes: &Attributes) -> Result<Vec<Message>, Error> {
    let failed = |source| Error::Firewall { operation: "list rules".into(), source };
    let mut request = Transaction { buffer: Vec::new(), describe: Vec::new(), family };
    request.frame(SUBSYS_NFTABLES | kind as u16, F_REQUEST | F_DUMP, family, 0, &attributes.0);
    // A change in the middle of a list makes it worthless.
    for _ in 0..DUMP_ATTEMPTS {
        let socket = open().map_err(failed)?;
        socket.send(&request.buffer, 0).map_err(failed)?;
        let mut list = Vec::new();
        let whole = 'list: loop {
            let (data, _) = socket.recv_from_full().map_err(failed)?;
            for message in messages(&data) {
                if message.interrupted {
                    break 'list false;
                }
                match message.kind {
                    NLMSG_DONE => break 'list true,
                    NLMSG_ERROR => return Err(failed(io::Error::from_raw_os_error(message.errno()))),
                    _ => list.push(message),
                }
            }
        };
        if whole {
            return Ok(list);
        }
    }
    Err(failed(io::Error::from(io::ErrorKind::Interrupted)))
}

/// A message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The `nlmsghdr`'s type.
    pub kind: u16,
    pub sequence: u32,
    interrupted: bool,
    /// The `nfgenmsg`'s family.
    pub family: u8,
    /// Attributes after it.
    body: Vec<u8>,
}

impl Message {
    /// What kind of nftables object it is about, as the number of the message.
    pub(super) fn nftables_kind(&self) -> Option<u16> {
        (self.kind & 0xff00 == SUBSYS_NFTABLES).then_some(self.kind & 0xff)
    }

    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        find(&self.body, kind)
    }

    fn errno(&self) -> i32 {
        // The error number stands where other messages have family and so on, which is why `messages` keeps it.
        let code = self.body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
        code.wrapping_neg()
    }
}

/// The attributes in a buffer: type without flags, and content.
pub(super) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(data.get(2..4)?.try_into().ok()?);
        let content = data.get(4..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, content))
    })
}

/// The first attribute of a type.
pub(super) fn find(data: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(data).find(|(found, _)| *found == kind).map(|(_, content)| content)
}

/// The text of an attribute, without its end mark.
pub(super) fn text(data: &[u8]) -> &str {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    std::str::from_utf8(&data[..end]).unwrap_or_default()
}

/// The messages in a datagram.
pub(super) fn messages(data: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut rest = data;
    let word = |data: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
    };
    while let (Some(length), Some(kinds), Some(sequence)) = (word(rest, 0), word(rest, 4), word(rest, 8)) {
        let length = length as usize;
        let Some(message) = rest.get(16..length) else { break };
        let [kind, flags] = [kinds as u16, (kinds >> 16) as u16];
        // Little-endian reads put the type first; on a big-endian machine it is the other half.
        let [kind, flags] = if cfg!(target_endian = "big") { [flags, kind] } else { [kind, flags] };
        let body = if kind == NLMSG_ERROR { message } else { message.get(4..).unwrap_or_default() };
        found.push(Message {
            kind,
            sequence,
            interrupted: flags & F_DUMP_INTERRUPTED != 0,
            family: message.first().copied().unwrap_or_default(),
            body: body.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

pub(super) fn open() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.set_cap_ack(true)?;
    let timeout = Some(std::time::Duration::from_secs(ANSWER_SECONDS));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)?;
    Ok(socket)
}

/// The sequence number and errno (zero for an acknowledgement) of each answer in a datagram.
fn answers(data: &[u8]) -> Vec<(u32, i32)> {
    let word = |at: usize| -> Option<[u8; 4]> { data.get(at..at + 4)?.try_into().ok() };
    let mut found = Vec::new();
    let mut at = 0;
    while let (Some(length), Some(kind), Some(sequence)) = (word(at), word(at + 4), word(at + 8)) {
        let length = u32::from_ne_bytes(length) as usize;
        if length < 16 {
            break;
        }
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        if kind == NLMSG_ERROR
            && let Some(code) = word(at + 16)
        {
            found.push((u32::from_ne_bytes(sequence), i32::from_ne_bytes(code).wrapping_neg()));
        }
        at += length.next_multiple_of(4);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_aligned_and_counted() {
        let attributes = Attributes::default().text(1, "ab").number(2, 7);
        assert_eq!(attributes.0, [7, 0, 1, 0, b'a', b'b', 0, 0, 8, 0, 2, 0, 0, 0, 0, 7]);
        assert_eq!(attributes.len(), 16);
    }

    #[test]
    fn an_answer_carries_errno_and_sequence() {
        let mut data = vec![];
        data.extend_from_slice(&20u32.to_ne_bytes());
        data.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        data.extend_from_slice(&[0, 0]);
        data.extend_from_slice(&3u32.to_ne_bytes());
        data.extend_from_slice(&[0; 4]);
        data.extend_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(answers(&data), [(3, 17)]);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            answers(&data);
            for message in messages(&data) {
                attributes(&message.body).count();
            }
        }
    }
}
