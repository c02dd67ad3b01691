//! The firewall beside other people's rules: Docker's listings, and tables that drop what they do not know.

use super::backends::{add_other, eventually, iptables, output};
use super::*;

fn guarded() -> Guarded {
    guarded_host(iptables(), vec![published("0.0.0.0", 8080, "172.30.0.2")])
}

#[test]
fn the_chains_read_as_dockers() {
    let host = guarded();
    let listing = |table: &str| output(&host, &format!("iptables -t {table} -S"));
    assert_eq!(
        listing("filter"),
        "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-BRIDGE\n-N DOCKER-CT\n\
         -N DOCKER-FORWARD\n-N DOCKER-INTERNAL\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n\
         -A FORWARD -j DOCKER-FORWARD\n\
         -A DOCKER -d 172.30.0.2/32 ! -i berth0 -o berth0 -p tcp -m tcp --dport 80 -j ACCEPT\n\
         -A DOCKER ! -i berth0 -o berth0 -j DROP\n-A DOCKER-BRIDGE -o berth0 -j DOCKER\n\
         -A DOCKER-CT -o berth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-INTERNAL\n\
         -A DOCKER-FORWARD -j DOCKER-BRIDGE\n-A DOCKER-FORWARD -i berth0 -j ACCEPT\n"
    );
    assert_eq!(
        listing("nat"),
        "-P PREROUTING ACCEPT\n-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n-N DOCKER\n\
         -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A POSTROUTING -s 172.30.0.0/16 ! -o berth0 -j MASQUERADE\n\
         -A DOCKER ! -i berth0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.30.0.2:80\n"
    );
    assert_eq!(
        listing("raw"),
        "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-A PREROUTING -d 172.30.0.2/32 ! -i berth0 -j DROP\n"
    );
}

