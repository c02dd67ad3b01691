//! Both families, and datagrams: what each backend has to do with them, in packets. A host, its containers and its neighbour
//! have addresses of either family here.

use std::net::UdpSocket;
use std::time::Instant;

use berth_network::firewall::{self, Flows};

use super::backends::iptables;
use super::*;

/// A network: its bridge, and what addresses on it begin with.
#[derive(Debug, Clone, Copy)]
struct Net {
    link: &'static str,
    four: &'static str,
    six: &'static str,
    rules: Rules,
}

const MINE: Net = Net {
    link: "berth0",
    four: "172.30.0",
    six: "fd30:",
    rules: Rules {
        masquerade4: true,
        masquerade6: true,
        within: true,
        outward: true,
        reach4: berth_network::Reach::Translated,
        reach6: berth_network::Reach::Translated,
        source4: None,
        source6: None,
    },
};
const OTHER: Net = Net { link: "other0", four: "172.31.0", six: "fd31:", ..MINE };
/// The other one without a way out.
const INTERNAL: Net =
    Net { rules: Rules { outward: false, masquerade4: false, masquerade6: false, ..MINE.rules }, ..OTHER };
/// What stands for the uplink: it is none of the firewall's.
const UPLINK: Net = Net { link: "uplink0", four: "198.51.100", six: "fd99:", ..MINE };

impl Net {
    /// The addresses of one on it, as configurations have them.
    fn addresses(self, number: u8) -> Vec<ipnet::IpNet> {
        let texts = [format!("{}.{number}/24", self.four), format!("{}:{number}/64", self.six)];
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The address of one on it.
    fn at(self, number: u8, v6: bool) -> IpAddr {
        self.addresses(number)[usize::from(v6)].addr()
    }

    fn bridge(self) -> Bridge {
        let (name, gateways) = (self.link.to_owned(), self.addresses(1));
        Bridge { name, gateways, rules: self.rules, ..bridge() }
    }

    fn state(self) -> FirewallState {
        let subnets = self.addresses(1).iter().map(|net| (self.link.to_owned(), net.trunc())).collect();
        FirewallState {
            bridges: vec![(self.link.to_owned(), self.rules)],
            subnets,
            ..FirewallState::default()
        }
    }

    /// One that joins it, and publishes ports if it says so.
    fn join(self, host: &Namespace, number: u8, ports: &[Published]) -> Namespace {
        let one = Namespace::new();
        let addresses = self.addresses(number);
        let end = Endpoint {
            mac: ipam::mac_for(addresses[0]),
            addresses,
            gateways: vec![self.at(1, false), self.at(1, true)],
            ports: ports.iter().map(|port| port.mapping.clone()).collect(),
            ..endpoint("172.30.9.9")
        };
        let (netns, config) = (one.fd.try_clone().unwrap(), end.link_config(end.gateways.clone()));
        host.run(move || Host::open().unwrap().connect(&self.bridge(), netns.as_fd(), &end).unwrap());
        one.run(move || {
            rtnetlink::loopback_up().unwrap();
            rtnetlink::configure(&[config]).unwrap();
        });
        one
    }
}

/// Port 8080 of the host at all its addresses, by both protocols, for a container on [`MINE`].
fn everywhere(number: u8) -> Vec<Published> {
    let both = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(|protocol| {
        [("0.0.0.0", false), ("::", true)].map(|(host_address, v6)| {
            let host_address = host_address.parse().unwrap();
            let mapping = PortMapping { protocol, host_address, host_port: 8080, container_port: 80 };
            Published { mapping, container: MINE.at(number, v6) }
        })
    });
    both.collect()
}

fn opened(ports: Vec<Published>) -> FirewallState {
    let addresses = ports.iter().map(|port| port.container).collect();
    FirewallState { ports, addresses, ..FirewallState::default() }
}

/// A host with both networks, and its neighbour on the uplink.
fn host(options: FirewallOptions, other: Net, ports: Vec<Published>) -> (Guarded, Namespace) {
    let host = Guarded::new(options);
    host.guard(move |firewall| {
        let links = Host::open().unwrap();
        [MINE, other, UPLINK].iter().for_each(|net| links.ensure_bridge(&net.bridge()).unwrap());
        let (mut whole, second) = (MINE.state(), other.state());
        whole.bridges.extend(second.bridges);
        whole.subnets.extend(second.subnets);
        let ports = opened(ports);
        firewall
            .reconcile(&FirewallState { ports: ports.ports, addresses: ports.addresses, ..whole })
            .unwrap();
        [false, true].iter().for_each(|v6| links.forward(*v6).unwrap());
    });
    let outside = UPLINK.join(&host, 2, &[]);
    (host, outside)
}

/// Answers streams and datagrams of both families at a port with their sender's address.
fn serve_all(namespace: &Namespace, port: u16) {
    let (listener, socket) = namespace
        .run(move || (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let peer = connection.peer_addr().unwrap().ip().to_canonical().to_string();
            let _ = connection.write_all(peer.as_bytes());
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _ = socket.send_to(from.ip().to_canonical().to_string().as_bytes(), from);
        }
    });
}

