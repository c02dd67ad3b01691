//! Subnets for networks that do not say which: taken from pools, past what the host routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_sys::rtnetlink::Socket;
use berth_sys::rtnetlink::netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use berth_sys::rtnetlink::netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Error;

/// Addresses that networks are given subnets of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    /// All of them.
    pub base: IpNet,
    /// Prefix length of each subnet.
    pub size: u8,
}

/// Docker's pools: 172.17–172.31/16, then 192.168.0.0/16 in /20s; and for IPv6 the unique-local /48 that follows from
/// `seed`, in /64s.
pub fn default_pools(seed: &[u8; 5]) -> Vec<AddressPool> {
    let [a, b, c, d, e] = *seed;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let local = Ipv6Addr::new(pair(0xfd, a), pair(b, c), pair(d, e), 0, 0, 0, 0, 0);
    let v4 = |a, b, length| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length).ok().map(IpNet::V4);
    let wide = (17..=31).filter_map(|second| v4(172, second, 16)).map(|base| AddressPool { base, size: 16 });
    let narrow = v4(192, 168, 16).map(|base| AddressPool { base, size: 20 });
    let unique = Ipv6Net::new(local, 48).ok().map(|net| AddressPool { base: IpNet::V6(net), size: 64 });
    wide.chain(narrow).chain(unique).collect()
}

/// These pools, and Docker's for a family that has none among them.
pub fn completed(chosen: &[AddressPool], seed: &[u8; 5]) -> Vec<AddressPool> {
    let lacks = |v6: bool| !chosen.iter().any(|pool| matches!(pool.base, IpNet::V6(_)) == v6);
    let (no4, no6) = (lacks(false), lacks(true));
    let defaults = default_pools(seed).into_iter();
    let needed = defaults.filter(|pool| if matches!(pool.base, IpNet::V6(_)) { no6 } else { no4 });
    chosen.iter().cloned().chain(needed).collect()
}

/// The first subnet of the pools, of IPv6 with `v6`, that overlaps neither a route of the host nor one of `taken`.
pub fn choose(pools: &[AddressPool], v6: bool, taken: &[IpNet]) -> Result<IpNet, Error> {
    let mut avoid = host_routes(v6)?;
    avoid.extend_from_slice(taken);
    let family = pools.iter().filter(|pool| matches!(pool.base, IpNet::V6(_)) == v6);
    family.filter_map(|pool| first_free(pool, &avoid)).next().ok_or(Error::NoSubnet)
}

/// Whether two subnets have an address in common.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The first subnet of a pool that overlaps none of `avoid`. It steps over what is in the way, so that it takes as many
/// steps as there are obstacles, however large the pool.
fn first_free(pool: &AddressPool, avoid: &[IpNet]) -> Option<IpNet> {
    let mut candidate = IpNet::new(pool.base.network(), pool.size).ok()?;
    while pool.base.contains(&candidate) {
        let Some(obstacle) = avoid.iter().find(|other| overlap(other, &candidate)) else {
            return Some(candidate);
        };
        let last = obstacle.broadcast().max(candidate.broadcast());
        let next = match last {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).checked_add(1)?)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).checked_add(1)?)),
        };
        candidate = IpNet::new(next, pool.size).ok()?;
    }
    None
}

/// Whether the host routes an address of the subnet some way already.
///
/// # Errors
/// The kernel refuses to tell.
pub fn is_routed(net: &IpNet) -> Result<bool, Error> {
    Ok(host_routes(matches!(net, IpNet::V6(_)))?.iter().any(|route| overlap(route, net)))
}

/// The destinations that the host routes, the default route left out.
fn host_routes(v6: bool) -> Result<Vec<IpNet>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let found = match Socket::open()?.dump(RouteNetlinkMessage::GetRoute(message)) {
        // A kernel without IPv6 routes nothing by it.
        Err(_) if v6 => return Ok(Vec::new()),
        found => found?,
    };
    Ok(found
        .into_iter()
        .filter_map(|message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return None };
            let length = route.header.destination_prefix_length;
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
                RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            })?;
            (length > 0).then(|| IpNet::new(destination, length).ok()).flatten()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(avoid: &[&str], v6: bool) -> Option<String> {
        let avoid: Vec<IpNet> = avoid.iter().map(|text| text.parse().unwrap()).collect();
        let pools = default_pools(&[1, 2, 3, 4, 5]);
        let family = pools.iter().filter(|pool| matches!(pool.base, IpNet::V6(_)) == v6);
        family.filter_map(|pool| first_free(pool, &avoid)).next().map(|net| net.to_string())
    }

    #[test]
    fn subnets_avoid_what_the_host_routes() {
        assert_eq!(chosen(&["172.17.0.0/16", "172.18.4.0/24"], false).unwrap(), "172.19.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.0.0/17"], false).unwrap(), "192.168.128.0/20");
        assert_eq!(chosen(&["0.0.0.0/1", "128.0.0.0/1"], false), None);
    }

    #[test]
    fn a_family_without_pools_has_dockers() {
        let own = AddressPool { base: "10.1.0.0/16".parse().unwrap(), size: 24 };
        let pools = completed(std::slice::from_ref(&own), &[0; 5]);
        assert_eq!((pools.len(), &pools[0]), (2, &own));
        assert_eq!(completed(&[], &[0; 5]), default_pools(&[0; 5]));
    }

    #[test]
    fn the_second_familys_are_unique_to_the_host() {
        assert_eq!(chosen(&[], true).unwrap(), "fd01:203:405::/64");
        assert_eq!(chosen(&["fd01:203:405::/64"], true).unwrap(), "fd01:203:405:1::/64");
        assert_eq!(chosen(&["fd00::/8"], true), None);
    }
}
