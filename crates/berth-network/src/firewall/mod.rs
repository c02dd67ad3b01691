//! The host's filtering and address translation: one table, `inet berth`, of constant rules.
//!
//! Bridges and published ports are elements of sets and maps, so that a container costs a few elements
//! whatever the number of others, and every change is one atomic transaction. Nothing outside the table is
//! touched.

mod expression;
mod message;
mod redirect;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, PortMapping, Protocol, Reach, Rules};
use expression::{Base, Expressions, Meta, R0, R1, R2, R4, R5, Verdict};
use message::{Attributes, Kind, Transaction};
pub(crate) use redirect::redirect_names;

const TABLE: &str = "berth";
const BRIDGES: &str = "bridges";
/// Bridges with a way out.
const OUTWARD: &str = "outward";
const MASQUERADED4: &str = "masqueraded4";
const MASQUERADED6: &str = "masqueraded6";
/// Bridges whose containers answer ICMP from outside at their own addresses.
const ROUTED4: &str = "routed4";
const ROUTED6: &str = "routed6";
/// Bridges whose containers are reached from outside at any port of their own addresses.
const OPEN4: &str = "open4";
const OPEN6: &str = "open6";
/// Ports that are reached from outside at the container's own address: address, protocol, port.
const REACHED4: &str = "reached4";
const REACHED6: &str = "reached6";
/// Pairs of a bridge with itself: traffic within a network, which the forward hook sees where bridges filter
/// (`net.bridge.bridge-nf-call-iptables`) and on hairpins.
const WITHIN: &str = "within";
/// Published on every address: protocol and port to address and port.
const PORTS: &str = "ports4";
/// Published on one address: address, protocol and port to address and port.
const PORTS_AT: &str = "ports4_at";
/// Pairs of a publishing container's address with itself: asking for its own published port where bridges
/// filter, when the packet has no input interface any more by the time it leaves.
const SELVES: &str = "selves4";

const IFNAME_TYPE: u32 = 41;
const IPV4_TYPE: u32 = 7;
const IPV6_TYPE: u32 = 8;
const PROTO_TYPE: u32 = 12;
const SERVICE_TYPE: u32 = 13;
const SET_IS_MAP: u32 = 8;
/// The userdata by which `nft` knows that a set's keys are in host byte order, as interface names are.
const KEY_IS_HOST_ENDIAN: [u8; 6] = [0, 4, 1, 0, 0, 0];
/// Well below the 64 KiB that an attribute's length can say.
const ELEMENTS_PER_MESSAGE: usize = 500;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Everything that the table depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallState {
    /// Bridges of containers: link name, and what is let through.
    pub bridges: Vec<(String, Rules)>,
    /// Published ports.
    pub ports: Vec<Published>,
    /// Ports that are reached without translation.
    pub reached: Vec<Reached>,
}

/// A port of a container that is reached from outside at the container's own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The container's address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A published port with the container's address. IPv6 host addresses are not translated and are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The host's side and the container's port.
    pub mapping: PortMapping,
    /// The container's address.
    pub container: Ipv4Addr,
}

/// Makes the table exactly what `state` says, in one transaction; connections that are open go on. It can be
/// called at any time: also after another tool flushed all rules (R14).
pub fn reconcile(state: &FirewallState) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    let table = || Attributes::default().text(1, TABLE);
    transaction.push(Kind::NewTable, "add table", table());
    transaction.push(Kind::DelTable, "delete table", table());
    transaction.push(Kind::NewTable, "add table", table());
    add_sets(&mut transaction);
    add_chains(&mut transaction);
    add_rules(&mut transaction);
    bridge_elements(&mut transaction, Kind::NewElements, &state.bridges);
    reached_elements(&mut transaction, Kind::NewElements, &state.reached);
    port_elements(&mut transaction, Kind::NewElements, &state.ports);
    transaction.commit()
}

/// Adds a bridge to the table.
pub fn add_bridge(name: &str, rules: Rules) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    bridge_elements(&mut transaction, Kind::NewElements, &[(name.to_owned(), rules)]);
    transaction.commit()
}

