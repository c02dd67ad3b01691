//! The host's filtering and address translation: one table, `inet berth`, of constant rules.
//!
//! Bridges and published ports are elements of sets and maps, so that a container costs a few elements
//! whatever the number of others, and every change is one atomic transaction. Nothing outside the table is
//! touched, but for interfaces that another table's forward chain would drop ([`foreign`]).
//!
//! [`Firewall`] is what the engine sees: this backend or the other one, `iptables`, with Docker's chains.

mod backend;
mod bus;
mod conntrack;
mod expression;
mod firewalld;
mod foreign;
mod iptables;
mod legacy;
mod linked;
mod mark;
mod message;
mod redirect;
mod table;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::host::LINK_GROUP;
use crate::{Error, PortMapping, Protocol, Reach, Rules};
pub use conntrack::{Flows, forget};
use expression::{Base, Expressions, Meta, R0, R1, R2, R3, R4, R5, R8, R9, Verdict};
pub use linked::Linked;
pub use mark::{InvalidMark, Mark};
use message::{Attributes, Kind, Transaction};
pub(crate) use redirect::redirect_names;
use table::Table;

pub use backend::{Backend, Firewall, FirewallOptions};

const BRIDGES: &str = "bridges";
/// Bridges with a way out.
const OUTWARD: &str = "outward";
const MASQUERADED4: &str = "masqueraded4";
const MASQUERADED6: &str = "masqueraded6";
/// Bridges, and the host's address that what leaves from there gets.
const SOURCES4: &str = "sources4";
const SOURCES6: &str = "sources6";
/// Bridges whose containers answer ICMP from outside at their own addresses.
const ROUTED4: &str = "routed4";
const ROUTED6: &str = "routed6";
/// Bridges whose containers are reached from outside at any port of their own addresses.
const OPEN4: &str = "open4";
const OPEN6: &str = "open6";
/// Ports that are reached from outside at the container's own address: address, protocol, port.
const REACHED4: &str = "reached4";
const REACHED6: &str = "reached6";
/// Links whose hosts reach published ports at containers' own addresses, and bridges.
const TRUSTED: &str = "trusted";
/// Those ports: address, protocol, port.
const OFFERED4: &str = "offered4";
const OFFERED6: &str = "offered6";
/// Pairs of a bridge with itself: traffic within a network, which the forward hook sees where bridges filter
/// (`net.bridge.bridge-nf-call-iptables`) and on hairpins.
const WITHIN: &str = "within";
/// Published on every address: protocol and port to address and port.
const PORTS4: &str = "ports4";
const PORTS6: &str = "ports6";
/// Published on one address: address, protocol and port to address and port.
const PORTS4_AT: &str = "ports4_at";
const PORTS6_AT: &str = "ports6_at";
/// Pairs of a publishing container's address with itself: asking for its own published port where bridges
/// filter, when the packet has no input interface any more by the time it leaves.
const SELVES4: &str = "selves4";
const SELVES6: &str = "selves6";

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
/// The beginning of `fe80::/10`, which routers do not pass on.
const LINK_LOCAL: [u8; 4] = [0xfe, 0x80, 0, 0];
const LINK_LOCAL_MASK: [u8; 4] = [0xff, 0xc0, 0, 0];

/// Everything that the table depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallState {
    /// Bridges of containers: link name, and what is let through.
    pub bridges: Vec<(String, Rules)>,
    /// Published ports.
    pub ports: Vec<Published>,
    /// Ports that are reached without translation.
    pub reached: Vec<Reached>,
    /// Subnets of the bridges, by link name.
    pub subnets: Vec<(String, IpNet)>,
    /// Addresses of containers on the bridges.
    pub addresses: Vec<IpAddr>,
    /// What links open between containers that else do not reach each other.
    pub links: Vec<Linked>,
    /// The addresses that each of these links is between, once for each family, whatever it opens.
    pub pairs: Vec<(IpAddr, IpAddr)>,
    /// The host's ends of those links that are no longer isolated at their bridge.
    pub partners: Vec<String>,
    /// Links of the host, and bridges whose published ports hosts there reach at containers' own addresses, too.
    pub trusted: Vec<(String, String)>,
    /// Those ports.
    pub offered: Vec<Reached>,
    /// By family, IPv4 first: what is no container's is not forwarded, since this host did not forward before.
    pub drops: [bool; 2],
}

