//! Who reaches containers past published ports: packets with a mark, and hosts on trusted links.

use berth_network::firewall::Reached;

use super::backends::{eventually, iptables, output};
use super::*;

/// A mark on what comes from the neighbour, before anything else sees it.
const MARK: &str = "nft add table inet marks; nft 'add chain inet marks c { type filter hook prerouting priority -310; }'; \
                    nft add rule inet marks c iifname uplink0 meta mark set 0xe";

fn shell(host: &Guarded, script: &'static str) {
    assert!(host.run(move || Command::new("sh").args(["-ec", script]).status().unwrap()).success());
}

#[test]
fn packets_with_the_mark_reach_any_port() {
    for backend in [FirewallOptions::default(), iptables()] {
        // With Docker's chains what is no container's port is dropped sooner, but for trusted links.
        let options = FirewallOptions { mark: "2/3".parse().ok(), ..backend };
        let host = Guarded::new(options);
        host.guard(|firewall| {
            Host::open().unwrap().ensure_bridge(&bridge()).unwrap();
            let trusted = vec![("uplink0".to_owned(), "berth0".to_owned())];
            let addresses = vec!["172.30.0.2".parse().unwrap()];
            firewall.reconcile(&FirewallState { trusted, addresses, ..state(vec![]) }).unwrap();
            Host::open().unwrap().forward(false).unwrap();
        });
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&inside, 80);
        assert_eq!(ask(&outside, "172.30.0.2:80"), None, "{options:?}");
        shell(&host, MARK);
        assert_eq!(ask(&outside, "172.30.0.2:80"), ip("198.51.100.2"), "{options:?}");
    }
}

#[test]
fn hosts_on_trusted_links_reach_published_ports_where_they_are() {
    for options in [FirewallOptions::default(), iptables()] {
        let host = host_with(options, "uplink0");
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&inside, 80);
        serve(&inside, 81);
        assert_eq!(ask(&outside, "172.30.0.2:80"), ip("198.51.100.2"), "{options:?}");
        assert_eq!(ask(&outside, "172.30.0.2:81"), None, "not published: {options:?}");
        let other = host_with(options, "uplink1");
        let (inside, outside) = (container(&other, "172.30.0.2"), neighbour(&other));
        serve(&inside, 80);
        assert_eq!(ask(&outside, "172.30.0.2:80"), None, "another link: {options:?}");
    }
}

fn host_with(options: FirewallOptions, trusted: &'static str) -> Guarded {
    let host = Guarded::new(options);
    host.guard(move |firewall| {
        Host::open().unwrap().ensure_bridge(&bridge()).unwrap();
        let ports = vec![published("0.0.0.0", 8080, "172.30.0.2")];
        let address = "172.30.0.2".parse().unwrap();
        let whole = FirewallState {
            trusted: vec![(trusted.to_owned(), "berth0".to_owned())],
            offered: vec![Reached { address, protocol: Protocol::Tcp, port: 80 }],
            ..state(ports)
        };
        firewall.reconcile(&whole).unwrap();
        Host::open().unwrap().forward(false).unwrap();
    });
    host
}

/// Tables in the order of their names: the kernel's is that of their making.
fn tables_of(host: &Namespace) -> Vec<String> {
    let mut tables: Vec<String> = output(host, "nft list tables").lines().map(str::to_owned).collect();
    tables.sort();
    tables
}

#[test]
fn engines_in_one_namespace_have_a_table_each() {
    let host = Guarded::new(FirewallOptions::default());
    host.guard(|firewall| {
        Host::open().unwrap().ensure_bridge(&bridge()).unwrap();
        // The first made the host forward, and lets nothing else through.
        firewall.reconcile(&FirewallState { drops: [true; 2], ..state(vec![]) }).unwrap();
        Host::open().unwrap().forward(false).unwrap();
    });
    let roots = tempfile::tempdir().unwrap();
    let second = Arc::new(Firewall::new(FirewallOptions::default(), roots.path(), "another"));
    let of_second = Arc::clone(&second);
    let rules = Rules::default();
    host.run(move || {
        Host::open().unwrap().ensure_bridge(&backends::other(rules)).unwrap();
        of_second.reconcile(&backends::other_state(rules)).unwrap();
    });
    let (one, two) = (container(&host, "172.30.0.2"), backends::on_other(&host, "172.31.0.2", rules));
    let outside = neighbour(&host);
    serve(&outside, 80);
    serve(&two, 80);
    for inside in [&one, &two] {
        assert_eq!(ask(inside, "198.51.100.2:80"), ip("198.51.100.1"));
    }
    assert_eq!(ask(&outside, "172.31.0.2:80"), None, "each guards its own");
    assert_eq!(ask(&one, "172.31.0.2:80"), None);
    let tables = tables_of(&host);
    assert_eq!(tables.iter().filter(|line| line.starts_with("table inet berth")).count(), 2, "{tables:?}");
    let restored = second.restored();
    // Whoever comes back finds its own.
    let exec_root = host._exec_root.path().to_owned();
    let next = Firewall::new(FirewallOptions::default(), &exec_root, "tests");
    host.run(move || next.reconcile(&state(vec![])).unwrap());
    assert_eq!(tables_of(&host), tables);
    let ends = Arc::clone(&second);
    host.run(move || ends.end().unwrap());
    let tables = tables_of(&host);
    assert_eq!(tables.iter().filter(|line| line.starts_with("table inet berth")).count(), 1, "{tables:?}");
    assert_eq!(second.restored(), restored, "nobody has taken anything from it");
}

/// A host that did not forward before drops what is nobody's, and what others let through goes on.
#[test]
fn what_others_let_through_is_theirs_to_judge() {
    let host = guarded_host(FirewallOptions::default(), vec![]);
    let rules = Rules::default();
    host.run(move || Host::open().unwrap().ensure_bridge(&backends::other(rules)).unwrap());
    let (inside, foreign) = (container(&host, "172.30.0.2"), backends::on_other(&host, "172.31.0.2", rules));
    let outside = neighbour(&host);
    serve(&outside, 80);
    // No engine's any more.
    shell(&host, "ip link set uplink0 group 0; ip link set other0 group 0");
    host.guard(|firewall| firewall.set_drops([true; 2]).unwrap());
    let reaches = |from: &Namespace| ask(from, "198.51.100.2:80").is_some();
    let own_drops = || output(&host, "nft list chain inet berth forward").matches("iifgroup").count();
    assert_eq!(own_drops(), 2, "of both families");
    assert!(!reaches(&foreign) && reaches(&inside));
    shell(&host, "iptables -A FORWARD -i other0 -j ACCEPT; iptables -A FORWARD -o other0 -j ACCEPT");
    eventually("the drop is where others let through", || own_drops() == 1);
    assert!(output(&host, "iptables -S FORWARD").starts_with("-P FORWARD DROP"));
    assert!(reaches(&foreign) && reaches(&inside));
    shell(&host, "iptables -F FORWARD");
    eventually("the bridge is let through again", || {
        output(&host, "iptables -S FORWARD").contains("-o berth0 -j ACCEPT")
    });
    assert!(!reaches(&foreign) && reaches(&inside));
    shell(&host, "nft delete table ip filter");
    eventually("nobody else drops it", || own_drops() == 2);
    assert!(!reaches(&foreign) && reaches(&inside));
    // A Docker without iptables has the administrator turn forwarding on.
    shell(
        &host,
        "nft add table ip docker-bridges; nft 'add chain ip docker-bridges f { type filter hook forward priority 0; }'",
    );
    eventually("the administrator decides", || own_drops() == 1);
    assert!(reaches(&foreign) && reaches(&inside));
}
