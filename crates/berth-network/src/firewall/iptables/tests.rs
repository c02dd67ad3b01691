use std::net::IpAddr;

use super::*;
use crate::firewall::{Published, Reached};
use crate::{PortMapping, Protocol, Reach, Rules};

fn state(rules: Rules) -> FirewallState {
    let mapping = PortMapping {
        protocol: Protocol::Tcp,
        host_address: "0.0.0.0".parse().unwrap(),
        host_port: 8080,
        container_port: 80,
    };
    FirewallState {
        bridges: vec![("docker0".into(), Rules::default()), ("bridge1".into(), rules)],
        subnets: vec![
            ("docker0".into(), "172.17.0.0/16".parse().unwrap()),
            ("bridge1".into(), "192.0.2.0/24".parse().unwrap()),
        ],
        ports: vec![Published { mapping, container: "192.0.2.2".parse().unwrap() }],
        addresses: vec!["192.0.2.2".parse().unwrap()],
        ..FirewallState::default()
    }
}

fn listed(state: &FirewallState, v6: bool, hairpin: bool) -> Vec<Rule> {
    rules::rules(state, v6, &FirewallOptions { hairpin, ..FirewallOptions::default() })
}

/// A chain's rules as they stand after all have been added to an empty one.
fn chain(rules: &[Rule], table: &str, chain: &str) -> Vec<String> {
    let mut list = Vec::new();
    for rule in rules.iter().filter(|rule| rule.table == table && rule.chain == chain) {
        match rule.place {
            Place::Top => list.insert(0, rule.words.clone()),
            Place::End => list.push(rule.words.clone()),
        }
    }
    list
}

#[test]
fn a_published_port_reads_as_docker_writes_it() {
    let all = listed(&state(Rules::default()), false, false);
    assert_eq!(chain(&all, "filter", "FORWARD"), ["-j DOCKER-USER", "-j DOCKER-FORWARD"]);
    assert_eq!(
        chain(&all, "filter", "DOCKER"),
        [
            "-d 192.0.2.2/32 ! -i bridge1 -o bridge1 -p tcp -m tcp --dport 80 -j ACCEPT",
            "! -i docker0 -o docker0 -j DROP",
            "! -i bridge1 -o bridge1 -j DROP",
        ]
    );
    assert_eq!(
        chain(&all, "filter", "DOCKER-FORWARD"),
        [
            "-j DOCKER-CT",
            "-j DOCKER-INTERNAL",
            "-j DOCKER-BRIDGE",
            "-i docker0 -j ACCEPT",
            "-i bridge1 -j ACCEPT"
        ]
    );
    assert_eq!(
        chain(&all, "nat", "POSTROUTING"),
        ["-s 192.0.2.0/24 ! -o bridge1 -j MASQUERADE", "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"]
    );
    assert_eq!(
        chain(&all, "nat", "DOCKER"),
        ["! -i bridge1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"]
    );
    assert_eq!(chain(&all, "raw", "PREROUTING"), ["-d 192.0.2.2/32 ! -i bridge1 -j DROP"]);
    assert_eq!(chain(&all, "nat", "OUTPUT"), ["! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"]);
}

#[test]
fn without_a_proxy_the_chains_do_its_work() {
    let all = listed(&state(Rules::default()), false, true);
    assert_eq!(
        chain(&all, "nat", "POSTROUTING"),
        [
            "-o bridge1 -m addrtype --src-type LOCAL -j MASQUERADE",
            "-s 192.0.2.0/24 ! -o bridge1 -j MASQUERADE",
            "-o docker0 -m addrtype --src-type LOCAL -j MASQUERADE",
            "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
            "-s 192.0.2.2/32 -d 192.0.2.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
        ]
    );
    assert_eq!(
        chain(&all, "nat", "DOCKER"),
        ["-p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"]
    );
    assert_eq!(chain(&all, "nat", "OUTPUT"), ["-m addrtype --dst-type LOCAL -j DOCKER"]);
}

