//! Docker's rules as `iptables-save` prints them: what one state of the firewall reads like in one family.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::firewall::linked::NEIGHBOURS;
use crate::firewall::{FirewallOptions, FirewallState, Mark};
use crate::{Protocol, Reach, Rules};

/// Where in its chain a rule goes when it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before all that is there.
    Top,
    /// After it.
    End,
}

/// A rule, in the very words of a listing: equal text is an equal rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub table: &'static str,
    pub chain: &'static str,
    pub place: Place,
    pub words: String,
}

impl Rule {
    /// How records and listings know the rule.
    pub(super) fn key(&self) -> String {
        format!("{} {} {}", self.table, self.chain, self.words)
    }
}

/// The chains that hold Docker's rules, by table. `DOCKER-USER` is the administrator's.
pub(super) const CHAINS: [(&str, &str); 7] = [
    ("filter", "DOCKER"),
    ("filter", "DOCKER-BRIDGE"),
    ("filter", "DOCKER-CT"),
    ("filter", "DOCKER-FORWARD"),
    ("filter", "DOCKER-INTERNAL"),
    ("filter", "DOCKER-USER"),
    ("nat", "DOCKER"),
];

/// All forms of the one rule that depends on settings and holds for the whole host. An engine of another exec root, or a
/// Docker, leaves its own behind, which may translate what this one carries itself.
pub(super) const EARLIER: [&str; 3] = [
    "nat OUTPUT -m addrtype --dst-type LOCAL -j DOCKER",
    "nat OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
    "nat OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
];

/// Rules in the order in which they are added, each once.
struct List<'a> {
    v6: bool,
    hairpin: bool,
    raw: bool,
    mark: Option<Mark>,
    state: &'a FirewallState,
    rules: Vec<Rule>,
}

/// All rules of a state in one family. With the option `hairpin`, the host's own connections to 127.0.0.1 and those of containers
/// to their own published ports are translated here too.
pub(super) fn rules(state: &FirewallState, v6: bool, options: &FirewallOptions) -> Vec<Rule> {
    let FirewallOptions { hairpin, raw, mark, .. } = *options;
    let mut list = List { v6, hairpin, raw, mark, state, rules: Vec::new() };
    list.add_base();
    for (bridge, rules) in &state.bridges {
        let subnets: Vec<IpNet> = list.subnets(bridge).collect();
        if subnets.is_empty() {
            if state.subnets.iter().all(|(name, _)| name != bridge) {
                // It continues another, and but for hosts that filter bridges nothing of it is seen here.
                list.end("filter", "DOCKER-FORWARD", format!("-i {bridge} -o {bridge} -j ACCEPT"));
            }
            continue;
        }
        match rules.outward {
            true => list.add_bridge(bridge, *rules, &subnets),
            false => list.add_internal(bridge, *rules, &subnets),
        }
    }
    list.add_addresses();
    list.add_ports();
    list.add_links();
    let mut seen = std::collections::HashSet::new();
    list.rules.retain(|rule| seen.insert(rule.key()));
    list.rules
}

