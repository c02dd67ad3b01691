//! Networks of more containers than one bridge has ports for.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use berth_network::{Bridge, Endpoint, Host, Rules, firewall::FirewallState, trunk};
use berth_sys::rtnetlink;

use crate::namespace::Namespace;
use crate::{Guarded, bridge, endpoint, serve, state};

const CROWD: usize = 1100;

/// Joins a container that a test talks to.
fn join(host: &Namespace, bridge: &Bridge, address: &str) -> Namespace {
    let container = Namespace::new();
    let (netns, end, bridge) = (container.fd.try_clone().unwrap(), endpoint(address), bridge.clone());
    let config = end.link_config(end.gateways.clone());
    host.run(move || Host::open().unwrap().connect(&bridge, netns.as_fd(), &end).unwrap());
    container.run(move || rtnetlink::configure(&[config]).unwrap());
    container
}

/// A network that a crowd has joined; the first and the last of them can be talked to.
fn crowded(rules: Rules) -> (Guarded, Namespace, Namespace, Namespace) {
    let bridge = Bridge { rules, ..bridge() };
    let host = Guarded::new(berth_network::firewall::FirewallOptions::default());
    let made = bridge.clone();
    host.guard(move |firewall| {
        Host::open().unwrap().ensure_bridge(&made).unwrap();
        let bridges = vec![(made.name.clone(), made.rules)];
        firewall.reconcile(&FirewallState { bridges, ..state(vec![]) }).unwrap();
    });
    let first = join(&host, &bridge, "172.30.0.2");
    let elsewhere = Namespace::new();
    let (netns, joined) = (elsewhere.fd.try_clone().unwrap(), bridge.clone());
    let all = host.guard(move |firewall| {
        let host = Host::open().unwrap();
        for number in 0..CROWD {
            let end = Endpoint { name: format!("eth{number}"), ..endpoint("172.30.9.9") };
            host.connect(&joined, netns.as_fd(), &end).unwrap();
            if let Some(name) = host.continue_bridge(&joined, number + 2).unwrap() {
                let bridges = vec![(name, trunk::RULES)];
                firewall.add(&FirewallState { bridges, ..FirewallState::default() }).unwrap();
            }
        }
        host.continuations(&joined.name)
    });
    assert_eq!(all.len(), 2, "one in use, and one in reserve: {all:?}");
    // An engine that comes later finds them; the last of these goes where there is room.
    let (last, neighbour) = (join(&host, &bridge, "172.30.0.3"), join(&host, &bridge, "172.30.0.4"));
    drop(elsewhere);
    (host, first, last, neighbour)
}

fn reaches(from: &Namespace, address: &str) -> bool {
    let target = format!("{address}:80").parse().unwrap();
    from.run(move || std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_secs(1)).is_ok())
}

/// Waits until a link of the trunk is up: the kernel tells of so many new links with some delay.
fn comes_to_reach(from: &Namespace, address: &str) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !reaches(from, address) {
        if std::time::Instant::now() > deadline {
            return false;
        }
    }
    true
}

#[test]
fn more_containers_than_a_bridge_has_ports() {
    let (host, first, last, neighbour) = crowded(Rules::default());
    for namespace in [&first, &last, &*host] {
        serve(namespace, 80);
    }
    for (from, to) in [(&first, "172.30.0.3"), (&last, "172.30.0.2"), (&neighbour, "172.30.0.3")] {
        assert!(comes_to_reach(from, to), "{to}");
    }
    for (from, to) in [(&last, "172.30.0.1"), (&*host, "172.30.0.3")] {
        assert!(comes_to_reach(from, to), "the gateway is one of all: {to}");
    }
    // The next engine makes them its own, and nothing is cut off meanwhile.
    let listener = first.run(|| std::net::TcpListener::bind("0.0.0.0:90").unwrap());
    let mut client = last.run(|| std::net::TcpStream::connect("172.30.0.2:90").unwrap());
    let mut server = listener.accept().unwrap().0;
    host.guard(|firewall| {
        let host = Host::open().unwrap();
        host.ensure_bridge(&bridge()).unwrap();
        let further = host.continuations("berth0");
        assert_eq!(further.len(), 2);
        let bridges = further.into_iter().map(|name| (name, trunk::RULES));
        let bridges = bridges.chain([("berth0".to_owned(), Rules::default())]).collect();
        firewall.reconcile(&FirewallState { bridges, ..state(vec![]) }).unwrap();
    });
    server.write_all(b"still here").unwrap();
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    let next = join(&host, &bridge(), "172.30.0.5");
    for (from, to) in [(&last, "172.30.0.2"), (&next, "172.30.0.3"), (&next, "172.30.0.1")] {
        assert!(comes_to_reach(from, to), "with the next engine: {to}");
    }
    let gone = host.run(|| {
        let host = Host::open().unwrap();
        berth_network::Link::Bridge(bridge()).remove(&host).unwrap();
        let left = rtnetlink::links(&mut rtnetlink::Socket::open().unwrap()).unwrap();
        left.into_iter().map(|(_, name)| name).filter(|name| !name.starts_with("veth")).collect::<Vec<_>>()
    });
    assert_eq!(gone, ["lo"]);
}

#[test]
fn they_are_apart_on_further_bridges_too() {
    let (host, first, last, neighbour) = crowded(Rules { within: false, ..Rules::default() });
    for namespace in [&first, &last, &*host] {
        serve(namespace, 80);
    }
    for from in [&first, &last, &neighbour] {
        assert!(comes_to_reach(from, "172.30.0.1"), "the gateway is one of all");
    }
    for (from, to) in [(&first, "172.30.0.3"), (&last, "172.30.0.2"), (&neighbour, "172.30.0.3")] {
        assert!(!reaches(from, to), "{to}");
    }
}