/// Takes a bridge out of the table, with the rules it was added with.
pub fn remove_bridge(name: &str, rules: Rules) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    bridge_elements(&mut transaction, Kind::DelElements, &[(name.to_owned(), rules)]);
    transaction.commit()
}

/// Lets ports be reached at their containers' own addresses.
pub fn open(ports: &[Reached]) -> Result<(), Error> {
    change_reached(Kind::NewElements, ports)
}

/// No longer lets these ports be reached.
pub fn close(ports: &[Reached]) -> Result<(), Error> {
    change_reached(Kind::DelElements, ports)
}

fn change_reached(kind: Kind, ports: &[Reached]) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    reached_elements(&mut transaction, kind, ports);
    transaction.commit()
}

/// Adds published ports to the table.
pub fn publish(ports: &[Published]) -> Result<(), Error> {
    change(Kind::NewElements, ports)
}

/// Takes published ports out of the table: all those of a container at once.
pub fn unpublish(ports: &[Published]) -> Result<(), Error> {
    change(Kind::DelElements, ports)
}

/// Removes the whole table.
pub fn remove() -> Result<(), Error> {
    let mut transaction = Transaction::new();
    transaction.push(Kind::NewTable, "add table", Attributes::default().text(1, TABLE));
    transaction.push(Kind::DelTable, "delete table", Attributes::default().text(1, TABLE));
    transaction.commit()
}

fn change(kind: Kind, ports: &[Published]) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    port_elements(&mut transaction, kind, ports);
    transaction.commit()
}

fn add_sets(transaction: &mut Transaction) {
    let concatenated = |types: &[u32]| types.iter().fold(0, |all, one| all << 6 | one);
    let mut add = |id: u32, name: &str, key: u32, key_bytes: u32, data: Option<u32>| {
        let set = Attributes::default().text(1, TABLE).text(2, name);
        let set =
            set.number(3, if data.is_some() { SET_IS_MAP } else { 0 }).number(4, key).number(5, key_bytes);
        let set = match data {
            Some(data) => set.number(6, data).number(7, 8),
            None if key & 63 == IFNAME_TYPE => set.bytes(13, &KEY_IS_HOST_ENDIAN),
            None => set,
        };
        transaction.push(Kind::NewSet, format!("add set {name}"), set.number(10, id));
    };
    let target = concatenated(&[IPV4_TYPE, SERVICE_TYPE]);
    add(1, BRIDGES, IFNAME_TYPE, 16, None);
    let of_bridges = [OUTWARD, MASQUERADED4, MASQUERADED6, ROUTED4, ROUTED6, OPEN4, OPEN6];
    for (id, name) in (10..).zip(of_bridges) {
        add(id, name, IFNAME_TYPE, 16, None);
    }
    add(7, REACHED4, concatenated(&[IPV4_TYPE, PROTO_TYPE, SERVICE_TYPE]), 12, None);
    add(8, REACHED6, concatenated(&[IPV6_TYPE, PROTO_TYPE, SERVICE_TYPE]), 24, None);
    add(5, WITHIN, concatenated(&[IFNAME_TYPE, IFNAME_TYPE]), 32, None);
    add(6, SELVES, concatenated(&[IPV4_TYPE, IPV4_TYPE]), 8, None);
    add(3, PORTS, concatenated(&[PROTO_TYPE, SERVICE_TYPE]), 8, Some(target));
    add(4, PORTS_AT, concatenated(&[IPV4_TYPE, PROTO_TYPE, SERVICE_TYPE]), 12, Some(target));
}

fn add_chains(transaction: &mut Transaction) {
    let mut add = |name: &str, kind: &str, hook: u32, priority: i32| {
        let hook = Attributes::default().number(1, hook).number(2, priority as u32);
        let chain =
            Attributes::default().text(1, TABLE).text(3, name).nested(4, hook).number(5, 1).text(7, kind);
        transaction.push(Kind::NewChain, format!("add chain {name}"), chain);
    };
    add("raw", "filter", 0, -300);
    add("prerouting", "nat", 0, -100);
    add("output", "nat", 3, -100);
    add("postrouting", "nat", 4, 100);
    add("forward", "filter", 2, 0);
}

