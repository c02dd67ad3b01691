//! Answers from the table, and the bytes of all answers to clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::TTL;
use super::random::Random;
use super::table::{Table, View};
use super::wire::{self, EDNS_UDP, HEADER, INTERNET, Query, code, flag, kind};

/// Length of an OPT record without options.
const OPT_LENGTH: usize = 11;

/// An answer that is being written, at most `limit` bytes.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    answers: u16,
    truncated: bool,
}

impl<'a> Writer<'a> {
    /// Begins the answer to `query`, whose bytes are `packet`: the client's id and question, letter by letter.
    pub(super) fn new(out: &'a mut Vec<u8>, query: &Query, packet: &[u8], limit: usize) -> Self {
        out.clear();
        let kept = flag::OPCODE | flag::RECURSION_DESIRED | flag::CHECKING_DISABLED;
        let flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | query.flags & kept;
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(packet.get(HEADER..query.question_end).unwrap_or_default());
        let limit = limit.saturating_sub(query.edns.map_or(0, |_| OPT_LENGTH));
        Writer { out, limit, answers: 0, truncated: false }
    }

    /// Appends a record of the question's name; one that does not fit sets the mark of a truncated answer.
    fn record(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.out.len();
        // The name is a pointer to the question.
        self.out.extend_from_slice(&[0xc0, HEADER as u8]);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&INTERNET.to_be_bytes());
        self.out.extend_from_slice(&TTL.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        let data = self.out.len();
        let written = write(self.out);
        let length = self.out.len() - data;
        let fits = self.out.len() <= self.limit && !self.truncated;
        self.truncated |= !fits;
        if written && fits {
            wire::set_word(self.out, data - 2, length as u16);
            self.answers += 1;
        } else {
            self.out.truncate(start);
        }
    }

    /// Ends the answer.
    pub(super) fn finish(self, query: &Query, response_code: u16) {
        let mut flags = wire::word(self.out, 2).unwrap_or(0) | response_code;
        if self.truncated {
            flags |= flag::TRUNCATED;
        }
        wire::set_word(self.out, 2, flags);
        wire::set_word(self.out, 6, self.answers);
        append_opt(self.out, query, 0);
    }
}

/// Appends the OPT record that a client with EDNS expects, with the upper bits of the response code.
pub(super) fn append_opt(out: &mut Vec<u8>, query: &Query, extended_code: u8) {
    let Some(edns) = query.edns else { return };
    let additional = wire::word(out, 10).unwrap_or(0);
    wire::set_word(out, 10, additional.saturating_add(1));
    out.push(0);
    out.extend_from_slice(&kind::OPT.to_be_bytes());
    out.extend_from_slice(&EDNS_UDP.to_be_bytes());
    let signatures = if edns.signatures { 0x80 } else { 0 };
    out.extend_from_slice(&[extended_code, 0, signatures, 0, 0, 0]);
}

/// Writes an answer without records.
pub(super) fn empty(out: &mut Vec<u8>, query: &Query, packet: &[u8], response_code: u16) {
    Writer::new(out, query, packet, usize::MAX).finish(query, response_code);
}

/// Writes the answer to a message whose question could not be read.
pub(super) fn refusal(out: &mut Vec<u8>, packet: &[u8], response_code: u16) {
    let (Some(id), Some(flags)) = (wire::word(packet, 0), wire::word(packet, 2)) else { return };
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED);
    let flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | response_code;
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// Writes the answer to a question about containers; false, and nothing written, if it is about something else.
pub(super) fn local(
    out: &mut Vec<u8>,
    (table, view): (&Table, &View),
    (query, packet): (&Query, &[u8]),
    limit: usize,
    random: &mut Random,
) -> bool {
    let mut buffer = [0; 255];
    let Some(name) = query.name.text(&mut buffer) else { return false };
    if query.class != INTERNET {
        return false;
    }
    if query.kind == kind::PTR
        && let Some(host) = reverse_address(name).and_then(|address| table.reverse(view, address))
    {
        let mut writer = Writer::new(out, query, packet, limit);
        writer.record(kind::PTR, |out| wire::write_name(out, &host));
        writer.finish(query, code::NO_ERROR);
        return true;
    }
    let Some(members) = table.resolve(view, name) else { return false };
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(members.len());
    for address in members.iter().flat_map(|member| &member.addresses) {
        let wanted = match query.kind {
            kind::A => address.is_ipv4(),
            kind::AAAA => address.is_ipv6(),
            _ => false,
        };
        // Two containers can have one address for a moment.
        if wanted && (members.len() == 1 || !addresses.contains(address)) {
            addresses.push(*address);
        }
    }
    shuffle(&mut addresses, random);
    let mut writer = Writer::new(out, query, packet, limit);
    for address in addresses {
        writer.record(query.kind, |out| {
            match address {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
            }
            true
        });
    }
    writer.finish(query, code::NO_ERROR);
    true
}

