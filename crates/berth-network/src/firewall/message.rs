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
const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
const F_EXCLUSIVE: u16 = 0x200;
const F_CREATE: u16 = 0x400;
const F_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// `NFPROTO_INET`: one table for IPv4 and IPv6.
const FAMILY_INET: u8 = 1;
/// Answers of a transaction come at once; a kernel that keeps silent this long never will.
const ANSWER_SECONDS: u64 = 10;

/// Kinds of nftables messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    NewRule = 6,
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

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A transaction: all of it takes effect, or nothing.
pub(super) struct Transaction {
    buffer: Vec<u8>,
    describe: Vec<String>,
}

impl Transaction {
    pub(super) fn new() -> Self {
        let mut transaction = Transaction { buffer: Vec::new(), describe: Vec::new() };
        transaction.frame(BATCH_BEGIN, F_REQUEST, 0, SUBSYS_NFTABLES >> 8, &[]);
        transaction
    }

    /// Adds something that must not be there yet: `EEXIST` if it is.
    pub(super) fn push_new(&mut self, kind: Kind, describe: impl Into<String>, attributes: Attributes) {
        self.describe.push(describe.into());
        let flags = F_REQUEST | F_ACK | F_CREATE | F_EXCLUSIVE;
        self.frame(SUBSYS_NFTABLES | kind as u16, flags, FAMILY_INET, 0, &attributes.0);
    }

    pub(super) fn push(&mut self, kind: Kind, describe: impl Into<String>, attributes: Attributes) {
        self.describe.push(describe.into());
        let flags = match kind {
            Kind::DelTable | Kind::DelElements => F_REQUEST | F_ACK,
            Kind::NewRule => F_REQUEST | F_ACK | F_CREATE | F_APPEND,
            _ => F_REQUEST | F_ACK | F_CREATE,
        };
        self.frame(SUBSYS_NFTABLES | kind as u16, flags, FAMILY_INET, 0, &attributes.0);
    }

    /// One `nlmsghdr` with its `nfgenmsg`; sequence numbers count the described messages from one.
    fn frame(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let length = (16 + 4 + body.len()) as u32;
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&(self.describe.len() as u32).to_ne_bytes());
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
                    let index = (sequence as usize).checked_sub(1);
                    let operation = index.and_then(|i| self.describe.get(i)).map_or("commit", String::as_str);
                    return Err(Error::Firewall { operation: operation.into(), source });
                }
                answered += 1;
            }
        }
        Ok(())
    }
}

fn open() -> io::Result<Socket> {
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
        }
    }
}
