//! Which of a container's ports are published where: what is asked for, on a certain network, becomes ports to reserve.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_network::firewall::Flows;
use berth_network::{Endpoint, PortMapping, Reach, Rules, Wanted};
use ipnet::IpNet;

use crate::create::ports::Publication;

/// An endpoint that ports are published on, and what its network lets through.
#[derive(Debug, Clone, Copy)]
pub struct Publisher<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Its network's rules.
    pub rules: Rules,
}

/// Plans ports of the host on who publishes at its IPv4 addresses, and at its IPv6 addresses. `default` is where ports listen
/// that name no address; `0.0.0.0` means all addresses of both families. What is `held` already keeps its port.
pub fn plan(
    publications: &[Publication],
    publishers: [Option<Publisher<'_>>; 2],
    default: IpAddr,
    held: &[PortMapping],
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for publication in publications {
        for (address, implied) in addresses(publication, default) {
            let Some(publisher) = publishers[usize::from(address.is_ipv6())] else { continue };
            // IPv6 can be carried to IPv4, but not the other way.
            if !publisher.is_direct(address) && (address.is_ipv6() || publisher.has(false)) {
                add(&mut wanted, publication, address, implied, forward(publisher.endpoint, address));
            }
        }
    }
    wanted.iter_mut().for_each(|wanted| keep(wanted, held));
    // Who wants one certain port goes before who can do with another.
    wanted.sort_by_key(|wanted| match wanted.first {
        0 => u32::MAX,
        first => u32::from(wanted.last - first),
    });
    wanted
}

/// Ports that are reached at an endpoint's own addresses, and need none of the host.
pub fn direct(publications: &[Publication], publisher: Publisher<'_>, default: IpAddr) -> Vec<PortMapping> {
    let mut found = Vec::new();
    for publication in publications {
        for (address, _) in
            addresses(publication, default).into_iter().filter(|(at, _)| publisher.is_direct(*at))
        {
            let host_address = if address.is_ipv4() { ANY4 } else { ANY6 };
            let (protocol, container_port) = (publication.container.protocol, publication.container.port);
            let mapping = PortMapping { protocol, host_address, host_port: 0, container_port };
            if !found.contains(&mapping) {
                found.push(mapping);
            }
        }
    }
    found
}

impl Publisher<'_> {
    /// Whether it has an address of a family.
    fn has(self, v6: bool) -> bool {
        self.endpoint.addresses.iter().any(|own| own.addr().is_ipv6() == v6)
    }

    /// Whether what is published at an address of the host is reached at its own instead.
    fn is_direct(self, host: IpAddr) -> bool {
        let reach = if host.is_ipv4() { self.rules.reach4 } else { self.rules.reach6 };
        reach == Reach::Published && self.has(host.is_ipv6())
    }
}

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The host's addresses of a publication, and whether IPv6 is there only because nothing else was said.
fn addresses(publication: &Publication, default: IpAddr) -> Vec<(IpAddr, bool)> {
    match (publication.address, default) {
        (Some(address), _) => vec![(address, false)],
        (None, ANY4) => vec![(ANY4, false), (ANY6, true)],
        (None, default) => vec![(default, false)],
    }
}

/// Where the net process carries what arrives at an address and the firewall does not translate.
fn forward(endpoint: &Endpoint, host: IpAddr) -> Option<IpAddr> {
    let own = |v6: bool| endpoint.addresses.iter().map(IpNet::addr).find(|own| own.is_ipv6() == v6);
    if host.is_ipv6() { own(true).or(own(false)) } else { own(false) }
}

/// Fixes the port of what was there before.
fn keep(wanted: &mut Wanted, held: &[PortMapping]) {
    let range = match wanted.first {
        0 => 1..=u16::MAX,
        first => first..=wanted.last,
    };
    let same = |old: &&PortMapping| {
        old.protocol == wanted.protocol
            && old.container_port == wanted.container_port
            && wanted.addresses.contains(&old.host_address)
            && range.contains(&old.host_port)
    };
    if let Some(old) = held.iter().find(same) {
        (wanted.first, wanted.last) = (old.host_port, old.host_port);
    }
}

