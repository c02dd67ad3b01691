//! Links between containers that else do not reach each other: a table `bridge berth`, there while somebody needs it.
//!
//! Ports of a bridge without traffic between its containers are isolated, and never meet. Who takes part in a link is
//! not isolated, but one of [`PARTNERS`]: of what the bridge would carry from there or to there, these rules let through
//! what a link opens and its answers, and the questions for addresses that come before. They need neither connection
//! tracking nor `br_netfilter`, which few hosts have for bridges.

use std::net::IpAddr;

use super::expression::{Base, Expressions, Meta, R0, R1, R2, R3, R4, R8, R9, Verdict};
use super::message::{Attributes, FAMILY_BRIDGE, Kind, Transaction};
use super::table::Table;
use super::{FirewallState, element, elements, ifname, octets, padded};
use super::{IFNAME_TYPE, IPV4_TYPE, IPV6_TYPE, KEY_IS_HOST_ENDIAN, PROTO_TYPE, SERVICE_TYPE};
use crate::{Error, Protocol};

/// The host's ends of those that take part in links.
const PARTNERS: &str = "partners";
/// Pairs of addresses, in both directions, by family.
const PAIRS: [&str; 2] = ["pairs", "pairs6"];
/// Who asks, who is asked, protocol and port, by family.
pub(super) const LINKED: [&str; 2] = ["linked", "linked6"];
/// Who was asked, who asked, protocol and port, by family.
const ANSWERS: [&str; 2] = ["answers", "answers6"];
const FORWARD_HOOK: u32 = 2;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Neighbour solicitation and advertisement (RFC 4861): what ARP is to IPv4.
pub(super) const NEIGHBOURS: [u8; 2] = [135, 136];
/// The next header that begins a fragment.
const FRAGMENT: u8 = 44;
/// Where a fragment belongs in its packet, of the field that has flags too.
const FRAGMENT_OFFSET: [u8; 2] = [0x1f, 0xff];
/// The same of IPv6, where the header of the fragment follows that of the packet.
const FRAGMENT_OFFSET6: [u8; 2] = [0xff, 0xf8];

/// A port of one container that another on the same bridge reaches by a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linked {
    /// The bridge's link.
    pub bridge: String,
    /// Who asks.
    pub from: IpAddr,
    /// Who is asked, by the same family.
    pub to: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Makes the table what `state` says; none, if nobody takes part in a link. True if it is there now.
pub(super) fn reconcile(table: &Table, state: &FirewallState) -> Result<bool, Error> {
    let mut transaction = Transaction::of(FAMILY_BRIDGE);
    if state.partners.is_empty() {
        table.remove(&mut transaction);
        // A kernel that does not filter bridges has no such table.
        let _ = transaction.commit();
        return Ok(false);
    }
    table.renew(&mut transaction);
    add_sets(table, &mut transaction);
    let hook = Attributes::default().number(1, FORWARD_HOOK).number(2, 0);
    let chain = table.named().text(3, "forward").nested(4, hook).number(5, 1).text(7, "filter");
    transaction.push(Kind::NewChain, "add chain forward", chain);
    add_rules(table, &mut transaction);
    all_elements(table, &mut transaction, Kind::NewElements, state);
    transaction.commit().map(|()| true)
}

/// Puts elements in the place of others, in a table that is there.
pub(super) fn exchange(table: &Table, old: &FirewallState, new: &FirewallState) -> Result<(), Error> {
    let mut transaction = Transaction::of(FAMILY_BRIDGE);
    all_elements(table, &mut transaction, Kind::DelElements, old);
    all_elements(table, &mut transaction, Kind::NewElements, new);
    if transaction.is_empty() { Ok(()) } else { transaction.commit() }
}

/// The type of what links open, and the bytes of such a key: address, address, protocol, port.
pub(super) const OPENED: [(u32, u32); 2] = [
    (((IPV4_TYPE << 6 | IPV4_TYPE) << 6 | PROTO_TYPE) << 6 | SERVICE_TYPE, 16),
    (((IPV6_TYPE << 6 | IPV6_TYPE) << 6 | PROTO_TYPE) << 6 | SERVICE_TYPE, 40),
];

fn add_sets(table: &Table, transaction: &mut Transaction) {
    let [pair4, pair6] = [(IPV4_TYPE << 6 | IPV4_TYPE, 8), (IPV6_TYPE << 6 | IPV6_TYPE, 32)];
    let sets = [
        (PARTNERS, (IFNAME_TYPE, 16u32)),
        (PAIRS[0], pair4),
        (LINKED[0], OPENED[0]),
        (ANSWERS[0], OPENED[0]),
        (PAIRS[1], pair6),
        (LINKED[1], OPENED[1]),
        (ANSWERS[1], OPENED[1]),
    ];
    for (id, (name, (key, bytes))) in (1u32..).zip(sets) {
        let set = table.named().text(2, name).number(3, 0);
        let set = set.number(4, key).number(5, bytes);
        let set = if key == IFNAME_TYPE { set.bytes(13, &KEY_IS_HOST_ENDIAN) } else { set };
        transaction.push(Kind::NewSet, format!("add set {name}"), set.number(10, id));
    }
}

