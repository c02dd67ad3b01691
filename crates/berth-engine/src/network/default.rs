//! What the default bridge is: its subnets follow from settings, from what its link has, and from what it was.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_network::subnets::{self, AddressPool};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bridge::BridgeOptions;
use super::bridge_id;
use super::object::{Driver, NEXT_HOPS, Object, Subnet};
use super::request::first_gateway;
use crate::{BridgeSettings, Error, FamilySettings};

/// The default bridge as an earlier engine settled it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Name of its link; empty in records that are older than settings of it.
    pub link: String,
    /// An administrator made the link.
    pub foreign: bool,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

impl Remembered {
    /// What to remember of a bridge that is settled.
    pub fn of(object: &Object) -> Remembered {
        let (link, foreign) = match &object.driver {
            Driver::Bridge(options) => (options.name.clone().unwrap_or_default(), options.foreign),
            Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => Default::default(),
        };
        Remembered { link, foreign, subnets: object.subnets.clone() }
    }
}

/// What is known beside the settings.
#[derive(Debug, Default)]
pub struct Known {
    /// Addresses that the link has.
    pub addresses: Vec<IpNet>,
    /// The bridge as an earlier engine settled it.
    pub remembered: Remembered,
    /// A container that runs is on it: it stays, whatever the settings say.
    pub in_use: bool,
    /// Subnets of other networks.
    pub others: Vec<IpNet>,
    /// Someone chose the pools: what is in none of them is left.
    pub pools_chosen: bool,
}

/// A family's subnet, as far as it is settled.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    net: Option<IpNet>,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
}

/// The default bridge as a network. Reads the host's routes if a subnet has to be chosen.
pub fn object(settings: &BridgeSettings, known: &Known, pools: &[AddressPool]) -> Result<Object, Error> {
    let ipv6 = match known.in_use {
        true => known.remembered.subnets.iter().any(Subnet::is_v6),
        false => settings.ipv6,
    };
    let mut subnets = Vec::new();
    let stays = known.in_use && !known.remembered.subnets.is_empty();
    if stays {
        subnets.clone_from(&known.remembered.subnets);
    } else {
        for v6 in [false, true].into_iter().filter(|v6| ipv6 || !v6) {
            subnets.push(subnet(settings, known, pools, v6).map_err(in_dockers_words)?);
        }
    }
    let kept = Some(&known.remembered).filter(|remembered| stays && !remembered.link.is_empty());
    let driver = Driver::Bridge(BridgeOptions {
        name: Some(kept.map_or(&settings.name, |kept| &kept.link).clone()),
        mtu: settings.mtu,
        masquerade: settings.masquerade,
        icc: settings.icc,
        foreign: kept.map_or(settings.foreign, |kept| kept.foreign),
        ..BridgeOptions::default()
    });
    let plain = Object::plain(bridge_id(), "bridge", driver, Timestamp::UNIX_EPOCH);
    Ok(Object { ipv6, subnets, ..plain })
}

fn in_dockers_words(error: Error) -> Error {
    Error::InvalidParameter(format!(
        "Error initializing network controller: error creating default \"bridge\" network: {error}"
    ))
}

