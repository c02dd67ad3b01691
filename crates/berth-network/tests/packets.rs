//! Bridges, ports and the firewall with real packets, between namespaces that each test makes for itself.
//!
//! Each host is a thread in its own network namespace; nothing of the machine's own network is touched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod namespace;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use berth_network::firewall::{Firewall, FirewallOptions, FirewallState, Published};
use berth_network::{Bridge, Endpoint, Host, PortMapping, Protocol, Rules, ipam};
use berth_sys::rtnetlink;
use namespace::Namespace;

#[macro_use]
#[path = "packets/backends.rs"]
mod backends;
#[path = "packets/beside.rs"]
mod beside;
#[path = "packets/exceptions.rs"]
mod exceptions;
#[path = "packets/families.rs"]
mod families;
#[path = "packets/trunks.rs"]
mod trunks;

fn bridge() -> Bridge {
    Bridge {
        name: "berth0".into(),
        gateways: vec!["172.30.0.1/16".parse().unwrap()],
        mtu: 1500,
        foreign: false,
        found: None,
        rules: Rules::default(),
    }
}

fn endpoint(address: &str) -> Endpoint {
    let address: Ipv4Addr = address.parse().unwrap();
    Endpoint {
        host_link: Endpoint::host_link_name(),
        name: "eth0".into(),
        mac: ipam::mac_for(format!("{address}/16").parse().unwrap()),
        addresses: vec![format!("{address}/16").parse().unwrap()],
        gateways: vec!["172.30.0.1".parse().unwrap()],
        ..Endpoint::default()
    }
}

/// A host whose firewall a test drives.
struct Guarded {
    namespace: Namespace,
    firewall: Arc<Firewall>,
    _exec_root: tempfile::TempDir,
}

impl Deref for Guarded {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Guarded {
    fn new(options: FirewallOptions) -> Guarded {
        let exec_root = tempfile::tempdir().unwrap();
        let firewall = Arc::new(Firewall::new(options, exec_root.path(), "tests"));
        let namespace = Namespace::new();
        namespace.run(|| rtnetlink::loopback_up().unwrap());
        Guarded { namespace, firewall, _exec_root: exec_root }
    }

    /// Does something with the firewall, in the host's namespace.
    fn guard<T: Send + 'static>(&self, job: impl FnOnce(&Firewall) -> T + Send + 'static) -> T {
        let firewall = Arc::clone(&self.firewall);
        self.run(move || job(&firewall))
    }
}

/// The firewall's state for a host with one bridge.
fn state(ports: Vec<Published>) -> FirewallState {
    FirewallState {
        bridges: vec![("berth0".into(), Rules::default())],
        subnets: vec![("berth0".into(), "172.30.0.0/16".parse().unwrap())],
        addresses: ports.iter().map(|port| port.container).collect(),
        ports,
        ..FirewallState::default()
    }
}

/// A host with a bridge and a firewall.
fn host(ports: Vec<Published>) -> Guarded {
    guarded_host(FirewallOptions::default(), ports)
}

fn guarded_host(options: FirewallOptions, ports: Vec<Published>) -> Guarded {
    let host = Guarded::new(options);
    host.guard(move |firewall| {
        Host::open().unwrap().ensure_bridge(&bridge()).unwrap();
        firewall.reconcile(&state(ports)).unwrap();
        Host::open().unwrap().forward(false).unwrap();
    });
    host
}

/// A container on the host's bridge.
fn container(host: &Namespace, address: &str) -> Namespace {
    publishing_container(host, address, vec![])
}

fn publishing_container(host: &Namespace, address: &str, ports: Vec<PortMapping>) -> Namespace {
    let container = Namespace::new();
    let (netns, end) = (container.fd.try_clone().unwrap(), Endpoint { ports, ..endpoint(address) });
    let config = end.link_config(end.gateways.clone());
    host.run(move || Host::open().unwrap().connect(&bridge(), netns.as_fd(), &end).unwrap());
    container.run(move || rtnetlink::configure(&[config]).unwrap());
    container
}

/// A neighbour of the host on another link, 198.51.100.2 to the host's 198.51.100.1.
fn neighbour(host: &Namespace) -> Namespace {
    let neighbour = Namespace::new();
    let netns = neighbour.fd.try_clone().unwrap();
    host.run(move || {
        // A second bridge stands for the uplink: it is none of the firewall's.
        let uplink =
            Bridge { name: "uplink0".into(), gateways: vec!["198.51.100.1/24".parse().unwrap()], ..bridge() };
        let host = Host::open().unwrap();
        host.ensure_bridge(&uplink).unwrap();
        let end = Endpoint { addresses: vec!["198.51.100.2/24".parse().unwrap()], ..endpoint("172.30.9.9") };
        host.connect(&uplink, netns.as_fd(), &end).unwrap();
    });
    neighbour.run(|| {
        let config = rtnetlink::LinkConfig {
            name: "eth0".into(),
            mac: None,
            addresses: vec!["198.51.100.2/24".parse().unwrap()],
            gateways: vec!["198.51.100.1".parse().unwrap()],
            routes: vec![],
            mtu: None,
            sysctls: vec![],
        };
        rtnetlink::configure(&[config]).unwrap();
    });
    neighbour
}