/// Several addresses of one port of the container get the same port of the host.
fn add(
    all: &mut Vec<Wanted>,
    publication: &Publication,
    address: IpAddr,
    implied: bool,
    forward: Option<IpAddr>,
) {
    let (first, last) = publication.host.as_ref().map_or((0, 0), |range| (*range.start(), *range.end()));
    let (protocol, container_port) = (publication.container.protocol, publication.container.port);
    let same = |wanted: &&mut Wanted| {
        (wanted.protocol, wanted.container_port) == (protocol, container_port)
            && (wanted.first, wanted.last) == (first, last)
            && !wanted.addresses.contains(&address)
    };
    let (forward6, forward4) = if address.is_ipv6() { (forward, None) } else { (None, forward) };
    if let Some(wanted) = all.iter_mut().find(same) {
        wanted.addresses.push(address);
        wanted.without_ipv6 |= implied;
        wanted.forward = wanted.forward.or(forward6);
        wanted.forward4 = wanted.forward4.or(forward4);
        return;
    }
    all.push(Wanted {
        protocol,
        addresses: vec![address],
        without_ipv6: implied,
        first,
        last,
        container_port,
        forward: forward6,
        forward4,
    });
}

/// What an endpoint holds on the host, to be reserved again.
pub fn again(endpoint: &Endpoint) -> Vec<Wanted> {
    let reserved = endpoint.ports.iter().filter(|mapping| mapping.host_port != 0);
    reserved.map(|mapping| Wanted::exactly(mapping, forward(endpoint, mapping.host_address))).collect()
}