fn add_rules(transaction: &mut Transaction) {
    let mut add = |chain: &str, expressions: Expressions| {
        let rule = Attributes::default().text(1, TABLE).text(2, chain);
        let rule = rule.nested(4, expressions.into_attributes());
        transaction.push(Kind::NewRule, format!("add rule to {chain}"), rule);
    };
    let rule = Expressions::default;
    let from_bridge = |r: Expressions| r.meta(Meta::InputName, R0).in_set(BRIDGES, R0, false);
    let to_bridge = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, false);
    let leaves = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, true);
    let loopback = |r: Expressions, offset| r.payload(Base::Network, offset, 1, R0).equal(R0, &[127]);

    // route_localnet lets a neighbour claim 127.0.0.0/8 on the wire: neither way from a bridge.
    add("raw", loopback(from_bridge(rule()).ipv4(), 16).verdict(Verdict::Drop));
    add("raw", loopback(from_bridge(rule()).ipv4(), 12).verdict(Verdict::Drop));

    for chain in ["prerouting", "output"] {
        let local = || rule().ipv4().destination_is_local();
        let at = local().payload(Base::Network, 16, 4, R0).meta(Meta::TransportProtocol, R1);
        add(chain, at.payload(Base::Transport, 2, 2, R2).look_up(PORTS_AT, R0).dnat4(R0, R1));
        let any = local().meta(Meta::TransportProtocol, R0).payload(Base::Transport, 2, 2, R1);
        add(chain, any.look_up(PORTS, R0).dnat4(R0, R1));
    }

    // To the world; from this host's own 127.0.0.1; and hairpin, so that the answer comes back this way.
    for (family, set) in [(rule().ipv4(), MASQUERADED4), (rule().ipv6(), MASQUERADED6)] {
        let from = family.meta(Meta::InputName, R0).in_set(set, R0, false);
        add("postrouting", leaves(from).masquerade());
    }
    add("postrouting", loopback(to_bridge(rule()).ipv4(), 12).masquerade());
    add("postrouting", from_bridge(to_bridge(rule().destination_translated())).masquerade());
    let itself = rule().ipv4().payload(Base::Network, 12, 4, R0).payload(Base::Network, 16, 4, R1);
    add("postrouting", itself.in_set(SELVES, R0, false).masquerade());

    add("forward", rule().conntrack_state(ESTABLISHED_OR_RELATED).verdict(Verdict::Accept));
    let both = rule().meta(Meta::InputName, R0).meta(Meta::OutputName, R4);
    add("forward", both.in_set(WITHIN, R0, false).verdict(Verdict::Accept));
    // A network without a way out has none to published ports of others either.
    add("forward", from_bridge(rule()).in_set(OUTWARD, R0, true).verdict(Verdict::Drop));
    add("forward", leaves(from_bridge(rule())).verdict(Verdict::Accept));
    add("forward", to_bridge(rule()).destination_translated().verdict(Verdict::Accept));
    add_direct(&mut add);
    // What was not published is reached neither from other networks nor from neighbours on the link.
    add("forward", to_bridge(rule()).verdict(Verdict::Drop));
}

/// What reaches containers at their own addresses.
fn add_direct(add: &mut impl FnMut(&str, Expressions)) {
    let rule = Expressions::default;
    let to = |r: Expressions, set| r.meta(Meta::OutputName, R0).in_set(set, R0, false);
    for (family, set) in [(rule().ipv4(), OPEN4), (rule().ipv6(), OPEN6)] {
        add("forward", to(family, set).verdict(Verdict::Accept));
    }
    for (family, set, icmp) in [(rule().ipv4(), ROUTED4, 1), (rule().ipv6(), ROUTED6, 58)] {
        let asks = to(family, set).meta(Meta::TransportProtocol, R0).equal(R0, &[icmp]);
        add("forward", asks.verdict(Verdict::Accept));
    }
    let reached4 = rule().ipv4().payload(Base::Network, 16, 4, R0).meta(Meta::TransportProtocol, R1);
    let reached4 = reached4.payload(Base::Transport, 2, 2, R2).in_set(REACHED4, R0, false);
    add("forward", reached4.verdict(Verdict::Accept));
    let reached6 = rule().ipv6().payload(Base::Network, 24, 16, R0).meta(Meta::TransportProtocol, R4);
    let reached6 = reached6.payload(Base::Transport, 2, 2, R5).in_set(REACHED6, R0, false);
    add("forward", reached6.verdict(Verdict::Accept));
}

