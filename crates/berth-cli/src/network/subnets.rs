//! Subnets with what belongs to them, gathered from flags that each name addresses only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::network::IpamConfig;

use crate::failure::{Failure, Outcome};

/// A subnet or range: an address, and how many of its bits count.
#[derive(Clone, Copy, PartialEq)]
struct Net {
    address: IpAddr,
    bits: u8,
}

impl Net {
    fn parse(text: &str) -> Outcome<Net> {
        let invalid = || Failure::new(format!("invalid CIDR address: {text}"));
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(invalid()) } else { Ok(Net { address, bits }) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (one, other, width) = match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (u128::from(u32::from(one)), u128::from(u32::from(other)), 32)
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one), u128::from(other), 128),
            _ => return false,
        };
        // A shift by all bits of a number is none that the processor knows.
        let shift = u32::from(width - self.bits);
        one.checked_shr(shift).unwrap_or_default() == other.checked_shr(shift).unwrap_or_default()
    }
}

/// Puts ranges, gateways and auxiliary addresses (`name=address`) to the subnets that they are of.
pub fn gather(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    auxiliary: &[String],
) -> Outcome<Vec<IpamConfig>> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut found: Vec<(Net, IpamConfig)> = Vec::new();
    for text in subnets {
        let net = Net::parse(text)?;
        if found.iter().any(|(other, _)| other.contains(net.address) || net.contains(other.address)) {
            return Err(Failure::new("multiple overlapping subnet configuration is not supported"));
        }
        found.push((net, IpamConfig { subnet: text.clone(), ..IpamConfig::default() }));
    }
    for text in ranges {
        let config = place(&mut found, Net::parse(text)?.address)
            .ok_or_else(|| Failure::new(format!("no matching subnet for range {text}")))?;
        fill(&mut config.ip_range, text, |old| {
            format!("cannot configure multiple ranges ({text}, {old}) on the same subnet ({})", config.subnet)
        })?;
    }
    for text in gateways {
        let config = address(text)
            .and_then(|gateway| place(&mut found, gateway))
            .ok_or_else(|| Failure::new(format!("no matching subnet for gateway {text}")))?;
        fill(&mut config.gateway, text, |old| {
            format!(
                "cannot configure multiple gateways ({text}, {old}) for the same subnet ({})",
                config.subnet
            )
        })?;
    }
    for pair in auxiliary {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let config = address(text)
            .and_then(|address| place(&mut found, address))
            .ok_or_else(|| Failure::new(format!("no matching subnet for aux-address {text}")))?;
        config.auxiliary_addresses.get_or_insert_with(BTreeMap::new).insert(name.to_owned(), text.to_owned());
    }
    Ok(found.into_iter().map(|(_, config)| config).collect())
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn place(found: &mut [(Net, IpamConfig)], address: IpAddr) -> Option<&mut IpamConfig> {
    found.iter_mut().find(|(net, _)| net.contains(address)).map(|(_, config)| config)
}

fn fill(field: &mut String, text: &str, twice: impl FnOnce(&str) -> String) -> Outcome {
    if !field.is_empty() {
        return Err(Failure::new(twice(field)));
    }
    *field = text.to_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        subnets: &[&str],
        ranges: &[&str],
        gateways: &[&str],
        auxiliary: &[&str],
    ) -> Outcome<Vec<IpamConfig>> {
        let list = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        gather(&list(subnets), &list(ranges), &list(gateways), &list(auxiliary))
    }

    #[test]
    fn each_address_finds_its_subnet() {
        let found = of(
            &["10.1.0.0/16", "fd00:1::/64"],
            &["10.1.5.0/24"],
            &["fd00:1::9", "10.1.0.9"],
            &["router=10.1.0.8", "other=fd00:1::8"],
        )
        .unwrap();
        assert_eq!(found[0].ip_range, "10.1.5.0/24");
        assert_eq!((found[0].gateway.as_str(), found[1].gateway.as_str()), ("10.1.0.9", "fd00:1::9"));
        assert_eq!(found[0].auxiliary_addresses.as_ref().unwrap()["router"], "10.1.0.8");
        assert_eq!(found[1].auxiliary_addresses.as_ref().unwrap()["other"], "fd00:1::8");
    }

    #[test]
    fn what_fits_nowhere_is_refused() {
        let net = "10.1.0.0/16";
        for (subnets, ranges, gateways, auxiliary, expected) in [
            (&[net][..], &["10.2.0.0/24"][..], &[][..], &[][..], "no matching subnet for range 10.2.0.0/24"),
            (&[net], &[], &["10.2.0.1"], &[], "no matching subnet for gateway 10.2.0.1"),
            (&[net], &[], &[], &["a=10.2.0.1"], "no matching subnet for aux-address 10.2.0.1"),
            (&[], &[], &["10.1.0.1"], &[], "every ip-range or gateway must have a corresponding subnet"),
            (&["10.1.0.0"], &[], &[], &[], "invalid CIDR address: 10.1.0.0"),
            (&["10.1.0.0/33"], &[], &[], &[], "invalid CIDR address: 10.1.0.0/33"),
            (
                &[net, "10.1.2.0/24"],
                &[],
                &[],
                &[],
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                &[net, "10.2.0.0/16"],
                &[],
                &["10.1.0.1", "10.1.0.2"],
                &[],
                "cannot configure multiple gateways (10.1.0.2, 10.1.0.1) for the same subnet (10.1.0.0/16)",
            ),
        ] {
            assert_eq!(of(subnets, ranges, gateways, auxiliary).unwrap_err().message, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[0-9a-f.:/]{0,20}", other in "[0-9a-f.:/]{0,20}") {
            let _ = of(&[&text, "0.0.0.0/0"], &[&other], &[&text], &[&other]);
        }
    }
}