fn add_rules(table: &Table, transaction: &mut Transaction) {
    let mut add = |expressions: Expressions| {
        let rule = table.named().text(2, "forward");
        let rule = rule.nested(4, expressions.into_attributes());
        transaction.push(Kind::NewRule, "add rule to forward", rule);
    };
    let rule = Expressions::default;
    // Nobody's business here.
    let others = rule().meta(Meta::InputName, R0).in_set(PARTNERS, R0, true);
    add(others.meta(Meta::OutputName, R0).in_set(PARTNERS, R0, true).verdict(Verdict::Accept));
    // The way to the gateway. What comes from there has passed the first bridge.
    for end in [Meta::InputName, Meta::OutputName] {
        add(rule().meta(end, R0).equal(R0, crate::trunk::ABOVE.as_bytes()).verdict(Verdict::Accept));
    }
    add_rules4(&mut add);
    add_rules6(&mut add);
    add(rule().verdict(Verdict::Drop));
}

fn add_rules4(add: &mut impl FnMut(Expressions)) {
    let arp = Expressions::default().meta(Meta::EtherType, R0).equal(R0, &ETHERTYPE_ARP);
    let arp = arp.payload(Base::Network, 14, 4, R0).payload(Base::Network, 24, 4, R1);
    add(arp.in_set(PAIRS[0], R0, false).verdict(Verdict::Accept));
    let ipv4 = || Expressions::default().meta(Meta::EtherType, R0).equal(R0, &ETHERTYPE_IPV4);
    let pair = |r: Expressions| r.payload(Base::Network, 12, 4, R0).payload(Base::Network, 16, 4, R1);
    // Later fragments do not say which port they are for; without the first they are of no use.
    let later = ipv4().payload(Base::Network, 6, 2, R0).masked_not_equal(R0, &FRAGMENT_OFFSET, &[0; 2]);
    add(pair(later).in_set(PAIRS[0], R0, false).verdict(Verdict::Accept));
    for (set, port) in [(LINKED[0], 2), (ANSWERS[0], 0)] {
        let packet = pair(ipv4()).meta(Meta::TransportProtocol, R2).payload(Base::Transport, port, 2, R3);
        add(packet.in_set(set, R0, false).verdict(Verdict::Accept));
    }
}

fn add_rules6(add: &mut impl FnMut(Expressions)) {
    let ipv6 = || Expressions::default().meta(Meta::EtherType, R0).equal(R0, &ETHERTYPE_IPV6);
    // Who looks for a neighbour says so from an address of the link, too, and to a group: only the ends are looked at.
    for kind in NEIGHBOURS {
        let ends = [Meta::InputName, Meta::OutputName]
            .into_iter()
            .fold(ipv6(), |rule, end| rule.meta(end, R0).in_set(PARTNERS, R0, false));
        add(ends.icmpv6(kind).verdict(Verdict::Accept));
    }
    let pair = |r: Expressions| r.payload(Base::Network, 8, 16, R0).payload(Base::Network, 24, 16, R4);
    let later = ipv6().payload(Base::Network, 6, 1, R0).equal(R0, &[FRAGMENT]);
    let later = later.payload(Base::Network, 42, 2, R0).masked_not_equal(R0, &FRAGMENT_OFFSET6, &[0; 2]);
    add(pair(later).in_set(PAIRS[1], R0, false).verdict(Verdict::Accept));
    for (set, port) in [(LINKED[1], 2), (ANSWERS[1], 0)] {
        let packet = pair(ipv6()).meta(Meta::TransportProtocol, R8).payload(Base::Transport, port, 2, R9);
        add(packet.in_set(set, R0, false).verdict(Verdict::Accept));
    }
}

fn all_elements(table: &Table, transaction: &mut Transaction, kind: Kind, state: &FirewallState) {
    let partners = state.partners.iter().map(|name| element(&ifname(name), None));
    elements(table, transaction, kind, PARTNERS, partners.collect());
    let pair = |one: IpAddr, other: IpAddr| [octets(one), octets(other)].concat();
    for (family, v6) in [false, true].into_iter().enumerate() {
        let mut pairs: Vec<Vec<u8>> = Vec::new();
        for (one, other) in state.pairs.iter().filter(|(one, _)| one.is_ipv6() == v6) {
            pairs.extend([pair(*one, *other), pair(*other, *one)]);
        }
        pairs.sort_unstable();
        pairs.dedup();
        let pairs = pairs.iter().map(|key| element(key, None)).collect();
        elements(table, transaction, kind, PAIRS[family], pairs);
        elements(table, transaction, kind, LINKED[family], keys(&state.links, v6, false));
        elements(table, transaction, kind, ANSWERS[family], keys(&state.links, v6, true));
    }
}

/// Links of one family as elements; `answers` is their way back.
pub(super) fn keys(links: &[Linked], v6: bool, answers: bool) -> Vec<Attributes> {
    let key = |link: &Linked| {
        let (from, to) = if answers { (link.to, link.from) } else { (link.from, link.to) };
        let mut key = [octets(from), octets(to), vec![link.protocol.number(), 0, 0, 0]].concat();
        key.extend_from_slice(&padded(link.port));
        element(&key, None)
    };
    links.iter().filter(|link| link.to.is_ipv6() == v6).map(key).collect()
}