#[test]
fn internal_and_silent_networks_read_as_docker_writes_them() {
    let rules_of = |rules| listed(&state(rules), false, false);
    let closed = rules_of(Rules { within: false, ..Rules::default() });
    assert_eq!(
        chain(&closed, "filter", "DOCKER-FORWARD")[4..],
        ["-i bridge1 -o bridge1 -j DROP", "-i bridge1 ! -o bridge1 -j ACCEPT"]
    );
    let internal = rules_of(Rules { outward: false, masquerade4: false, ..Rules::default() });
    assert_eq!(
        chain(&internal, "filter", "DOCKER-INTERNAL"),
        ["! -s 192.0.2.0/24 -o bridge1 -j DROP", "! -d 192.0.2.0/24 -i bridge1 -j DROP"]
    );
    assert_eq!(chain(&internal, "filter", "DOCKER-FORWARD")[4..], ["-i bridge1 -o bridge1 -j ACCEPT"]);
    let mut six = state(Rules { outward: false, masquerade6: false, ..Rules::default() });
    six.subnets.push(("bridge1".into(), "2001:db8::/64".parse().unwrap()));
    assert_eq!(
        chain(&listed(&six, true, false), "filter", "DOCKER-INTERNAL"),
        [
            "! -s 2001:db8::/64 ! -i bridge1 -o bridge1 -j DROP",
            "! -d 2001:db8::/64 -i bridge1 ! -o bridge1 -j DROP"
        ]
    );
    assert!(chain(&internal, "nat", "DOCKER").is_empty() && chain(&internal, "raw", "PREROUTING").is_empty());
}