/// Serves one connection on `port`: answers with the peer's address.
fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let peer = connection.peer_addr().unwrap().ip().to_string();
            let _ = connection.write_all(peer.as_bytes());
        }
    });
}

/// What the server at `address` says, or `None` if it cannot be reached.
fn ask(namespace: &Namespace, address: &str) -> Option<IpAddr> {
    let address: SocketAddr = address.parse().unwrap();
    namespace.run(move || {
        // A link that has just come up may lose the first packet: the next attempt follows after a second.
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_millis(3500)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

fn published(host_address: &str, host_port: u16, container: &str) -> Published {
    let host_address = host_address.parse().unwrap();
    let mapping = PortMapping { protocol: Protocol::Tcp, host_address, host_port, container_port: 80 };
    Published { mapping, container: container.parse().unwrap() }
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn containers_reach_the_host_and_each_other() {
    let host = host(vec![]);
    let (one, two) = (container(&host, "172.30.0.2"), container(&host, "172.30.0.3"));
    serve(&host, 7000);
    serve(&two, 80);
    assert_eq!(ask(&one, "172.30.0.1:7000"), ip("172.30.0.2"), "the host sees the container's own address");
    assert_eq!(ask(&one, "172.30.0.3:80"), ip("172.30.0.2"));
    assert_eq!(ask(&host, "172.30.0.3:80"), ip("172.30.0.1"));
}

#[test]
fn what_leaves_the_host_is_masqueraded() {
    let host = host(vec![]);
    let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
    serve(&outside, 80);
    assert_eq!(ask(&inside, "198.51.100.2:80"), ip("198.51.100.1"));
}

#[test]
fn a_published_port_keeps_the_clients_address_and_an_unpublished_one_is_unreachable() {
    let host = host(vec![published("0.0.0.0", 8080, "172.30.0.2")]);
    let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
    serve(&inside, 80);
    serve(&inside, 81);
    assert_eq!(ask(&outside, "198.51.100.1:8080"), ip("198.51.100.2"));
    assert_eq!(ask(&outside, "172.30.0.2:81"), None, "routed past the published ports");
    assert_eq!(ask(&outside, "172.30.0.2:80"), None, "not by way of the published port");
}

#[test]
fn published_ports_answer_on_loopback_on_one_address_and_hairpin() {
    let host =
        host(vec![published("0.0.0.0", 8080, "172.30.0.2"), published("127.0.0.1", 9090, "172.30.0.2")]);
    let ports = vec![published("0.0.0.0", 8080, "172.30.0.2").mapping];
    let (inside, outside) = (publishing_container(&host, "172.30.0.2", ports), neighbour(&host));
    serve(&inside, 80);
    assert_eq!(ask(&host, "127.0.0.1:8080"), ip("172.30.0.1"));
    assert_eq!(ask(&host, "127.0.0.1:9090"), ip("172.30.0.1"));
    assert_eq!(ask(&host, "198.51.100.1:9090"), None, "published on 127.0.0.1 only");
    assert_eq!(ask(&outside, "198.51.100.1:9090"), None);
    assert_eq!(
        ask(&inside, "172.30.0.1:8080"),
        ip("172.30.0.1"),
        "a container reaches its own published port"
    );
}

#[test]
fn the_rules_read_well_in_nft() {
    let host = host(vec![published("0.0.0.0", 8080, "172.30.0.2"), published("127.0.0.1", 90, "172.30.0.2")]);
    let output = host.run(|| Command::new("nft").args(["list", "table", "inet", "berth"]).output().unwrap());
    let listing = String::from_utf8(output.stdout).unwrap();
    for line in [
        "elements = { tcp . 8080 : 172.30.0.2 . 80 }",
        "elements = { 127.0.0.1 . tcp . 90 : 172.30.0.2 . 80 }",
        "type ifname",
        "elements = { \"berth0\" }",
        "oifname @bridges ct status dnat accept",
        "ct state established,related accept",
        "oifname @bridges drop",
        "fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports4",
        "ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6",
        "meta nfproto ipv4 iifname @masqueraded4 oifname != @bridges masquerade",
    ] {
        assert!(listing.contains(line), "no {line:?} in:\n{listing}");
    }
}

#[test]
fn a_link_is_gone_with_its_namespace() {
    let host = host(vec![]);
    let inside = Namespace::new();
    let (netns, end) = (inside.fd.try_clone().unwrap(), endpoint("172.30.0.2"));
    let link = end.host_link.clone();
    let there = host.run({
        let link = link.clone();
        move || {
            let host = Host::open().unwrap();
            host.connect(&bridge(), netns.as_fd(), &end).unwrap();
            host.link_exists(&link)
        }
    });
    assert!(there);
    drop(inside);
    let gone = host.run(move || {
        let host = Host::open().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while host.link_exists(&link) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        !host.link_exists(&link)
    });
    assert!(gone);
}