fn subnet(
    settings: &BridgeSettings,
    known: &Known,
    pools: &[AddressPool],
    v6: bool,
) -> Result<Subnet, Error> {
    let family = if v6 { &settings.v6 } else { &settings.v4 };
    let of_family = |net: &&IpNet| matches!(net, IpNet::V6(_)) == v6;
    let pooled =
        |net: &IpNet| pools.iter().any(|pool| pool.base.contains(net) && pool.size == net.prefix_len());
    let chosen = family.address.is_some() || family.range.is_some();
    // Whoever chooses pools wants subnets of them, and not what the link has from before.
    let stale = |net: &IpNet| !settings.foreign && !chosen && known.pools_chosen && !pooled(&net.trunc());
    let addresses = known.addresses.iter().filter(of_family).filter(|net| !stale(net));
    let addresses: Vec<IpNet> = addresses.copied().collect();
    let part = part(family, settings.foreign, &addresses, v6)?;
    let mut remembered =
        known.remembered.subnets.iter().find(|subnet| subnet.is_v6() == v6 && pooled(&subnet.net));
    // It has no link of this engine, so that what leads there is another's.
    if part.net.is_none() && remembered.map_or(Ok(false), |subnet| subnets::is_routed(&subnet.net))? {
        remembered = None;
    }
    let (net, gateway) = match (part.net, remembered) {
        (Some(net), _) => (net, part.gateway),
        (None, Some(remembered)) => (remembered.net, remembered.gateway),
        (None, None) => (subnets::choose(pools, v6, &known.others)?, None),
    };
    let mut subnet =
        Subnet { net, range: part.range, gateway, auxiliary: BTreeMap::new(), pool: String::new() };
    if let Some(next_hop) = family.gateway {
        subnet.auxiliary.insert(NEXT_HOPS[usize::from(v6)].to_owned(), next_hop);
    }
    check(&subnet)?;
    if subnet.gateway.is_none() {
        subnet.gateway = Some(first_gateway(net, subnet.range, &subnet.auxiliary)?);
    }
    Ok(subnet)
}

fn check(subnet: &Subnet) -> Result<(), Error> {
    let Subnet { net, range, .. } = subnet;
    if range.is_some_and(|range| !net.contains(&range)) {
        return Err(Error::InvalidParameter("invalid address subpool".into()));
    }
    match subnet.auxiliary.iter().find(|(_, address)| !net.contains(*address)) {
        Some((name, address)) => Err(Error::Forbidden(format!(
            "auxiliary address: ({name}:{address}) must belong to the master pool: {net}"
        ))),
        None => Ok(()),
    }
}

/// As Docker does: the bridge's address is the one that was set, or the link's that fits best; the subnet is that of the
/// address, or the range of containers.
fn part(family: &FamilySettings, foreign: bool, addresses: &[IpNet], v6: bool) -> Result<Part, Error> {
    let address = family.address.or_else(|| found(family.range, foreign, addresses));
    let Some(address) = address else {
        let range = family.range.map(|range| range.trunc());
        return Ok(Part { net: range, range, gateway: None });
    };
    let mut part = Part { net: Some(address.trunc()), range: None, gateway: Some(address.addr()) };
    let Some(range) = family.range else { return Ok(part) };
    part.range = Some(range.trunc());
    let outside = !address.contains(&range.addr()) || range.prefix_len() < address.prefix_len();
    if foreign && outside {
        if v6 {
            return Err(Error::InvalidParameter(format!(
                "fixed-cidr-v6={range} is outside any subnet implied by addresses on the user-managed default bridge"
            )));
        }
        tracing::warn!(
            %range, bridge = %address,
            "fixed-cidr is outside any subnet implied by addresses on the user-managed default bridge, this may be \
             treated as an error in a future release"
        );
        part.range = None;
    }
    Ok(part)
}