/// Who asked, as the server at an address sees it; `None` if it is not reached.
fn ask_by(protocol: Protocol, namespace: &Namespace, address: IpAddr, port: u16) -> Option<IpAddr> {
    let target = SocketAddr::new(address, port);
    if protocol == Protocol::Tcp {
        return ask(namespace, &target.to_string());
    }
    let socket = namespace.run(move || client(address.is_ipv6()));
    let deadline = Instant::now() + Duration::from_millis(3500);
    while Instant::now() < deadline {
        if let Some(answer) = exchange(&socket, target) {
            return answer.parse().ok();
        }
    }
    None
}

fn client(v6: bool) -> UdpSocket {
    let socket = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    socket
}

/// One question, and its answer if there is one soon.
fn exchange(socket: &UdpSocket, target: SocketAddr) -> Option<String> {
    socket.send_to(b"?", target).ok()?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!(from, target, "whoever was asked answers");
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

/// Each protocol and family.
const WAYS: [(Protocol, bool); 4] =
    [(Protocol::Tcp, false), (Protocol::Tcp, true), (Protocol::Udp, false), (Protocol::Udp, true)];

over_all_backends! {
    fn a_neighbour_reaches_published_ports_with_its_own_address_and_no_others(options: FirewallOptions) {
        let (host, outside) = host(options, OTHER, everywhere(2));
        let inside = MINE.join(&host, 2, &everywhere(2));
        serve_all(&inside, 80);
        serve_all(&inside, 81);
        for (protocol, v6) in WAYS {
            let ask = |address, port| ask_by(protocol, &outside, address, port);
            assert_eq!(ask(UPLINK.at(1, v6), 8080), Some(UPLINK.at(2, v6)), "{protocol} {v6}");
            assert_eq!(ask(MINE.at(2, v6), 81), None, "{protocol} {v6}: not published");
            assert_eq!(ask(MINE.at(2, v6), 80), None, "{protocol} {v6}: past the host's port");
        }
    }

    fn containers_reach_what_is_published_by_the_hosts_address(options: FirewallOptions) {
        let (host, _outside) = host(options, OTHER, everywhere(2));
        let inside = MINE.join(&host, 2, &everywhere(2));
        let (sibling, stranger) = (MINE.join(&host, 3, &[]), OTHER.join(&host, 2, &[]));
        serve_all(&inside, 80);
        for (protocol, v6) in WAYS {
            for (name, one) in [("itself", &inside), ("its neighbour", &sibling), ("another network", &stranger)] {
                assert!(ask_by(protocol, one, MINE.at(1, v6), 8080).is_some(), "{protocol} {v6}: {name}");
            }
            assert_eq!(ask_by(protocol, &sibling, MINE.at(2, v6), 80), Some(MINE.at(3, v6)), "directly");
            assert_eq!(ask_by(protocol, &stranger, MINE.at(2, v6), 80), None, "{protocol} {v6}: networks are apart");
        }
    }

    fn an_internal_network_has_no_way_in_or_out(options: FirewallOptions) {
        let (host, outside) = host(options, INTERNAL, everywhere(2));
        let (public, one, two) =
            (MINE.join(&host, 2, &everywhere(2)), INTERNAL.join(&host, 2, &[]), INTERNAL.join(&host, 3, &[]));
        [&public, &two, &outside].iter().for_each(|namespace| serve_all(namespace, 80));
        for (protocol, v6) in WAYS {
            let from = |namespace, address| ask_by(protocol, namespace, address, 80);
            assert_eq!(from(&one, INTERNAL.at(3, v6)), Some(INTERNAL.at(2, v6)), "{protocol} {v6}: within");
            assert_eq!(from(&one, UPLINK.at(2, v6)), None, "{protocol} {v6}: out");
            assert_eq!(from(&one, MINE.at(2, v6)), None, "{protocol} {v6}: to another network");
            assert_eq!(from(&outside, INTERNAL.at(3, v6)), None, "{protocol} {v6}: in");
            assert_eq!(ask_by(protocol, &one, UPLINK.at(1, v6), 8080), None, "{protocol} {v6}: by a published port");
        }
    }

    fn what_leaves_has_the_hosts_address_unless_told_otherwise(options: FirewallOptions) {
        let plain = Net { rules: Rules { masquerade4: false, masquerade6: false, ..MINE.rules }, ..OTHER };
        let (host, outside) = host(options, plain, vec![]);
        let (hidden, seen) = (MINE.join(&host, 2, &[]), plain.join(&host, 2, &[]));
        serve_all(&outside, 80);
        for (protocol, v6) in WAYS {
            let from = |namespace| ask_by(protocol, namespace, UPLINK.at(2, v6), 80);
            assert_eq!(from(&hidden), Some(UPLINK.at(1, v6)), "{protocol} {v6}");
            assert_eq!(from(&seen), Some(plain.at(2, v6)), "{protocol} {v6}");
        }
    }

    fn containers_without_protection_are_reached_at_any_port(options: FirewallOptions) {
        let rules = Rules { reach4: berth_network::Reach::All, reach6: berth_network::Reach::All, ..MINE.rules };
        let open = Net { rules, ..OTHER };
        let (host, outside) = host(options, open, vec![]);
        let inside = open.join(&host, 2, &[]);
        serve_all(&inside, 81);
        for (protocol, v6) in WAYS {
            assert_eq!(ask_by(protocol, &outside, open.at(2, v6), 81), Some(UPLINK.at(2, v6)), "{protocol} {v6}");
        }
    }

    fn a_client_of_datagrams_follows_the_port_to_the_next_container(options: FirewallOptions) {
        let (host, outside) = host(options, OTHER, everywhere(2));
        let (one, two) = (MINE.join(&host, 2, &everywhere(2)), MINE.join(&host, 3, &everywhere(3)));
        for (namespace, word) in [(&one, "one"), (&two, "two")] {
            let socket = namespace.run(|| UdpSocket::bind("[::]:80").unwrap());
            std::thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    let _ = socket.send_to(word.as_bytes(), from);
                }
            });
        }
        let clients = [false, true].map(|v6| (v6, outside.run(move || client(v6))));
        let told = |word: &str| {
            for (v6, socket) in &clients {
                let target = SocketAddr::new(UPLINK.at(1, *v6), 8080);
                let says = || exchange(socket, target).is_some_and(|answer| answer == word);
                backends::eventually(&format!("{word} answers, IPv6 is {v6}"), says);
            }
        };
        told("one");
        host.guard(|firewall| {
            firewall.exchange(&opened(everywhere(2)), &opened(everywhere(3))).unwrap();
            // As an engine does it: clients of datagrams go on and on.
            let gone = [false, true].map(|v6| Flows::Of(MINE.at(2, v6), Some((Protocol::Udp, 80))));
            firewall::forget(&gone).unwrap();
        });
        told("two");
    }
}