#[test]
fn each_network_and_port_reads_as_docker_writes_it_in_both_families() {
    let host = Guarded::new(iptables());
    let mut all = state(vec![published("127.0.0.1", 8080, "172.30.0.2")]);
    all.subnets.push(("berth0".into(), "fd00:1::/64".parse().unwrap()));
    all.addresses.push("fd00:1::2".parse().unwrap());
    for (protocol, port) in [(Protocol::Udp, 53), (Protocol::Sctp, 99)] {
        let mut more = published("0.0.0.0", port, "172.30.0.2");
        more.mapping.protocol = protocol;
        all.ports.push(more);
    }
    let routed = Rules {
        reach4: berth_network::Reach::Published,
        reach6: berth_network::Reach::Published,
        ..Rules::default()
    };
    all.bridges.push(("other0".into(), routed));
    all.subnets.push(("other0".into(), "fd00:2::/64".parse().unwrap()));
    let again = all.clone();
    host.guard(move |firewall| firewall.reconcile(&all).unwrap());
    let save = |host: &Guarded| {
        let both = [output(host, "iptables-save"), output(host, "ip6tables-save")].concat();
        both.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = save(&host);
    for line in [
        "-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP",
        "-A PREROUTING -d fd00:1::2/128 ! -i berth0 -j DROP",
        "-A DOCKER ! -i berth0 -p sctp -m sctp --dport 99 -j DNAT --to-destination 172.30.0.2:80",
        "-A DOCKER ! -i berth0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.30.0.2:80",
        "-A DOCKER -d 127.0.0.1/32 ! -i berth0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.30.0.2:80",
        "-A DOCKER -o other0 -p ipv6-icmp -j ACCEPT",
        "-A OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
    ] {
        assert!(first.iter().any(|found| found == line), "no {line:?} in {first:#?}");
    }
    // Every rule is recognized for what it is: none is added twice, none left behind.
    host.guard(move |firewall| {
        firewall.reconcile(&again).unwrap();
        firewall.remove(&again).unwrap();
    });
    let left = save(&host);
    assert!(left.iter().all(|line| !line.contains("berth0") && !line.contains("other0")), "{left:#?}");
}

#[test]
fn what_the_administrator_wrote_stays_and_counts() {
    let host = guarded();
    let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
    serve(&inside, 80);
    assert!(ask(&outside, "198.51.100.1:8080").is_some());
    output(&host, "iptables -I DOCKER-USER -s 198.51.100.2 -j DROP");
    output(&host, "iptables -t nat -A DOCKER -p tcp --dport 7 -j RETURN");
    output(&host, "iptables -A FORWARD -s 192.0.2.9 -j DROP");
    assert_eq!(ask(&outside, "198.51.100.1:8080"), None, "DOCKER-USER comes first");
    host.guard(|firewall| firewall.reconcile(&state(vec![])).unwrap());
    add_other(&host, Rules::default());
    let listing = output(&host, "iptables-save");
    for line in [
        "-A DOCKER-USER -s 198.51.100.2/32 -j DROP",
        "-A DOCKER -p tcp -m tcp --dport 7 -j RETURN",
        "-A FORWARD -s 192.0.2.9/32 -j DROP",
    ] {
        assert!(listing.contains(line), "no {line:?} in:\n{listing}");
    }
    assert!(!listing.contains("172.30.0.2"), "{listing}");
}

#[test]
fn another_backend_takes_the_chains_away() {
    let host = guarded();
    let exec_root = host._exec_root.path().to_owned();
    let inside = container(&host, "172.30.0.2");
    serve(&inside, 80);
    let outside = neighbour(&host);
    output(&host, "iptables -A DOCKER-USER -s 192.0.2.1 -j DROP");
    let next = Arc::new(Firewall::new(FirewallOptions::default(), &exec_root, "tests"));
    let kept = Arc::clone(&next);
    let ports = || vec![published("0.0.0.0", 8080, "172.30.0.2")];
    host.run(move || next.reconcile(&state(ports())).unwrap());
    let listing = [output(&host, "iptables-save"), output(&host, "ip6tables-save")].concat();
    let left: Vec<&str> =
        listing.lines().filter(|line| line.contains("DOCKER") || line.contains("berth0")).collect();
    assert_eq!(
        left,
        [":DOCKER-USER - [0:0]", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -s 192.0.2.1/32 -j DROP"],
        "only what the administrator filled"
    );
    assert!(ask(&outside, "198.51.100.1:8080").is_some());
    drop(kept);
}

#[test]
fn a_family_without_rules_is_left_alone() {
    for options in [FirewallOptions::default(), iptables()] {
        let off = guarded_host(FirewallOptions { ipv4: false, ipv6: false, ..options }, vec![]);
        assert_eq!(output(&off, "nft list ruleset"), "");
        let half = guarded_host(FirewallOptions { ipv6: false, ..options }, vec![]);
        assert_eq!(output(&half, "ip6tables-save"), "", "{options:?}");
        let (inside, outside) = (container(&half, "172.30.0.2"), neighbour(&half));
        serve(&outside, 80);
        assert_eq!(ask(&inside, "198.51.100.2:80"), ip("198.51.100.1"), "the other one has its rules");
        let four = guarded_host(FirewallOptions { ipv4: false, ..options }, vec![]);
        let (inside, outside) = (container(&four, "172.30.0.2"), neighbour(&four));
        serve(&outside, 80);
        assert_eq!(ask(&inside, "198.51.100.2:80"), ip("172.30.0.2"), "nobody translates");
    }
}

/// Ways in which a host drops what it does not know, and what lets the bridge through there.
#[test]
fn a_forward_chain_that_drops_lets_bridges_through() {
    let nft = |policy: &str, rules: &str| {
        format!(
            "add table inet mine; add chain inet mine f {{ type filter hook forward priority 0; policy {policy}; }};{rules}"
        )
    };
    let ways = [
        ("iptables -P FORWARD DROP".to_owned(), "iptables-save", "-A FORWARD -i berth0 -j ACCEPT"),
        (
            "iptables -A FORWARD -j REJECT".to_owned(),
            "iptables-save",
            "-A FORWARD -o berth0 -j ACCEPT\n-A FORWARD -j REJECT",
        ),
        (
            "iptables-legacy -P FORWARD DROP".to_owned(),
            "iptables-legacy-save",
            "-A FORWARD -o berth0 -j ACCEPT",
        ),
        (format!("nft {}", nft("drop", "")), "nft list table inet mine", "iifname \"berth0\" counter"),
        // As firewalld ends its chain.
        (
            format!("nft {}", nft("accept", "add rule inet mine f reject with icmpx admin-prohibited")),
            "nft list table inet mine",
            "oifname \"berth0\" counter",
        ),
    ];
    for options in [FirewallOptions::default(), iptables()] {
        for (drops, list, line) in &ways {
            let host = Guarded::new(options);
            output(&host, drops);
            host.guard(|firewall| {
                let network = Host::open().unwrap();
                network.forward(false).unwrap();
                network.ensure_bridge(&bridge()).unwrap();
                firewall.reconcile(&state(vec![published("0.0.0.0", 8080, "172.30.0.2")])).unwrap();
            });
            let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
            serve(&outside, 80);
            serve(&inside, 80);
            assert_eq!(ask(&inside, "198.51.100.2:80"), ip("198.51.100.1"), "{drops}, {options:?}");
            assert!(ask(&outside, "198.51.100.1:8080").is_some(), "{drops}, {options:?}");
            assert_eq!(ask(&outside, "172.30.0.2:81"), None, "{drops}: nothing else is opened");
            if options == FirewallOptions::default() {
                let listing = output(&host, list);
                assert!(listing.contains(line), "{drops}: no {line:?} in:\n{listing}");
                host.guard(|firewall| {
                    let (bridges, subnets) = (state(vec![]).bridges, state(vec![]).subnets);
                    firewall.remove(&FirewallState { bridges, subnets, ..FirewallState::default() }).unwrap();
                });
                assert!(!output(&host, list).contains("berth0"), "{drops}: gone with the bridge");
            }
            assert_eq!(host.firewall.warnings(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_drop_that_comes_later_is_noticed_and_the_administrators_own_holds() {
    let host = guarded_host(FirewallOptions::default(), vec![]);
    let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
    serve(&outside, 80);
    serve(&outside, 81);
    output(&host, "iptables -A FORWARD -p tcp --dport 81 -j DROP");
    output(&host, "iptables -P FORWARD DROP");
    eventually("the bridge is let through", || {
        output(&host, "iptables -S FORWARD").contains("-i berth0 -j ACCEPT")
    });
    assert!(ask(&inside, "198.51.100.2:80").is_some());
    assert_eq!(ask(&inside, "198.51.100.2:81"), None, "what is denied stays denied");
    // It does not go on for ever.
    let listing = || output(&host, "nft -a list ruleset");
    let before = listing();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(before, listing());
}

/// Runs a script with ufw's configuration in files of its own.
fn with_ufw(host: &Guarded, folder: &std::path::Path, script: &str) -> String {
    let folder = folder.display();
    let script = format!(
        "set -e; T={folder}; test -d $T/ufw || cp -a /etc/ufw /etc/default $T; mount --bind $T/ufw /etc/ufw; \
         mount --bind $T/default /etc/default; {script}"
    );
    host.run(move || {
        let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}: {out}{error}");
        out.into_owned()
    })
}

#[test]
fn ufw_may_be_turned_on_and_reloaded() {
    for options in [FirewallOptions::default(), iptables()] {
        let folder = tempfile::tempdir().unwrap();
        let host = guarded_host(options, vec![published("0.0.0.0", 8080, "172.30.0.2")]);
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&inside, 80);
        serve(&outside, 80);
        with_ufw(&host, folder.path(), "ufw --force enable");
        assert!(output(&host, "iptables -S FORWARD").starts_with("-P FORWARD DROP"));
        eventually("containers reach the world", || ask(&inside, "198.51.100.2:80").is_some());
        assert!(ask(&outside, "198.51.100.1:8080").is_some(), "{options:?}");
        with_ufw(&host, folder.path(), "ufw reload");
        eventually("they do after a reload", || ask(&inside, "198.51.100.2:80").is_some());
        assert!(ask(&outside, "198.51.100.1:8080").is_some(), "{options:?}");
        assert_eq!(ask(&outside, "172.30.0.2:81"), None);
        with_ufw(&host, folder.path(), "ufw disable");
    }
}