#[test]
fn links_read_as_docker_writes_them() {
    let link = |from: &str, to: &str| crate::firewall::Linked {
        bridge: "bridge1".into(),
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let mut state = state(Rules { within: false, ..Rules::default() });
    state.ports = Vec::new();
    state.links = vec![link("192.0.2.3", "192.0.2.2"), link("2001:db8::3", "2001:db8::2")];
    assert_eq!(
        chain(&listed(&state, false, false), "filter", "DOCKER")[2..],
        [
            "-s 192.0.2.3/32 -d 192.0.2.2/32 -i bridge1 -o bridge1 -p tcp -m tcp --dport 80 -j ACCEPT",
            "-s 192.0.2.2/32 -d 192.0.2.3/32 -i bridge1 -o bridge1 -p tcp -m tcp --sport 80 -j ACCEPT",
        ]
    );
    state.subnets.push(("bridge1".into(), "2001:db8::/64".parse().unwrap()));
    assert_eq!(
        chain(&listed(&state, true, false), "filter", "DOCKER")[1..],
        [
            "-s 2001:db8::3/128 -d 2001:db8::2/128 -i bridge1 -o bridge1 -p tcp -m tcp --dport 80 -j ACCEPT",
            "-s 2001:db8::2/128 -d 2001:db8::3/128 -i bridge1 -o bridge1 -p tcp -m tcp --sport 80 -j ACCEPT",
            "-i bridge1 -o bridge1 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT",
            "-i bridge1 -o bridge1 -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT",
        ]
    );
}

#[test]
fn an_address_of_the_hosts_can_be_chosen_for_what_leaves() {
    let rules = Rules { source4: Some("203.0.113.9".parse().unwrap()), ..Rules::default() };
    let all = listed(&state(rules), false, false);
    let wanted = "-s 192.0.2.0/24 ! -o bridge1 -j SNAT --to-source 203.0.113.9".to_owned();
    assert!(chain(&all, "nat", "POSTROUTING").contains(&wanted));
}

#[test]
fn networks_without_translation_read_as_docker_writes_them() {
    let mut routed =
        state(Rules { masquerade4: false, reach4: Reach::Published, masquerade6: false, ..Rules::default() });
    routed.ports.clear();
    let address: IpAddr = "192.0.2.2".parse().unwrap();
    routed.reached = vec![Reached { address, protocol: Protocol::Tcp, port: 80 }];
    let all = listed(&routed, false, false);
    assert_eq!(
        chain(&all, "filter", "DOCKER"),
        [
            "-d 192.0.2.2/32 ! -i bridge1 -o bridge1 -p tcp -m tcp --dport 80 -j ACCEPT",
            "! -i docker0 -o docker0 -j DROP",
            "-o bridge1 -p icmp -j ACCEPT",
            "! -i bridge1 -o bridge1 -j DROP",
        ]
    );
    assert!(chain(&all, "raw", "PREROUTING").is_empty());
    let open = listed(&state(Rules { reach4: Reach::All, ..Rules::default() }), false, false);
    assert_eq!(
        chain(&open, "filter", "DOCKER"),
        ["! -i docker0 -o docker0 -j DROP", "! -i bridge1 -o bridge1 -j ACCEPT"]
    );
}

#[test]
fn each_family_has_its_own_words() {
    let mut state = state(Rules::default());
    state.subnets.push(("bridge1".into(), "fd00:1::/64".parse().unwrap()));
    state.addresses.push("fd00:1::2".parse().unwrap());
    let all = listed(&state, true, false);
    assert_eq!(
        chain(&all, "nat", "POSTROUTING"),
        ["-s fd00:1::/64 ! -o bridge1 -j MASQUERADE"],
        "nothing of a network that has no IPv6"
    );
    assert_eq!(chain(&all, "raw", "PREROUTING"), ["-d fd00:1::2/128 ! -i bridge1 -j DROP"]);
    assert!(chain(&all, "nat", "DOCKER").is_empty());
}

/// The rules of a table as they are listed after all have been added to an empty one.
fn all_of(rules: &[Rule], table: &str) -> String {
    let chains: BTreeSet<&str> =
        rules.iter().filter(|rule| rule.table == table).map(|rule| rule.chain).collect();
    let lines = chains.into_iter().flat_map(|name| {
        chain(rules, table, name).into_iter().map(move |words| format!("-A {name} {words}\n"))
    });
    lines.collect()
}

#[test]
fn a_difference_touches_only_what_was_noted() {
    let wanted = listed(&state(Rules::default()), false, false);
    let text = "*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER - [0:0]\n-A FORWARD -j MINE\n-A DOCKER -j OLD\n\
        -A DOCKER ! -i docker0 -o docker0 -j DROP\nCOMMIT\n";
    let noted = ["filter DOCKER -j OLD".to_owned(), "filter DOCKER -j GONE".to_owned()].into();
    let script = difference(&Listing::parse(text), &wanted, &noted).text();
    assert!(script.contains("-D DOCKER -j OLD\n") && !script.contains("GONE") && !script.contains("MINE"));
    assert!(script.contains("-N DOCKER-USER\n") && !script.contains("-N DOCKER\n*"), "{script}");
    let (gone, back) =
        ("-D DOCKER ! -i docker0 -o docker0 -j DROP\n", "-A DOCKER ! -i docker0 -o docker0 -j DROP\n");
    assert!(script.find(gone).unwrap() < script.find(back).unwrap(), "its chain has lost others: {script}");
    let whole = format!(
        "*raw\n{}*filter\n{}*nat\n{}",
        all_of(&wanted, "raw"),
        all_of(&wanted, "filter"),
        all_of(&wanted, "nat")
    );
    let none = difference_without_chains(&Listing::parse(&whole), &wanted, &noted).text();
    assert_eq!(none, "", "nothing is lost");
    let cut = whole.replace("-A FORWARD -j DOCKER-FORWARD\n", "");
    let repaired = difference_without_chains(&Listing::parse(&cut), &wanted, &noted).text();
    assert_eq!(
        repaired,
        "*filter\n-D FORWARD -j DOCKER-USER\n-I FORWARD -j DOCKER-FORWARD\n-I FORWARD -j DOCKER-USER\nCOMMIT\n"
    );
    assert!(script.find("*raw") < script.find("*filter") && script.find("*filter") < script.find("*nat"));
}

#[test]
fn marks_and_trusted_links_read_as_docker_writes_them() {
    let mut trusting = state(Rules::default());
    trusting.trusted = vec![("eth1".into(), "bridge1".into()), ("eth2".into(), "docker0".into())];
    let marked = FirewallOptions { mark: "2/3".parse().ok(), ..FirewallOptions::default() };
    let all = rules::rules(&trusting, false, &marked);
    assert_eq!(chain(&all, "filter", "DOCKER-FORWARD")[0], "-m mark --mark 0x2/0x3 -j ACCEPT");
    assert_eq!(
        chain(&all, "raw", "PREROUTING"),
        ["-d 192.0.2.2/32 -i eth1 -j ACCEPT", "-d 192.0.2.2/32 ! -i bridge1 -j DROP"]
    );
    let without = FirewallOptions { raw: false, ..FirewallOptions::default() };
    trusting.ports[0].mapping.host_address = "127.0.0.1".parse().unwrap();
    assert!(chain(&rules::rules(&trusting, false, &without), "raw", "PREROUTING").is_empty());
    assert_eq!(chain(&listed(&trusting, false, false), "raw", "PREROUTING").len(), 3);
}