/// Which part of the work the table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All.
    Whole,
    /// What Docker has a proxy for: a container's own published ports, and 127.0.0.1. The rest is in Docker's chains.
    Companion,
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

/// A published port with the container's address, which is of the host address's family: between families nothing is
/// translated, and such a port is passed over. Nor is anything that goes to `::1`, or comes from a link-local address:
/// those are carried by [`crate::net`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The host's side and the container's port.
    pub mapping: PortMapping,
    /// The container's address.
    pub container: IpAddr,
}

/// Makes the table exactly what `state` says, in one transaction; connections that are open go on. It can be
/// called at any time: also after another tool flushed all rules (R14). `drops` says by family, IPv4 first, whether what is no
/// container's is dropped here.
fn reconcile(
    table: &Table,
    state: &FirewallState,
    drops: [bool; 2],
    part: Part,
    options: &FirewallOptions,
) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    table.renew(&mut transaction);
    add_sets(table, &mut transaction);
    add_chains(table, &mut transaction, part);
    add_rules(table, &mut transaction, part, options);
    if part == Part::Whole {
        add_drops(table, &mut transaction, drops);
    }
    all_elements(table, &mut transaction, Kind::NewElements, state);
    transaction.commit()
}

/// Puts `new` in the place of `old`, in one transaction: what is in both stays.
fn exchange(table: &Table, old: &FirewallState, new: &FirewallState) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    all_elements(table, &mut transaction, Kind::DelElements, old);
    all_elements(table, &mut transaction, Kind::NewElements, new);
    if transaction.is_empty() {
        return Ok(());
    }
    transaction.commit()
}

fn all_elements(table: &Table, transaction: &mut Transaction, kind: Kind, state: &FirewallState) {
    bridge_elements(table, transaction, kind, &state.bridges);
    reached_elements(table, transaction, kind, [REACHED4, REACHED6], &state.reached);
    reached_elements(table, transaction, kind, [OFFERED4, OFFERED6], &state.offered);
    let trusted = state.trusted.iter().map(|(link, bridge)| [ifname(link), ifname(bridge)].concat());
    elements(table, transaction, kind, TRUSTED, trusted.map(|key| element(&key, None)).collect());
    port_elements(table, transaction, kind, &state.ports);
    for (set, v6) in linked::LINKED.into_iter().zip([false, true]) {
        elements(table, transaction, kind, set, linked::keys(&state.links, v6, false));
    }
}

/// Removes the whole table.
fn remove(table: &Table) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    table.remove(&mut transaction);
    transaction.commit()
}

