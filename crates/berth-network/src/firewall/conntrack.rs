//! The kernel's memory of connections (`linux/netfilter/nfnetlink_conntrack.h`): what is translated stays so until its entry
//! is gone, and what was not translated before a port was published is not after it either.

use std::io;
use std::net::IpAddr;

use super::message::Attributes;
use crate::{Error, Protocol};

const SUBSYS_CONNTRACK: u16 = 1 << 8;
const GET: u16 = SUBSYS_CONNTRACK | 1;
const DELETE: u16 = SUBSYS_CONNTRACK | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;

/// Attributes of an entry.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// Attributes of a tuple, and of its parts.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
const IPV4_SOURCE: u16 = 1;
const IPV6_SOURCE: u16 = 3;
/// What of a tuple a filter compares.
const BY_SOURCE_ADDRESS: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Which connections to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flows {
    /// Those that a container answers: all, or at one of its ports.
    Of(IpAddr, Option<(Protocol, u16)>),
    /// Those that were sent to a port of the host, by one family.
    To(Protocol, u16, bool),
}

impl Flows {
    /// Whether an entry that the kernel tells of is one of these. Of IPv6 addresses the kernel is not asked: it tells of all
    /// that have another (seen with Linux 6.18).
    fn include(self, entry: &[u8]) -> bool {
        let Flows::Of(address, _) = self else { return true };
        let ip = attribute(entry, TUPLE_REPLY).and_then(|tuple| attribute(tuple, TUPLE_IP));
        match address {
            IpAddr::V4(v4) => ip.and_then(|ip| attribute(ip, IPV4_SOURCE)) == Some(&v4.octets()[..]),
            IpAddr::V6(v6) => ip.and_then(|ip| attribute(ip, IPV6_SOURCE)) == Some(&v6.octets()[..]),
        }
    }
}

/// Forgets connections. What of them is still sent is looked at anew.
pub fn forget(flows: &[Flows]) -> Result<(), Error> {
    let failed = |source| Error::Firewall { operation: "forget connections".into(), source };
    flows.iter().try_for_each(|one| forget_one(*one).map_err(failed))
}

fn forget_one(flows: Flows) -> io::Result<()> {
    let socket = super::message::open()?;
    let (family, query) = query(flows);
    socket.send(&frame(GET, REQUEST | DUMP, family, &query), 0)?;
    let mut entries = Vec::new();
    'all: loop {
        let (data, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&data) {
            match kind {
                NLMSG_DONE => break 'all,
                NLMSG_ERROR => check(body)?,
                // After `nfgenmsg` come the attributes.
                _ => entries.extend(body.get(4..).filter(|entry| flows.include(entry)).and_then(identity)),
            }
        }
    }
    for entry in entries {
        socket.send(&frame(DELETE, REQUEST | ACK, family, &entry), 0)?;
        let (data, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&data) {
            if kind == NLMSG_ERROR
                && let Err(error) = check(body)
                // It has ended in between.
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The family, and the attributes that choose entries in the kernel.
fn query(flows: Flows) -> (u8, Vec<u8>) {
    let word = |value: u32| value.to_ne_bytes();
    let protocol = |number: u8, (attribute, port): (u16, u16)| {
        Attributes::default().bytes(PROTOCOL_NUMBER, &[number]).bytes(attribute, &port.to_be_bytes())
    };
    let filter =
        |original: u32, reply: u32| Attributes::default().bytes(1, &word(original)).bytes(2, &word(reply));
    let (family, attributes) = match flows {
        Flows::Of(address, port) => {
            let family = if address.is_ipv4() { FAMILY_INET } else { FAMILY_INET6 };
            let (mut tuple, mut flags) = (Attributes::default(), 0);
            if let IpAddr::V4(v4) = address {
                let ip = Attributes::default().bytes(IPV4_SOURCE, &v4.octets());
                (tuple, flags) = (tuple.nested(TUPLE_IP, ip), BY_SOURCE_ADDRESS);
            }
            if let Some((kind, port)) = port {
                let part = protocol(kind.number(), (PROTOCOL_SOURCE, port));
                (tuple, flags) = (tuple.nested(TUPLE_PROTOCOL, part), flags | BY_PROTOCOL | BY_SOURCE_PORT);
            }
            let attributes = match flags {
                0 => Attributes::default(),
                _ => Attributes::default().nested(TUPLE_REPLY, tuple).nested(FILTER, filter(0, flags)),
            };
            (family, attributes)
        }
        Flows::To(kind, port, v6) => {
            let part = protocol(kind.number(), (PROTOCOL_DESTINATION, port));
            let tuple = Attributes::default().nested(TUPLE_PROTOCOL, part);
            let all = Attributes::default().nested(TUPLE_ORIGINAL, tuple);
            let flags = BY_PROTOCOL | BY_DESTINATION_PORT;
            (if v6 { FAMILY_INET6 } else { FAMILY_INET }, all.nested(FILTER, filter(flags, 0)))
        }
    };
    (family, attributes.into_bytes())
}

fn frame(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(20 + body.len());
    buffer.extend_from_slice(&((20 + body.len()) as u32).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&[family, 0, 0, 0]);
    buffer.extend_from_slice(body);
    buffer
}

/// What identifies an entry, of all that the kernel tells of it.
fn identity(entry: &[u8]) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    let mut whole = false;
    for (kind, attribute) in attributes(entry).filter(|(kind, _)| matches!(*kind, TUPLE_ORIGINAL | ZONE)) {
        found.extend_from_slice(attribute);
        found.resize(found.len().next_multiple_of(4), 0);
        whole |= kind == TUPLE_ORIGINAL;
    }
    whole.then_some(found)
}

/// What an attribute of a kind holds.
fn attribute(all: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(all).find(|(kind, _)| *kind == wanted).and_then(|(_, attribute)| attribute.get(4..))
}

/// Kinds and attributes, each with its header.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NESTED;
        let attribute = rest.get(..length).filter(|_| length >= 4)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, attribute))
    })
}