/// Connections to forget before ports are opened: to a port that was not published, nothing is translated. Only datagrams
/// have clients that go on and on.
pub fn stale(ports: &[PortMapping]) -> Vec<Flows> {
    let datagrams = ports.iter().filter(|mapping| mapping.protocol == berth_network::Protocol::Udp);
    let reserved = datagrams.filter(|mapping| mapping.host_port != 0);
    reserved.map(|one| Flows::To(one.protocol, one.host_port, one.host_address.is_ipv6())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::ports::ContainerPort;

    fn endpoint(addresses: &[&str]) -> Endpoint {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Endpoint { addresses, ..Endpoint::default() }
    }

    fn publication(address: Option<&str>, host: Option<(u16, u16)>, port: &str) -> Publication {
        Publication {
            address: address.map(|text| text.parse().unwrap()),
            host: host.map(|(first, last)| first..=last),
            container: ContainerPort::parse(port).unwrap(),
        }
    }

    fn planned(
        publications: &[Publication],
        endpoint: &Endpoint,
        default: IpAddr,
        held: &[PortMapping],
    ) -> Vec<Wanted> {
        let publisher = Some(Publisher { endpoint, rules: Rules::default() });
        plan(publications, [publisher; 2], default, held)
    }

    fn shown(plan: &[Wanted]) -> Vec<String> {
        let all = plan.iter().map(|wanted| {
            let addresses: Vec<String> = wanted.addresses.iter().map(ToString::to_string).collect();
            let targets = wanted.forward4.iter().chain(&wanted.forward);
            let forward = targets.map(ToString::to_string).collect::<Vec<_>>().join("+");
            let (first, last, inside) = (wanted.first, wanted.last, wanted.container_port);
            format!("{}:{first}-{last}:{inside}>{forward}", addresses.join("+"))
        });
        all.collect()
    }

    #[test]
    fn families_follow_the_binding_and_the_container() {
        let four = endpoint(&["10.0.0.2/8"]);
        let both = endpoint(&["10.0.0.2/8", "fd00::2/64"]);
        let six = endpoint(&["fd00::2/64"]);
        let any = publication(None, Some((80, 80)), "80");
        let with = |endpoint: &Endpoint, one: &Publication, default: &str| {
            shown(&planned(std::slice::from_ref(one), endpoint, default.parse().unwrap(), &[]))
        };
        assert_eq!(with(&four, &any, "0.0.0.0"), ["0.0.0.0+:::80-80:80>10.0.0.2+10.0.0.2"]);
        assert_eq!(with(&both, &any, "0.0.0.0"), ["0.0.0.0+:::80-80:80>10.0.0.2+fd00::2"]);
        assert_eq!(with(&six, &any, "0.0.0.0"), [":::80-80:80>fd00::2"]);
        assert_eq!(with(&four, &any, "127.0.0.1"), ["127.0.0.1:80-80:80>10.0.0.2"]);
        assert_eq!(with(&four, &any, "::1"), ["::1:80-80:80>10.0.0.2"]);
        assert_eq!(with(&both, &publication(Some("0.0.0.0"), None, "80"), "::"), ["0.0.0.0:0-0:80>10.0.0.2"]);
        assert!(with(&six, &publication(Some("127.0.0.1"), None, "80"), "::").is_empty());
    }

    #[test]
    fn several_addresses_get_one_port_and_certain_ports_come_first() {
        let publications = [
            publication(Some("127.0.0.1"), None, "80"),
            publication(Some("127.0.0.2"), None, "80"),
            publication(Some("127.0.0.1"), Some((7000, 7009)), "80"),
            publication(Some("127.0.0.1"), Some((9, 9)), "80"),
        ];
        let four = endpoint(&["10.0.0.2/8"]);
        let found = planned(&publications, &four, ANY4, &[]);
        assert_eq!(
            shown(&found),
            [
                "127.0.0.1:9-9:80>10.0.0.2",
                "127.0.0.1:7000-7009:80>10.0.0.2",
                "127.0.0.1+127.0.0.2:0-0:80>10.0.0.2"
            ]
        );
        let held = [found[2].mapping("127.0.0.2".parse().unwrap(), 31_000)];
        let next = planned(&publications[..2], &four, ANY4, &held);
        assert_eq!(shown(&next), ["127.0.0.1+127.0.0.2:31000-31000:80>10.0.0.2"]);
    }

    #[test]
    fn routed_networks_need_no_port_of_the_host() {
        let rules = Rules { reach4: Reach::Published, ..Rules::default() };
        let both = endpoint(&["10.0.0.2/8", "fd00::2/64"]);
        let asked = [publication(None, Some((80, 80)), "80")];
        let publisher = Publisher { endpoint: &both, rules };
        assert_eq!(shown(&plan(&asked, [Some(publisher); 2], ANY4, &[])), [":::80-80:80>fd00::2"]);
        let ports = direct(&asked, publisher, ANY4);
        assert_eq!((ports.len(), ports[0].host_address, ports[0].host_port), (1, ANY4, 0));
        assert!(again(&Endpoint { ports, ..both }).is_empty());
    }

    #[test]
    fn each_family_is_published_by_who_has_its_default_route() {
        let (four, six) = (endpoint(&["10.0.0.2/8"]), endpoint(&["fd00::2/64"]));
        let [four, six] = [&four, &six].map(|endpoint| Some(Publisher { endpoint, rules: Rules::default() }));
        let asked = [publication(None, Some((80, 80)), "80"), publication(Some("::1"), None, "81")];
        let with = |publishers| shown(&plan(&asked, publishers, ANY4, &[]));
        assert_eq!(with([four, six]), ["0.0.0.0+:::80-80:80>10.0.0.2+fd00::2", "::1:0-0:81>fd00::2"]);
        assert_eq!(with([four, four]), ["0.0.0.0+:::80-80:80>10.0.0.2+10.0.0.2", "::1:0-0:81>10.0.0.2"]);
        assert_eq!(with([None, six]), [":::80-80:80>fd00::2", "::1:0-0:81>fd00::2"]);
        assert!(with([None; 2]).is_empty());
    }
}