fn add_sets(table: &Table, transaction: &mut Transaction) {
    let concatenated = |types: &[u32]| types.iter().fold(0, |all, one| all << 6 | one);
    let mut add = |id: u32, name: &str, key: u32, key_bytes: u32, data: Option<u32>| {
        let set = table.named().text(2, name);
        let set =
            set.number(3, if data.is_some() { SET_IS_MAP } else { 0 }).number(4, key).number(5, key_bytes);
        let set = match data {
            Some(IPV4_TYPE) => set.number(6, IPV4_TYPE).number(7, 4).bytes(13, &KEY_IS_HOST_ENDIAN),
            Some(IPV6_TYPE) => set.number(6, IPV6_TYPE).number(7, 16).bytes(13, &KEY_IS_HOST_ENDIAN),
            Some(data) => set.number(6, data).number(7, data_bytes(data)),
            None if key & 63 == IFNAME_TYPE => set.bytes(13, &KEY_IS_HOST_ENDIAN),
            None => set,
        };
        transaction.push(Kind::NewSet, format!("add set {name}"), set.number(10, id));
    };
    let [target4, target6] = [IPV4_TYPE, IPV6_TYPE].map(|address| concatenated(&[address, SERVICE_TYPE]));
    add(1, BRIDGES, IFNAME_TYPE, 16, None);
    let of_bridges = [OUTWARD, MASQUERADED4, MASQUERADED6, ROUTED4, ROUTED6, OPEN4, OPEN6];
    for (id, name) in (10..).zip(of_bridges) {
        add(id, name, IFNAME_TYPE, 16, None);
    }
    add(33, SOURCES4, IFNAME_TYPE, 16, Some(IPV4_TYPE));
    add(34, SOURCES6, IFNAME_TYPE, 16, Some(IPV6_TYPE));
    add(7, REACHED4, concatenated(&[IPV4_TYPE, PROTO_TYPE, SERVICE_TYPE]), 12, None);
    add(8, REACHED6, concatenated(&[IPV6_TYPE, PROTO_TYPE, SERVICE_TYPE]), 24, None);
    add(5, WITHIN, concatenated(&[IFNAME_TYPE, IFNAME_TYPE]), 32, None);
    add(6, SELVES4, concatenated(&[IPV4_TYPE, IPV4_TYPE]), 8, None);
    add(40, TRUSTED, concatenated(&[IFNAME_TYPE, IFNAME_TYPE]), 32, None);
    add(41, OFFERED4, concatenated(&[IPV4_TYPE, PROTO_TYPE, SERVICE_TYPE]), 12, None);
    add(42, OFFERED6, concatenated(&[IPV6_TYPE, PROTO_TYPE, SERVICE_TYPE]), 24, None);
    for ((id, name), (key, bytes)) in [9, 43].into_iter().zip(linked::LINKED).zip(linked::OPENED) {
        add(id, name, key, bytes, None);
    }
    add(30, SELVES6, concatenated(&[IPV6_TYPE, IPV6_TYPE]), 32, None);
    add(3, PORTS4, concatenated(&[PROTO_TYPE, SERVICE_TYPE]), 8, Some(target4));
    add(4, PORTS4_AT, concatenated(&[IPV4_TYPE, PROTO_TYPE, SERVICE_TYPE]), 12, Some(target4));
    add(31, PORTS6, concatenated(&[PROTO_TYPE, SERVICE_TYPE]), 8, Some(target6));
    add(32, PORTS6_AT, concatenated(&[IPV6_TYPE, PROTO_TYPE, SERVICE_TYPE]), 24, Some(target6));
}

/// Bytes of an address and a port in registers.
fn data_bytes(target: u32) -> u32 {
    if target >> 6 == IPV4_TYPE { 8 } else { 20 }
}

fn add_chains(table: &Table, transaction: &mut Transaction, part: Part) {
    let mut add = |name: &str, kind: &str, hook: u32, priority: i32| {
        let hook = Attributes::default().number(1, hook).number(2, priority as u32);
        let chain = table.named().text(3, name).nested(4, hook).number(5, 1).text(7, kind);
        transaction.push(Kind::NewChain, format!("add chain {name}"), chain);
    };
    // After the chains of `iptables`, whose translation comes first then.
    let later = if part == Part::Companion { 1 } else { 0 };
    add("raw", "filter", 0, -300);
    add("prerouting", "nat", 0, -100 + later);
    add("output", "nat", 3, -100 + later);
    add("postrouting", "nat", 4, 100 + later);
    if part == Part::Whole {
        add("forward", "filter", 2, 0);
    }
}