/// Kinds and bodies of the messages in a datagram.
fn messages(data: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = data.get(at..at + 16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = data.get(at + 16..at.saturating_add(length)) else { break };
        found.push((kind, body));
        at += length.next_multiple_of(4);
    }
    found
}

fn check(body: &[u8]) -> io::Result<()> {
    match body.get(..4) {
        Some([a, b, c, d]) => match i32::from_ne_bytes([*a, *b, *c, *d]).wrapping_neg() {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_told_by_its_original_tuple_and_zone() {
        let tuple = Attributes::default().bytes(PROTOCOL_NUMBER, &[17]);
        let all =
            Attributes::default().nested(TUPLE_ORIGINAL, tuple.clone()).nested(TUPLE_REPLY, tuple.clone());
        let all = all.bytes(ZONE, &[0, 7]).bytes(7, &[0; 4]).into_bytes();
        let expected = Attributes::default().nested(TUPLE_ORIGINAL, tuple).bytes(ZONE, &[0, 7]);
        assert_eq!(identity(&all).unwrap(), expected.into_bytes());
        assert_eq!(identity(&[]), None);
    }

    #[test]
    fn a_containers_flows_are_those_that_it_answers() {
        let entry = |from: IpAddr| {
            let ip = match from {
                IpAddr::V4(v4) => Attributes::default().bytes(IPV4_SOURCE, &v4.octets()),
                IpAddr::V6(v6) => Attributes::default().bytes(IPV6_SOURCE, &v6.octets()),
            };
            let tuple = |ip: Attributes| Attributes::default().nested(TUPLE_IP, ip);
            let other = tuple(Attributes::default().bytes(IPV4_SOURCE, &[10, 0, 0, 9]));
            Attributes::default().nested(TUPLE_ORIGINAL, other).nested(TUPLE_REPLY, tuple(ip)).into_bytes()
        };
        let [four, six, other] =
            ["10.0.0.2", "fd00::2", "fd00::3"].map(|text| text.parse::<IpAddr>().unwrap());
        for one in [four, six, other] {
            for address in [four, six, other] {
                assert_eq!(Flows::Of(address, None).include(&entry(one)), one == address, "{one} {address}");
            }
            assert!(Flows::To(Protocol::Udp, 53, false).include(&entry(one)));
        }
        assert!(!Flows::Of("10.0.0.9".parse().unwrap(), None).include(&entry(four)), "who asked");
        assert!(!Flows::Of(four, None).include(&[]));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, body) in messages(&data) {
                let of_any = Flows::Of(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), None);
                let _ = (identity(body), check(body), of_any.include(body));
            }
        }
    }
}
