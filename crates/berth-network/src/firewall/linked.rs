//! Links between containers that else do not reach each other: a table `bridge berth`, there while somebody needs it.
//!
//! Ports of a bridge without traffic between its containers are isolated, and never meet. Who takes part in a link is
//! not isolated, but one of [`PARTNERS`]: of what the bridge would carry from there or to there, these rules let through
//! what a link opens and its answers, by IPv4 alone, and the questions for addresses that come before. They need neither
//! connection tracking nor `br_netfilter`, which few hosts have for bridges.

use std::net::Ipv4Addr;

use super::expression::{Base, Expressions, Meta, R0, R1, R2, R3, Verdict};
use super::message::{Attributes, FAMILY_BRIDGE, Kind, Transaction};
use super::table::Table;
use super::{FirewallState, element, elements, ifname, padded};
use super::{IFNAME_TYPE, IPV4_TYPE, KEY_IS_HOST_ENDIAN, PROTO_TYPE, SERVICE_TYPE};
use crate::{Error, Protocol};

/// The host's ends of those that take part in links.
const PARTNERS: &str = "partners";
/// Pairs of addresses, in both directions.
const PAIRS: &str = "pairs";
/// Who asks, who is asked, protocol and port.
pub(super) const LINKED: &str = "linked";
/// Who was asked, who asked, protocol and port.
const ANSWERS: &str = "answers";
const FORWARD_HOOK: u32 = 2;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Where a fragment belongs in its packet, of the field that has flags too.
const FRAGMENT_OFFSET: [u8; 2] = [0x1f, 0xff];

/// A port of one container that another on the same bridge reaches by a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linked {
    /// The bridge's link.
    pub bridge: String,
    /// Who asks.
    pub from: Ipv4Addr,
    /// Who is asked.
    pub to: Ipv4Addr,
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

fn add_sets(table: &Table, transaction: &mut Transaction) {
    let pair = IPV4_TYPE << 6 | IPV4_TYPE;
    let opened = (pair << 6 | PROTO_TYPE) << 6 | SERVICE_TYPE;
    let sets = [
        (1u32, PARTNERS, IFNAME_TYPE, 16u32),
        (2, PAIRS, pair, 8),
        (3, LINKED, opened, 16),
        (4, ANSWERS, opened, 16),
    ];
    for (id, name, key, bytes) in sets {
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
    let arp = rule().meta(Meta::EtherType, R0).equal(R0, &ETHERTYPE_ARP);
    let arp = arp.payload(Base::Network, 14, 4, R0).payload(Base::Network, 24, 4, R1);
    add(arp.in_set(PAIRS, R0, false).verdict(Verdict::Accept));
    let ipv4 = || rule().meta(Meta::EtherType, R0).equal(R0, &ETHERTYPE_IPV4);
    let pair = |r: Expressions| r.payload(Base::Network, 12, 4, R0).payload(Base::Network, 16, 4, R1);
    // Later fragments do not say which port they are for; without the first they are of no use.
    let later = ipv4().payload(Base::Network, 6, 2, R0).masked_not_equal(R0, &FRAGMENT_OFFSET, &[0; 2]);
    add(pair(later).in_set(PAIRS, R0, false).verdict(Verdict::Accept));
    for (set, port) in [(LINKED, 2), (ANSWERS, 0)] {
        let packet = pair(ipv4()).meta(Meta::TransportProtocol, R2).payload(Base::Transport, port, 2, R3);
        add(packet.in_set(set, R0, false).verdict(Verdict::Accept));
    }
    add(rule().verdict(Verdict::Drop));
}

fn all_elements(table: &Table, transaction: &mut Transaction, kind: Kind, state: &FirewallState) {
    let partners = state.partners.iter().map(|name| element(&ifname(name), None));
    elements(table, transaction, kind, PARTNERS, partners.collect());
    let pair = |one: Ipv4Addr, other: Ipv4Addr| [one.octets(), other.octets()].concat();
    let mut pairs: Vec<Vec<u8>> = Vec::new();
    for (one, other) in &state.pairs {
        pairs.extend([pair(*one, *other), pair(*other, *one)]);
    }
    pairs.sort_unstable();
    pairs.dedup();
    elements(table, transaction, kind, PAIRS, pairs.iter().map(|key| element(key, None)).collect());
    elements(table, transaction, kind, LINKED, keys(&state.links, false));
    elements(table, transaction, kind, ANSWERS, keys(&state.links, true));
}

/// Links as elements; `answers` is their way back.
pub(super) fn keys(links: &[Linked], answers: bool) -> Vec<Attributes> {
    let key = |link: &Linked| {
        let (from, to) = if answers { (link.to, link.from) } else { (link.from, link.to) };
        let mut key = [from.octets(), to.octets(), [link.protocol.number(), 0, 0, 0]].concat();
        key.extend_from_slice(&padded(link.port));
        element(&key, None)
    };
    links.iter().map(key).collect()
}