fn add_rules(table: &Table, transaction: &mut Transaction, part: Part, options: &FirewallOptions) {
    let mut add = |chain: &str, expressions: Expressions| {
        let rule = table.named().text(2, chain);
        let rule = rule.nested(4, expressions.into_attributes());
        transaction.push(Kind::NewRule, format!("add rule to {chain}"), rule);
    };
    let families = [options.ipv4, options.ipv6];
    let rule = Expressions::default;
    let from_bridge = |r: Expressions| r.meta(Meta::InputName, R0).in_set(BRIDGES, R0, false);
    let to_bridge = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, false);
    let leaves = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, true);
    let loopback = |r: Expressions, offset| r.payload(Base::Network, offset, 1, R0).equal(R0, &[127]);

    // A family without rules: nothing of it is looked at.
    let forward = (part == Part::Whole).then_some("forward");
    for chain in ["raw", "prerouting", "output", "postrouting"].into_iter().chain(forward) {
        if !families[0] {
            add(chain, rule().ipv4().verdict(Verdict::Accept));
        }
        if !families[1] {
            add(chain, rule().ipv6().verdict(Verdict::Accept));
        }
    }

    // route_localnet lets a neighbour claim 127.0.0.0/8 on the wire: neither way from a bridge.
    add("raw", loopback(from_bridge(rule()).ipv4(), 16).verdict(Verdict::Drop));
    add("raw", loopback(from_bridge(rule()).ipv4(), 12).verdict(Verdict::Drop));

    add_translations(&mut add);

    // To the world; from this host's own 127.0.0.1; and hairpin, so that the answer comes back this way.
    for (family, set) in [(rule().ipv4(), MASQUERADED4), (rule().ipv6(), MASQUERADED6)] {
        if part == Part::Companion {
            break;
        }
        let from = family.meta(Meta::InputName, R0).in_set(set, R0, false);
        add("postrouting", leaves(from).masquerade());
    }
    for (family, map, v6) in [(rule().ipv4(), SOURCES4, false), (rule().ipv6(), SOURCES6, true)] {
        if part == Part::Companion {
            break;
        }
        add("postrouting", leaves(family).meta(Meta::InputName, R0).look_up(map, R0).snat(v6, R0));
    }
    add("postrouting", loopback(to_bridge(rule()).ipv4(), 12).masquerade());
    add("postrouting", from_bridge(to_bridge(rule().destination_translated())).masquerade());
    let itself = rule().ipv4().payload(Base::Network, 12, 4, R0).payload(Base::Network, 16, 4, R1);
    add("postrouting", itself.in_set(SELVES4, R0, false).masquerade());
    let itself = rule().ipv6().payload(Base::Network, 8, 16, R0).payload(Base::Network, 24, 16, R4);
    add("postrouting", itself.in_set(SELVES6, R0, false).masquerade());

    if part == Part::Whole {
        add_forward(&mut add, options.mark);
    }
}

/// Who reaches whom.
fn add_forward(add: &mut impl FnMut(&str, Expressions), mark: Option<Mark>) {
    let rule = Expressions::default;
    let from_bridge = |r: Expressions| r.meta(Meta::InputName, R0).in_set(BRIDGES, R0, false);
    let to_bridge = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, false);
    let leaves = |r: Expressions| r.meta(Meta::OutputName, R0).in_set(BRIDGES, R0, true);
    add("forward", rule().conntrack_state(ESTABLISHED_OR_RELATED).verdict(Verdict::Accept));
    let both = rule().meta(Meta::InputName, R0).meta(Meta::OutputName, R4);
    add("forward", both.in_set(WITHIN, R0, false).verdict(Verdict::Accept));
    // Where bridges filter, links pass here too.
    let asked = from_bridge(to_bridge(rule().ipv4())).payload(Base::Network, 12, 4, R0);
    let asked = asked.payload(Base::Network, 16, 4, R1).meta(Meta::TransportProtocol, R2);
    let asked = asked.payload(Base::Transport, 2, 2, R3).in_set(linked::LINKED[0], R0, false);
    add("forward", asked.verdict(Verdict::Accept));
    let asked = from_bridge(to_bridge(rule().ipv6())).payload(Base::Network, 8, 16, R0);
    let asked = asked.payload(Base::Network, 24, 16, R4).meta(Meta::TransportProtocol, R8);
    let asked = asked.payload(Base::Transport, 2, 2, R9).in_set(linked::LINKED[1], R0, false);
    add("forward", asked.verdict(Verdict::Accept));
    for kind in linked::NEIGHBOURS {
        let looks = from_bridge(to_bridge(rule().ipv6())).icmpv6(kind);
        add("forward", looks.verdict(Verdict::Accept));
    }
    // A network without a way out has none to published ports of others either.
    add("forward", from_bridge(rule()).in_set(OUTWARD, R0, true).verdict(Verdict::Drop));
    add("forward", leaves(from_bridge(rule())).verdict(Verdict::Accept));
    add("forward", to_bridge(rule()).destination_translated().verdict(Verdict::Accept));
    if let Some(mark) = mark {
        add("forward", to_bridge(rule()).marked(mark).verdict(Verdict::Accept));
    }
    add_direct(add);
    // What was not published is reached neither from other networks nor from neighbours on the link.
    add("forward", to_bridge(rule()).verdict(Verdict::Drop));
}

