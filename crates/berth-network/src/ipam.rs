//! Who has which address: pools that hand out each address once, round robin.
//!
//! A link that goes with its namespace is gone some milliseconds after its container. Its address is kept back
//! until the link is seen gone, so that a successor never shares an address with a link that still answers ARP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use berth_sys::rtnetlink::Socket;
use berth_sys::rtnetlink::netlink_packet_route::RouteNetlinkMessage;
use berth_sys::rtnetlink::netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use ipnet::Ipv4Net;

use crate::Error;

/// The free and used addresses of one IPv4 subnet, in memory. The engine fills it from its records.
#[derive(Debug)]
pub struct Pool {
    subnet: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
    leaving: BTreeMap<Ipv4Addr, String>,
    next: u32,
}

impl Pool {
    /// A pool for `subnet` in which `gateway`, the network's own and the broadcast address are taken.
    pub fn new(subnet: Ipv4Net, gateway: Ipv4Addr) -> Pool {
        let next = u32::from(subnet.network()).wrapping_add(1);
        Pool { subnet: subnet.trunc(), used: BTreeSet::from([gateway]), leaving: BTreeMap::new(), next }
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Takes the next free address after the one given last; `None` when all are taken. `link_exists` says
    /// whether the link of an address that was released is still there.
    pub fn allocate(&mut self, link_exists: impl Fn(&str) -> bool) -> Option<Ipv4Addr> {
        let first = u32::from(self.subnet.network()) + 1;
        let last = u32::from(self.subnet.broadcast()).checked_sub(1)?;
        if last < first {
            return None;
        }
        for _ in first..=last {
            let candidate = Ipv4Addr::from(self.next.clamp(first, last));
            self.next = if u32::from(candidate) == last { first } else { u32::from(candidate) + 1 };
            if self.used.contains(&candidate) {
                continue;
            }
            if let Some(link) = self.leaving.get(&candidate) {
                if link_exists(link) {
                    continue;
                }
                self.leaving.remove(&candidate);
            }
            self.used.insert(candidate);
            return Some(candidate);
        }
        None
    }

    /// Marks an address as taken, such as that of an adopted container; false if it was taken already or lies
    /// outside the subnet.
    pub fn reserve(&mut self, address: Ipv4Addr) -> bool {
        self.leaving.remove(&address);
        self.subnet.contains(&address) && self.used.insert(address)
    }

    /// Gives an address back; it is handed out again once the link `host_link` is gone.
    pub fn release(&mut self, address: Ipv4Addr, host_link: String) {
        if self.used.remove(&address) {
            self.leaving.insert(address, host_link);
        }
    }
}

/// The hardware address of a container's link: locally administered, made from its IPv4 address, so that two
/// links of one network never share one.
pub fn mac_for(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The first subnet of the default pools (Docker's: 172.17–172.31/16, then 192.168.0.0/16 in /20s) that
/// overlaps neither a route of the host nor one of `taken`.
pub fn choose_subnet(taken: &[Ipv4Net]) -> Result<Ipv4Net, Error> {
    let mut avoid = host_routes()?;
    avoid.extend_from_slice(taken);
    first_free(&avoid).ok_or(Error::NoSubnet)
}

fn first_free(avoid: &[Ipv4Net]) -> Option<Ipv4Net> {
    let wide = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let narrow = (0..16).map(|step| (Ipv4Addr::new(192, 168, step * 16, 0), 20));
    wide.chain(narrow)
        .filter_map(|(address, length)| Ipv4Net::new(address, length).ok())
        .find(|subnet| !avoid.iter().any(|a| a.contains(&subnet.network()) || subnet.contains(&a.network())))
}

/// The IPv4 destinations that the host routes, the default route left out.
fn host_routes() -> Result<Vec<Ipv4Net>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = berth_sys::rtnetlink::netlink_packet_route::AddressFamily::Inet;
    let found = Socket::open()?.dump(RouteNetlinkMessage::GetRoute(message))?;
    Ok(found
        .into_iter()
        .filter_map(|message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return None };
            let length = route.header.destination_prefix_length;
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            })?;
            (length > 0).then(|| Ipv4Net::new(destination, length).ok()).flatten()
        })
        .collect())
}

/// The gateway of a subnet as Docker chooses it: the first host address.
pub fn first_address(subnet: Ipv4Net) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(subnet.network()) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Pool {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        Pool::new(subnet, Ipv4Addr::from(u32::from(subnet.network()) + 1))
    }

    #[test]
    fn goes_round_and_keeps_back_what_is_still_linked() {
        let mut pool = pool("10.1.0.0/29");
        let take = |p: &mut Pool, alive: bool| p.allocate(|_| alive).map(|a| a.octets()[3]);
        assert_eq!(
            (2..=6).map(|_| take(&mut pool, true)).collect::<Vec<_>>(),
            (2..=6).map(Some).collect::<Vec<_>>()
        );
        assert_eq!(take(&mut pool, true), None);
        pool.release(Ipv4Addr::new(10, 1, 0, 3), "veth1".into());
        assert_eq!(take(&mut pool, true), None, "its link is still there");
        assert_eq!(take(&mut pool, false), Some(3));
    }

    #[test]
    fn a_reserved_address_is_not_given_out() {
        let mut pool = pool("10.1.0.0/30");
        assert!(pool.reserve(Ipv4Addr::new(10, 1, 0, 2)));
        assert!(!pool.reserve(Ipv4Addr::new(10, 1, 0, 2)));
        assert!(!pool.reserve(Ipv4Addr::new(10, 9, 0, 2)));
        assert_eq!(pool.allocate(|_| false), None);
    }

    #[test]
    fn tiny_subnets_have_nothing_to_give() {
        assert_eq!(pool("10.1.0.0/31").allocate(|_| false), None);
        assert_eq!(pool("10.1.0.0/32").allocate(|_| false), None);
    }

    #[test]
    fn subnets_avoid_what_the_host_routes() {
        let avoid = ["172.17.0.0/16".parse().unwrap(), "172.18.4.0/24".parse().unwrap()];
        assert_eq!(first_free(&avoid), Some("172.19.0.0/16".parse().unwrap()));
        let all = ["172.16.0.0/12".parse().unwrap(), "192.168.0.0/17".parse().unwrap()];
        assert_eq!(first_free(&all), Some("192.168.128.0/20".parse().unwrap()));
        assert_eq!(first_free(&["0.0.0.0/1".parse().unwrap(), "128.0.0.0/1".parse().unwrap()]), None);
    }

    proptest! {
        #[test]
        fn no_address_is_ever_given_twice(releases in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = pool("10.1.0.0/27");
            let mut held = BTreeSet::new();
            for release in releases {
                if release {
                    if let Some(address) = held.pop_first() { pool.release(address, String::new()); }
                } else if let Some(address) = pool.allocate(|_| false) {
                    prop_assert!(held.insert(address), "{address} was held already");
                    prop_assert!(pool.subnet().contains(&address));
                } else {
                    prop_assert_eq!(held.len(), 29);
                }
            }
        }
    }
}