fn ifname(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (slot, byte) in key.iter_mut().zip(name.bytes().take(15)) {
        *slot = byte;
    }
    key
}

fn element(key: &[u8], data: Option<&[u8]>) -> Attributes {
    let value = |bytes: &[u8]| Attributes::default().bytes(1, bytes);
    let element = Attributes::default().nested(1, value(key));
    match data {
        Some(data) => element.nested(2, value(data)),
        None => element,
    }
}

fn elements(transaction: &mut Transaction, kind: Kind, set: &str, all: Vec<Attributes>) {
    for part in all.chunks(ELEMENTS_PER_MESSAGE) {
        let list = part.iter().fold(Attributes::default(), |list, one| list.nested(1, one.clone()));
        debug_assert!(list.len() < usize::from(u16::MAX) - 4);
        let message = Attributes::default().text(1, TABLE).text(2, set).nested(3, list);
        let verb = if kind == Kind::NewElements { "add elements to" } else { "delete elements from" };
        transaction.push(kind, format!("{verb} {set}"), message);
    }
}

fn bridge_elements(transaction: &mut Transaction, kind: Kind, bridges: &[(String, Rules)]) {
    type Applies = fn(&Rules) -> bool;
    let sets: [(&str, Applies); 8] = [
        (BRIDGES, |_| true),
        (OUTWARD, |rules| rules.outward),
        (MASQUERADED4, |rules| rules.masquerade4),
        (MASQUERADED6, |rules| rules.masquerade6),
        (ROUTED4, |rules| rules.reach4 == Reach::Published),
        (ROUTED6, |rules| rules.reach6 == Reach::Published),
        (OPEN4, |rules| rules.reach4 == Reach::All),
        (OPEN6, |rules| rules.reach6 == Reach::All),
    ];
    for (set, applies) in sets {
        let members = bridges.iter().filter(|(_, rules)| applies(rules));
        elements(transaction, kind, set, members.map(|(name, _)| element(&ifname(name), None)).collect());
    }
    let within = bridges.iter().filter(|(_, rules)| rules.within);
    let within = within.map(|(name, _)| element(&[ifname(name), ifname(name)].concat(), None));
    elements(transaction, kind, WITHIN, within.collect());
}

fn reached_elements(transaction: &mut Transaction, kind: Kind, ports: &[Reached]) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for port in ports {
        let mut key = match port.address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&padded(port.port));
        let list = if port.address.is_ipv4() { &mut four } else { &mut six };
        list.push(element(&key, None));
    }
    elements(transaction, kind, REACHED4, four);
    elements(transaction, kind, REACHED6, six);
}

fn port_elements(transaction: &mut Transaction, kind: Kind, ports: &[Published]) {
    let (mut any, mut at) = (Vec::new(), Vec::new());
    for port in ports {
        let IpAddr::V4(host) = port.mapping.host_address else { continue };
        let mut key = vec![port.mapping.protocol.number(), 0, 0, 0];
        key.extend_from_slice(&padded(port.mapping.host_port));
        let mut data = port.container.octets().to_vec();
        data.extend_from_slice(&padded(port.mapping.container_port));
        let data = (kind == Kind::NewElements).then_some(data);
        if host.is_unspecified() {
            any.push(element(&key, data.as_deref()));
        } else {
            let key: Vec<u8> = host.octets().into_iter().chain(key).collect();
            at.push(element(&key, data.as_deref()));
        }
    }
    let containers: BTreeSet<Ipv4Addr> = ports.iter().map(|p| p.container).collect();
    let selves = containers.iter().map(|c| element(&[c.octets(), c.octets()].concat(), None));
    elements(transaction, kind, SELVES, selves.collect());
    elements(transaction, kind, PORTS, any);
    elements(transaction, kind, PORTS_AT, at);
}

/// A port in network byte order at the start of a four-byte register.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