/// Last in its chain: what came through is no container's.
fn add_drops(table: &Table, transaction: &mut Transaction, drops: [bool; 2]) {
    let families = [Expressions::default().ipv4(), Expressions::default().ipv6()];
    for (family, _) in families.into_iter().zip(drops).filter(|(_, drops)| *drops) {
        // What another engine's bridges forward is for its own table to say.
        let family = [Meta::InputGroup, Meta::OutputGroup]
            .into_iter()
            .fold(family, |rule, end| rule.meta(end, R0).not_equal(R0, &LINK_GROUP.to_ne_bytes()));
        let rule = table.named().text(2, "forward");
        let rule = rule.nested(4, family.verdict(Verdict::Drop).into_attributes());
        transaction.push(Kind::NewRule, "add rule to forward", rule);
    }
}

/// Published ports to their containers.
fn add_translations(add: &mut impl FnMut(&str, Expressions)) {
    let rule = Expressions::default;
    for chain in ["prerouting", "output"] {
        let local = || {
            let any = rule().ipv4().destination_is_local();
            match chain {
                // A neighbour that claims 127.0.0.0/8 on the wire must not reach what is published there.
                "prerouting" => any.payload(Base::Network, 16, 1, R0).not_equal(R0, &[127]),
                _ => any,
            }
        };
        let at = local().payload(Base::Network, 16, 4, R0).meta(Meta::TransportProtocol, R1);
        add(chain, at.payload(Base::Transport, 2, 2, R2).look_up(PORTS4_AT, R0).dnat4(R0, R1));
        let any = local().meta(Meta::TransportProtocol, R0).payload(Base::Transport, 2, 2, R1);
        add(chain, any.look_up(PORTS4, R0).dnat4(R0, R1));

        let local = || {
            let from_link_local = rule().ipv6().payload(Base::Network, 8, 4, R0).masked_not_equal(
                R0,
                &LINK_LOCAL_MASK,
                &LINK_LOCAL,
            );
            let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
            let other = from_link_local.payload(Base::Network, 24, 16, R0).not_equal(R0, &loopback);
            other.destination_is_local()
        };
        let at = local().payload(Base::Network, 24, 16, R0).meta(Meta::TransportProtocol, R4);
        add(chain, at.payload(Base::Transport, 2, 2, R5).look_up(PORTS6_AT, R0).dnat6(R0, R4));
        let any = local().meta(Meta::TransportProtocol, R0).payload(Base::Transport, 2, 2, R1);
        add(chain, any.look_up(PORTS6, R0).dnat6(R0, R4));
    }
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
    for (reached, from_trusted) in [([REACHED4, REACHED6], false), ([OFFERED4, OFFERED6], true)] {
        let rule = || match from_trusted {
            true => rule().meta(Meta::InputName, R0).meta(Meta::OutputName, R4).in_set(TRUSTED, R0, false),
            false => rule(),
        };
        let reached4 = rule().ipv4().payload(Base::Network, 16, 4, R0).meta(Meta::TransportProtocol, R1);
        let reached4 = reached4.payload(Base::Transport, 2, 2, R2).in_set(reached[0], R0, false);
        add("forward", reached4.verdict(Verdict::Accept));
        let reached6 = rule().ipv6().payload(Base::Network, 24, 16, R0).meta(Meta::TransportProtocol, R4);
        let reached6 = reached6.payload(Base::Transport, 2, 2, R5).in_set(reached[1], R0, false);
        add("forward", reached6.verdict(Verdict::Accept));
    }
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

fn elements(table: &Table, transaction: &mut Transaction, kind: Kind, set: &str, all: Vec<Attributes>) {
    for part in all.chunks(ELEMENTS_PER_MESSAGE) {
        let list = part.iter().fold(Attributes::default(), |list, one| list.nested(1, one.clone()));
        debug_assert!(list.len() < usize::from(u16::MAX) - 4);
        let message = table.named().text(2, set).nested(3, list);
        let verb = if kind == Kind::NewElements { "add elements to" } else { "delete elements from" };
        transaction.push(kind, format!("{verb} {set}"), message);
    }
}

fn bridge_elements(table: &Table, transaction: &mut Transaction, kind: Kind, bridges: &[(String, Rules)]) {
    type Applies = fn(&Rules) -> bool;
    let sets: [(&str, Applies); 8] = [
        (BRIDGES, |_| true),
        (OUTWARD, |rules| rules.outward),
        (MASQUERADED4, |rules| rules.masquerade4 && rules.source4.is_none()),
        (MASQUERADED6, |rules| rules.masquerade6 && rules.source6.is_none()),
        (ROUTED4, |rules| rules.reach4 == Reach::Published),
        (ROUTED6, |rules| rules.reach6 == Reach::Published),
        (OPEN4, |rules| rules.reach4 == Reach::All),
        (OPEN6, |rules| rules.reach6 == Reach::All),
    ];
    for (set, applies) in sets {
        let members = bridges.iter().filter(|(_, rules)| applies(rules));
        elements(
            table,
            transaction,
            kind,
            set,
            members.map(|(name, _)| element(&ifname(name), None)).collect(),
        );
    }
    let source =
        |name: &str, address: &[u8]| element(&ifname(name), (kind == Kind::NewElements).then_some(address));
    let sources4 = bridges.iter().filter(|(_, rules)| rules.masquerade4);
    let sources4 = sources4.filter_map(|(name, rules)| Some(source(name, &rules.source4?.octets())));
    elements(table, transaction, kind, SOURCES4, sources4.collect());
    let sources6 = bridges.iter().filter(|(_, rules)| rules.masquerade6);
    let sources6 = sources6.filter_map(|(name, rules)| Some(source(name, &rules.source6?.octets())));
    elements(table, transaction, kind, SOURCES6, sources6.collect());
    let within = bridges.iter().filter(|(_, rules)| rules.within);
    let within = within.map(|(name, _)| element(&[ifname(name), ifname(name)].concat(), None));
    elements(table, transaction, kind, WITHIN, within.collect());
}

fn reached_elements(
    table: &Table,
    transaction: &mut Transaction,
    kind: Kind,
    sets: [&str; 2],
    ports: &[Reached],
) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for port in ports {
        let mut key = octets(port.address);
        key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&padded(port.port));
        let list = if port.address.is_ipv4() { &mut four } else { &mut six };
        list.push(element(&key, None));
    }
    elements(table, transaction, kind, sets[0], four);
    elements(table, transaction, kind, sets[1], six);
}