/// A port of a bridge whose address is another's from now on.
#[test]
fn a_silenced_link_lets_nothing_through() {
    let (host, _outside) = host(FirewallOptions::default(), OTHER, vec![]);
    let (one, two) = (MINE.join(&host, 2, &[]), MINE.join(&host, 3, &[]));
    serve_all(&one, 80);
    assert!(ask_by(Protocol::Tcp, &two, MINE.at(2, false), 80).is_some());
    let silenced = host.run(|| {
        let links = Host::open().unwrap();
        let listing = Command::new("ip").args(["-o", "link", "show", "master", "berth0"]).output().unwrap();
        let listing = String::from_utf8(listing.stdout).unwrap();
        let names = listing.lines().map(|line| line.split(": ").nth(1).unwrap().split('@').next().unwrap());
        let first = names.min_by_key(|name| rtnetlink::link_index(name).unwrap()).unwrap().to_owned();
        links.silence(&first).unwrap();
        links.silence("absent0").unwrap();
        links.silence("lo").unwrap();
        first
    });
    assert_eq!(ask_by(Protocol::Tcp, &two, MINE.at(2, false), 80), None, "{silenced}");
}

/// The kernel's own bridges, and what is none.
#[test]
fn what_others_have_made_stays_as_it_is() {
    let host = Namespace::new();
    host.run(|| {
        let ip = |words: &str| {
            let output = Command::new("ip").args(words.split(' ')).output().unwrap();
            assert!(output.status.success(), "{words}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        ip("link add wg0 type veth peer name wg1");
        ip("link add br7 type bridge");
        ip("addr add 10.97.0.9/24 dev br7");
        ip("link set br7 mtu 1400 alias theirs");
        let host = Host::open_for("/tests").unwrap();
        let error = host.foreign_bridge("wg0").unwrap_err().to_string();
        assert_eq!(error, "existing interface wg0 is not a bridge");
        host.remove_bridge("wg0").unwrap();
        assert!(host.link_exists("wg0"), "it is no bridge");
        assert_eq!(host.foreign_bridge("br8").unwrap(), None);
        let found = host.foreign_bridge("br7").unwrap();
        assert_eq!(found.as_deref().unwrap(), ["10.97.0.9/24".parse::<ipnet::IpNet>().unwrap()]);
        let gateways = ["10.98.0.1/24", "fd98::1/64"].map(|text| text.parse().unwrap()).to_vec();
        let link = berth_network::Link::Bridge(Bridge { name: "br7".into(), gateways, found, ..bridge() });
        link.ensure(&host).unwrap();
        let shown = ip("addr show dev br7") + &ip("link show dev br7");
        for expected in ["10.97.0.9/24", "10.98.0.1/24", "fd98::1/64", "mtu 1400", "alias theirs"] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        link.remove(&host).unwrap();
        let shown = ip("addr show dev br7");
        assert!(
            shown.contains("10.97.0.9/24") && !shown.contains("10.98") && !shown.contains("fd98"),
            "{shown}"
        );
        // One of its own, left behind, is no other's.
        host.ensure_bridge(&Bridge { name: "br9".into(), ..bridge() }).unwrap();
        assert_eq!(host.foreign_bridge("br9").unwrap(), None);
        host.remove_bridge("br7").unwrap();
        host.remove_bridge("br9").unwrap();
        assert!(host.link_exists("br7") && !host.link_exists("br9"));
    });
}