fn shuffle(addresses: &mut [IpAddr], random: &mut Random) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(last, random.below(last + 1));
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(text) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = text.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            *octet = plain.then(|| part.parse().ok())??;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let mut parts = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut number = 0u128;
    for place in 0..32 {
        let [digit] = parts.next()?.as_bytes() else { return None };
        number |= u128::from(char::from(*digit).to_digit(16)?) << (4 * place);
    }
    parts.next().is_none().then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Config, Member, Membership};

    fn packet(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert!(wire::write_name(&mut packet, name));
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    fn ask(name: &str, kind: u16, limit: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut table = Table::default();
        let v4 = (0..100).map(|n| format!("10.0.0.{n}").parse().unwrap()).collect();
        table.join("n", "net", Member { owner: "a".into(), names: vec!["many".into()], addresses: v4 });
        let addresses = vec!["10.0.1.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        table.join("n", "net", Member { owner: "b".into(), names: vec!["both".into()], addresses });
        let networks = vec![Membership { network: "n".into(), links: vec![] }];
        let view = View::new(&Config { networks, ..Config::default() });
        let packet = packet(name, kind);
        let query = Query::read(&packet).unwrap();
        let mut out = Vec::new();
        let known = local(&mut out, (&table, &view), (&query, &packet), limit, &mut Random::new());
        known.then_some((packet, out))
    }

    #[test]
    fn answers_carry_the_question_as_it_was_written() {
        let (asked, answer) = ask("BoTh.Net", kind::A, 512).unwrap();
        assert_eq!(answer[..2], asked[..2]);
        assert_eq!(answer[2..12], [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..asked.len()], asked[12..]);
        assert_eq!(answer[asked.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 0x58, 0, 4, 10, 0, 1, 1]);
    }

    #[test]
    fn other_types_of_a_known_name_are_empty_and_other_names_are_not_ours() {
        for kind in [kind::AAAA, 15, 16, 33, 65] {
            let (_, answer) = ask("many", kind, 512).unwrap();
            assert_eq!(answer[2..12], [0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], "{kind}");
        }
        assert!(ask("nobody", kind::A, 512).is_none());
        assert!(ask("1.2.0.192.in-addr.arpa", kind::PTR, 512).is_none());
    }

    #[test]
    fn what_does_not_fit_is_truncated() {
        let (_, answer) = ask("many", kind::A, 512).unwrap();
        assert!(answer.len() <= 512 && answer.len() > 480);
        assert_eq!(answer[2] & 2, 2);
        assert_eq!(usize::from(answer[7]), (answer.len() - 22) / 16);
        let (_, whole) = ask("many", kind::A, 65535).unwrap();
        assert_eq!((whole[2] & 2, whole[7]), (0, 100));
    }

    #[test]
    fn addresses_lead_back() {
        let v6 = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        for name in ["1.1.0.10.in-addr.arpa", &v6] {
            let (asked, answer) = ask(name, kind::PTR, 512).unwrap();
            assert_eq!(answer[asked.len() + 12..], *b"\x04both\x03net\x00", "{name}");
        }
    }

    #[test]
    fn reverse_names_are_strict() {
        for bad in [
            "1.2.3.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "01.2.3.4.in-addr.arpa",
            "+1.2.3.4.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "1.ip6.arpa",
            ".in-addr.arpa",
            "x",
        ] {
            assert_eq!(reverse_address(bad), None, "{bad}");
        }
    }
}