impl List<'_> {
    fn top(&mut self, table: &'static str, chain: &'static str, words: impl Into<String>) {
        self.rules.push(Rule { table, chain, place: Place::Top, words: words.into() });
    }

    fn end(&mut self, table: &'static str, chain: &'static str, words: impl Into<String>) {
        self.rules.push(Rule { table, chain, place: Place::End, words: words.into() });
    }

    fn subnets(&self, bridge: &str) -> impl Iterator<Item = IpNet> {
        let of = self.state.subnets.iter().filter(move |(name, _)| name == bridge);
        of.map(|(_, net)| net.trunc()).filter(|net| matches!(net, IpNet::V6(_)) == self.v6)
    }

    /// The bridge whose subnet an address of this family is in.
    fn bridge_of(&self, address: IpAddr) -> Option<(String, Rules)> {
        if address.is_ipv6() != self.v6 {
            return None;
        }
        let (name, _) = self.state.subnets.iter().find(|(_, net)| net.contains(&address))?;
        self.state.bridges.iter().find(|(bridge, _)| bridge == name).cloned()
    }

    fn reach(&self, rules: Rules) -> Reach {
        if self.v6 { rules.reach6 } else { rules.reach4 }
    }

    /// What is there without any network. Each goes before the one above it.
    fn add_base(&mut self) {
        self.top("filter", "FORWARD", "-j DOCKER-FORWARD");
        self.top("filter", "FORWARD", "-j DOCKER-USER");
        for chain in ["DOCKER-BRIDGE", "DOCKER-INTERNAL", "DOCKER-CT"] {
            self.top("filter", "DOCKER-FORWARD", format!("-j {chain}"));
        }
        if let Some(mark) = self.mark {
            self.top("filter", "DOCKER-FORWARD", format!("-m mark --mark {mark} -j ACCEPT"));
        }
        self.end("nat", "PREROUTING", "-m addrtype --dst-type LOCAL -j DOCKER");
        let not_loopback = match (self.hairpin, self.v6) {
            (true, _) => "",
            (false, false) => "! -d 127.0.0.0/8 ",
            (false, true) => "! -d ::1/128 ",
        };
        self.end("nat", "OUTPUT", format!("{not_loopback}-m addrtype --dst-type LOCAL -j DOCKER"));
    }

    fn add_bridge(&mut self, bridge: &str, rules: Rules, subnets: &[IpNet]) {
        let reach = self.reach(rules);
        if reach == Reach::Published {
            let icmp = if self.v6 { "ipv6-icmp" } else { "icmp" };
            self.end("filter", "DOCKER", format!("-o {bridge} -p {icmp} -j ACCEPT"));
        }
        let others = if reach == Reach::All { "ACCEPT" } else { "DROP" };
        self.end("filter", "DOCKER", format!("! -i {bridge} -o {bridge} -j {others}"));
        self.end("filter", "DOCKER-BRIDGE", format!("-o {bridge} -j DOCKER"));
        let answers = format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        self.end("filter", "DOCKER-CT", answers);
        if rules.within {
            self.end("filter", "DOCKER-FORWARD", format!("-i {bridge} -j ACCEPT"));
        } else {
            self.end("filter", "DOCKER-FORWARD", format!("-i {bridge} -o {bridge} -j DROP"));
            self.end("filter", "DOCKER-FORWARD", format!("-i {bridge} ! -o {bridge} -j ACCEPT"));
        }
        if if self.v6 { rules.masquerade6 } else { rules.masquerade4 } {
            let source = match self.v6 {
                true => rules.source6.map(IpAddr::V6),
                false => rules.source4.map(IpAddr::V4),
            };
            let target = source.map_or("MASQUERADE".into(), |source| format!("SNAT --to-source {source}"));
            for net in subnets {
                self.top("nat", "POSTROUTING", format!("-s {net} ! -o {bridge} -j {target}"));
            }
        }
        if self.hairpin {
            let local = format!("-o {bridge} -m addrtype --src-type LOCAL -j MASQUERADE");
            self.top("nat", "POSTROUTING", local);
        }
    }

    fn add_internal(&mut self, bridge: &str, rules: Rules, subnets: &[IpNet]) {
        // Neighbours are found by multicast and link-local addresses, which bridged packets have on hosts that filter those.
        let (from, to) = match self.v6 {
            true => (format!("! -i {bridge} "), format!(" ! -o {bridge}")),
            false => (String::new(), String::new()),
        };
        for net in subnets {
            self.top("filter", "DOCKER-INTERNAL", format!("! -d {net} -i {bridge}{to} -j DROP"));
            self.top("filter", "DOCKER-INTERNAL", format!("! -s {net} {from}-o {bridge} -j DROP"));
        }
        let verdict = if rules.within { "ACCEPT" } else { "DROP" };
        self.end("filter", "DOCKER-FORWARD", format!("-i {bridge} -o {bridge} -j {verdict}"));
    }

    /// Who is reached through the host's ports is not reached by its own address.
    fn add_addresses(&mut self) {
        if !self.raw {
            return;
        }
        for address in self.state.addresses.clone() {
            let Some((bridge, rules)) = self.bridge_of(address) else { continue };
            if rules.outward && self.reach(rules) == Reach::Translated {
                let trusted = self.state.trusted.iter().filter(|(_, on)| *on == bridge);
                for link in trusted.map(|(link, _)| link.clone()).collect::<Vec<_>>() {
                    let words = format!("-d {} -i {link} -j ACCEPT", lone(address));
                    self.end("raw", "PREROUTING", words);
                }
                let words = format!("-d {} ! -i {bridge} -j DROP", lone(address));
                self.end("raw", "PREROUTING", words);
            }
        }
    }

    fn add_ports(&mut self) {
        let state = self.state;
        for port in &state.ports {
            let (container, mapping) = (port.container, &port.mapping);
            let Some((bridge, rules)) = self.bridge_of(container) else { continue };
            if !rules.outward {
                continue;
            }
            let host = mapping.host_address;
            if host.is_ipv6() == self.v6 {
                self.add_translation(&bridge, container, mapping.container_port, port);
            }
            if self.reach(rules) != Reach::All {
                self.accept(&bridge, container, mapping.protocol, mapping.container_port);
            }
        }
        for port in &state.reached {
            if let Some((bridge, _)) = self.bridge_of(port.address) {
                self.accept(&bridge, port.address, port.protocol, port.port);
            }
        }
    }

    fn add_translation(&mut self, bridge: &str, to: IpAddr, port: u16, of: &crate::firewall::Published) {
        let (protocol, host, host_port) =
            (of.mapping.protocol, of.mapping.host_address, of.mapping.host_port);
        let asked = format!("-p {protocol} -m {protocol} --dport");
        if host.is_loopback() && !self.v6 && self.raw {
            let words = format!("-d {} ! -i lo {asked} {host_port} -j DROP", lone(host));
            self.end("raw", "PREROUTING", words);
        }
        let mut words = String::new();
        if self.v6 {
            words.push_str("! -s fe80::/10 ");
        }
        if !host.is_unspecified() {
            words.push_str(&format!("-d {} ", lone(host)));
        }
        if !self.hairpin {
            words.push_str(&format!("! -i {bridge} "));
        }
        let target = std::net::SocketAddr::new(to, port);
        words.push_str(&format!("{asked} {host_port} -j DNAT --to-destination {target}"));
        self.end("nat", "DOCKER", words);
        if self.hairpin {
            let words = format!("-s {0} -d {0} {asked} {port} -j MASQUERADE", lone(to));
            self.end("nat", "POSTROUTING", words);
        }
    }

    fn add_links(&mut self) {
        let (state, v6) = (self.state, self.v6);
        for link in state.links.iter().filter(|link| link.to.is_ipv6() == v6) {
            let (from, to) = (lone(link.from), lone(link.to));
            let (bridge, protocol, port) = (&link.bridge, link.protocol, link.port);
            for (from, to, which) in [(&from, &to, "dport"), (&to, &from, "sport")] {
                let words = format!(
                    "-s {from} -d {to} -i {bridge} -o {bridge} -p {protocol} -m {protocol} --{which} {port} -j ACCEPT"
                );
                self.end("filter", "DOCKER", words);
            }
            // Where bridges filter, those that look for their neighbours are seen too.
            for kind in NEIGHBOURS.into_iter().filter(|_| v6) {
                let words =
                    format!("-i {bridge} -o {bridge} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT");
                self.end("filter", "DOCKER", words);
            }
        }
    }

    fn accept(&mut self, bridge: &str, to: IpAddr, protocol: Protocol, port: u16) {
        let to = lone(to);
        let asked = format!("-p {protocol} -m {protocol} --dport {port}");
        self.top("filter", "DOCKER", format!("-d {to} ! -i {bridge} -o {bridge} {asked} -j ACCEPT"));
    }
}

/// One address as listings have it.
fn lone(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    match address {
        // `iptables` prints an IPv4-mapped address as the library does.
        IpAddr::V6(v6) if v6 == Ipv6Addr::UNSPECIFIED => "::/128".into(),
        other => format!("{other}/{length}"),
    }
}