fn port_elements(table: &Table, transaction: &mut Transaction, kind: Kind, ports: &[Published]) {
    let sets = [(false, SELVES4, PORTS4, PORTS4_AT), (true, SELVES6, PORTS6, PORTS6_AT)];
    for (v6, selves, everywhere, at_one) in sets {
        let (mut any, mut at, mut containers) = (Vec::new(), Vec::new(), BTreeSet::new());
        for port in ports {
            let host = port.mapping.host_address;
            if host.is_ipv6() != v6 || port.container.is_ipv6() != v6 {
                continue;
            }
            containers.insert(port.container);
            let mut key = vec![port.mapping.protocol.number(), 0, 0, 0];
            key.extend_from_slice(&padded(port.mapping.host_port));
            let mut data = octets(port.container);
            data.extend_from_slice(&padded(port.mapping.container_port));
            let data = (kind == Kind::NewElements).then_some(data);
            if host.is_unspecified() {
                any.push(element(&key, data.as_deref()));
            } else {
                key.splice(0..0, octets(host));
                at.push(element(&key, data.as_deref()));
            }
        }
        let pairs = containers.iter().map(|one| element(&octets(*one).repeat(2), None));
        elements(table, transaction, kind, selves, pairs.collect());
        elements(table, transaction, kind, everywhere, any);
        elements(table, transaction, kind, at_one, at);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A port in network byte order at the start of a four-byte register.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