/// The address of the link that the bridge is to have, with the prefix length of the subnet.
fn found(range: Option<IpNet>, foreign: bool, addresses: &[IpNet]) -> Option<IpNet> {
    let is_link_local =
        |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().segments()[..4] == [0xfe80, 0, 0, 0]);
    let with_link_local = range.is_some_and(|range| is_link_local(&range));
    let usable: Vec<IpNet> =
        addresses.iter().filter(|net| with_link_local || !is_link_local(net)).copied().collect();
    let mut best = *usable.first()?;
    let Some(range) = range else { return Some(best) };
    let subnet = range.trunc();
    if usable.len() > 1 {
        for address in &usable {
            if address.contains(&range.addr()) {
                best = *address;
                break;
            }
            if subnet.contains(&address.addr()) && !subnet.contains(&best.addr()) {
                best = *address;
            }
        }
    }
    if foreign {
        return Some(best);
    }
    // The link is the engine's own, and the range was changed since.
    if !best.contains(&range.addr()) {
        return None;
    }
    let length = best.prefix_len().min(range.prefix_len());
    IpNet::new(best.addr(), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Option<IpNet> {
        Some(text).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
    }

    /// Subnet, range and gateway for the bridge's address, the range, and what the link has.
    fn settled(foreign: bool, address: &str, range: &str, has: &[&str]) -> Result<String, String> {
        let family = FamilySettings { address: net(address), range: net(range), gateway: None };
        let v6 = has.iter().chain([&address, &range]).any(|text| text.contains(':'));
        let settings = BridgeSettings {
            foreign,
            ipv6: v6,
            v4: if v6 { FamilySettings::default() } else { family },
            v6: if v6 { family } else { FamilySettings::default() },
            ..BridgeSettings::default()
        };
        let pools = ["192.168.176.0/20", "fdd1:8161:2d2c::/56"].map(|base| AddressPool {
            base: base.parse().unwrap(),
            size: if base.contains(':') { 64 } else { 24 },
        });
        let known =
            Known { addresses: has.iter().map(|text| text.parse().unwrap()).collect(), ..Known::default() };
        let object = object(&settings, &known, &pools).map_err(|error| error.to_string())?;
        let subnet = object.subnets.into_iter().find(|subnet| subnet.is_v6() == v6).unwrap();
        let range = subnet.range.map_or_else(String::new, |range| range.to_string());
        Ok(format!("{} {range} {}", subnet.net, subnet.gateway.unwrap()))
    }

    #[test]
    fn the_engines_own_bridge_is_settled_as_docker_settles_it() {
        for (address, range, has, expected) in [
            ("", "", &[][..], "192.168.176.0/24  192.168.176.1"),
            ("", "192.168.176.0/24", &[], "192.168.176.0/24 192.168.176.0/24 192.168.176.1"),
            ("192.168.176.88/24", "", &[], "192.168.176.0/24  192.168.176.88"),
            ("", "", &["192.168.176.88/24"], "192.168.176.0/24  192.168.176.88"),
            (
                "",
                "192.168.176.0/24",
                &["192.168.176.88/20"],
                "192.168.176.0/20 192.168.176.0/24 192.168.176.88",
            ),
            (
                "192.168.176.99/24",
                "192.168.176.0/24",
                &["192.168.176.88/20"],
                "192.168.176.0/24 192.168.176.0/24 192.168.176.99",
            ),
            (
                "",
                "192.168.176.0/20",
                &["192.168.176.88/24"],
                "192.168.176.0/20 192.168.176.0/20 192.168.176.88",
            ),
            (
                "",
                "192.168.177.0/24",
                &["192.168.176.88/24"],
                "192.168.177.0/24 192.168.177.0/24 192.168.177.1",
            ),
            ("", "fe80::/64", &["fe80::42/64"], "fe80::/64 fe80::/64 fe80::42"),
            (
                "",
                "fe80:1234::/64",
                &["fe80::42/64", "fe80:1234::88/56"],
                "fe80:1234::/56 fe80:1234::/64 fe80:1234::88",
            ),
            ("", "", &["fe80::42/64"], "fdd1:8161:2d2c::/64  fdd1:8161:2d2c::1"),
            (
                "",
                "fdd1:8161:2d2c::/56",
                &["fdd1:8161:2d2c::8888/64"],
                "fdd1:8161:2d2c::/56 fdd1:8161:2d2c::/56 fdd1:8161:2d2c::8888",
            ),
        ] {
            assert_eq!(settled(false, address, range, has).unwrap(), expected, "{address} {range} {has:?}");
        }
        let outside = settled(false, "10.0.0.1/24", "10.1.0.0/24", &[]).unwrap_err();
        assert!(outside.ends_with("network: invalid address subpool"), "{outside}");
    }

    #[test]
    fn an_administrators_bridge_is_settled_as_docker_settles_it() {
        let three = ["192.168.160.88/20", "192.168.176.88/20", "192.168.192.88/20"];
        for (range, has, expected) in [
            ("", &["192.168.176.88/20"][..], "192.168.176.0/20  192.168.176.88"),
            ("192.168.176.0/24", &[], "192.168.176.0/24 192.168.176.0/24 192.168.176.1"),
            ("192.168.176.0/24", &three, "192.168.176.0/20 192.168.176.0/24 192.168.176.88"),
            ("192.168.177.0/24", &three, "192.168.176.0/20 192.168.177.0/24 192.168.176.88"),
            ("192.168.176.0/20", &["192.168.176.88/24"], "192.168.176.0/24  192.168.176.88"),
            ("192.168.176.0/24", &["192.168.160.88/20"], "192.168.160.0/20  192.168.160.88"),
            ("192.168.176.0/20", &["192.168.177.1/24"], "192.168.177.0/24  192.168.177.1"),
            (
                "fdd1:8161:2d2c:11::8888/64",
                &["fdd1:8161:2d2c::8888/60", "fdd1:8161:2d2c:10::8888/60"],
                "fdd1:8161:2d2c:10::/60 fdd1:8161:2d2c:11::/64 fdd1:8161:2d2c:10::8888",
            ),
        ] {
            assert_eq!(settled(true, "", range, has).unwrap(), expected, "{range} {has:?}");
        }
        for (range, has) in [
            ("fdd1:8161:2d2c::/60", "fdd1:8161:2d2c::8888/64"),
            ("fdd1:8161:2d2c:10::/64", "fdd1:8161:2d2c::8888/60"),
            ("fdd1:8161:2d2c:10::/60", "fdd1:8161:2d2c:10::1/64"),
        ] {
            let error = settled(true, "", range, &[has]).unwrap_err();
            assert!(error.contains("is outside any subnet implied by addresses"), "{error}");
        }
    }

    #[test]
    fn what_was_chosen_before_stays_while_it_fits() {
        let remembered = Subnet {
            net: "192.168.177.0/24".parse().unwrap(),
            range: None,
            gateway: Some("192.168.177.1".parse().unwrap()),
            auxiliary: BTreeMap::new(),
            pool: String::new(),
        };
        let pools = |base: &str| [AddressPool { base: base.parse().unwrap(), size: 24 }];
        let remembered = Remembered { link: "old0".into(), foreign: false, subnets: vec![remembered] };
        let mut known = Known { remembered, ..Known::default() };
        let mut settings = BridgeSettings::default();
        let subnets = |settings: &BridgeSettings, known: &Known, base: &str| {
            object(settings, known, &pools(base)).unwrap().subnets[0].net.to_string()
        };
        assert_eq!(subnets(&settings, &known, "192.168.176.0/20"), "192.168.177.0/24");
        assert_eq!(subnets(&settings, &known, "10.77.0.0/16"), "10.77.0.0/24");
        settings.v4.address = net("10.78.0.1/24");
        assert_eq!(subnets(&settings, &known, "10.77.0.0/16"), "10.78.0.0/24");
        known.in_use = true;
        assert_eq!(
            subnets(&settings, &known, "10.77.0.0/16"),
            "192.168.177.0/24",
            "containers keep what they have"
        );
        let kept = object(&settings, &known, &pools("10.77.0.0/16")).unwrap();
        assert_eq!(Remembered::of(&kept), known.remembered);
    }

    #[test]
    fn another_next_hop_lies_in_the_subnet() {
        let v4 = FamilySettings {
            address: net("10.1.0.1/24"),
            range: None,
            gateway: Some("10.1.0.254".parse().unwrap()),
        };
        let mut settings = BridgeSettings { v4, ..BridgeSettings::default() };
        let made = object(&settings, &Known::default(), &[]).unwrap();
        assert_eq!(made.gateway(&made.subnets[0]).unwrap().to_string(), "10.1.0.254");
        assert_eq!(made.subnets[0].gateway.unwrap().to_string(), "10.1.0.1");
        settings.v4.gateway = Some("10.2.0.254".parse().unwrap());
        let error = object(&settings, &Known::default(), &[]).unwrap_err().to_string();
        let expected =
            "auxiliary address: (DefaultGatewayIPv4:10.2.0.254) must belong to the master pool: 10.1.0.0/24";
        assert!(error.ends_with(expected), "{error}");
    }
}
