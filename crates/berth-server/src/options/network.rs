//! Options of networks: the default bridge, address pools, forwarding.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_engine::{
    AddressPool, BridgeSettings, FamilySettings, FirewallBackend, FirewallOptions, InvalidMark,
    NetworkSettings,
};
use ipnet::IpNet;

use super::{OptionError, number, value};
use crate::config::Given;

/// What the options of the default bridge come to. `default` is its link's name where none is given.
pub fn bridge(given: &Given, default: &str) -> Result<BridgeSettings, OptionError> {
    let named = given.text("bridge").unwrap_or_default();
    check_contradictions(given, named)?;
    let mut bridge = BridgeSettings {
        name: if matches!(named, "" | "none") { default } else { named }.to_owned(),
        disabled: named == "none",
        // As in Docker, the engine's own may be named too, and is made like any other.
        foreign: !matches!(named, "" | "none") && named != default,
        lasting: given.switch("live-restore")? == Some(true),
        ipv6: given.switch("ipv6")?.unwrap_or_default(),
        icc: given.switch("icc")?.unwrap_or(true),
        masquerade: given.switch("ip-masq")?.unwrap_or(true),
        v4: family(given, ["bip", "fixed-cidr", "default-gateway"], false)?,
        v6: family(given, ["bip6", "fixed-cidr-v6", "default-gateway-v6"], true)?,
        ..BridgeSettings::default()
    };
    // As in Docker, without rules nothing is translated.
    bridge.masquerade &= given.switch("iptables")?.unwrap_or(true);
    let mentioned = ["bridge", "bip", "bip6", "fixed-cidr", "fixed-cidr-v6", "ipv6", "default-gateway"];
    bridge.eager = mentioned.iter().any(|flag| given.text(flag).is_some_and(|text| !text.is_empty()));
    if let Some(mtu) = number(given, "mtu")?.filter(|mtu| *mtu != 0) {
        bridge.mtu = u32::try_from(mtu).map_err(|_| value(format!("invalid default MTU: {mtu}")))?;
    }
    if let Some(address) = given.parsed("ip", "an address", |text| text.parse::<IpAddr>().ok())? {
        bridge.publish_address = address;
    }
    Ok(bridge)
}

/// What the options of all networks come to.
pub fn networks(given: &Given) -> Result<NetworkSettings, OptionError> {
    let forward = given.switch("ip-forward")?.unwrap_or(true);
    Ok(NetworkSettings {
        pools: pools(given.list("default-address-pool"))?,
        options: default_options(given.list("default-network-opt"))?,
        forward,
        forward_drop: forward && !given.switch("ip-forward-no-drop")?.unwrap_or_default(),
        direct_routing: given.switch("allow-direct-routing")?.unwrap_or_default(),
    })
}

fn check_contradictions(given: &Given, bridge: &str) -> Result<(), OptionError> {
    let has = |flag| given.text(flag).is_some_and(|text| !text.is_empty());
    for flag in ["bip", "bip6"] {
        if !bridge.is_empty() && has(flag) {
            return Err(value(format!(
                "You specified -b & --{flag}, mutually exclusive options. Please specify only one"
            )));
        }
    }
    let off = |flag| Ok::<bool, OptionError>(given.switch(flag)? == Some(false));
    if !off("icc")? {
        return Ok(());
    }
    for (flag, needed) in [("iptables", true), ("ip6tables", given.switch("ipv6")? == Some(true))] {
        if needed && off(flag)? {
            return Err(value(format!(
                "You specified --{flag}=false with --icc=false. ICC=false uses {flag} to function. Please set --icc or \
                 --{flag} to true"
            )));
        }
    }
    Ok(())
}

/// One family's options, by their names: the bridge's address, the subnet of containers, their next hop.
fn family(given: &Given, names: [&'static str; 3], v6: bool) -> Result<FamilySettings, OptionError> {
    let [address, range, gateway] = names;
    let net = |flag: &'static str| -> Result<Option<IpNet>, OptionError> {
        let Some(text) = given.text(flag).filter(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse::<IpNet>().ok().filter(|net| matches!(net, IpNet::V6(_)) == v6);
        parsed.map(Some).ok_or_else(|| value(format!("parse {flag} failed: invalid CIDR address: {text}")))
    };
    let own = |text: &str| match text {
        "" => Some(None),
        text => text.parse::<IpAddr>().ok().filter(|address| address.is_ipv6() == v6).map(Some),
    };
    Ok(FamilySettings {
        address: net(address)?,
        range: net(range)?,
        gateway: given.parsed(gateway, "an IP address", own)?.flatten(),
    })
}

/// Reads `base=172.30.0.0/16,size=24` of a flag, or the file's list of objects.
fn pools(given: &[String]) -> Result<Vec<AddressPool>, OptionError> {
    let mut found = Vec::new();
    for text in given {
        match serde_json::from_str::<Vec<PoolInFile>>(text) {
            Ok(pools) => {
                for pool in pools {
                    found.push(AddressPool { base: base(&pool.base)?, size: pool.size });
                }
            }
            Err(error) if text.trim_start().starts_with('[') => {
                return Err(value(format!("invalid JSON: default-address-pools: {error}")));
            }
            Err(_) => found.push(pool(text)?),
        }
    }
    for (index, pool) in found.iter().enumerate() {
        check_pool(index, pool, &found[..index])?;
    }
    Ok(found)
}

#[derive(serde::Deserialize)]
struct PoolInFile {
    base: String,
    size: u8,
}

fn base(text: &str) -> Result<IpNet, OptionError> {
    let parsed: Result<IpNet, _> = text.parse();
    parsed.map(|net| net.trunc()).map_err(|error| value(format!("invalid base prefix {text:?}: {error}")))
}

fn pool(text: &str) -> Result<AddressPool, OptionError> {
    let mut net = None;
    let mut size = None;
    for field in text.split(',') {
        let field = field.trim().trim_matches('"').to_ascii_lowercase();
        let (key, text_of) = field
            .split_once('=')
            .ok_or_else(|| value(format!("invalid field '{field}' must be a key=value pair")))?;
        match key {
            "base" => net = Some(base(text_of)?),
            "size" => {
                let parsed = text_of.parse::<u8>();
                let wrong = |error| value(format!("invalid size value: {text:?} (must be integer): {error}"));
                size = Some(parsed.map_err(wrong)?);
            }
            key => return Err(value(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    match (net, size) {
        (Some(base), Some(size)) => Ok(AddressPool { base, size }),
        _ => Err(value(format!("invalid default address pool {text:?}: base and size are needed"))),
    }
}

/// As in Docker, subnets fit into their pool; and no pool lies over another.
fn check_pool(index: usize, pool: &AddressPool, others: &[AddressPool]) -> Result<(), OptionError> {
    let AddressPool { base, size } = pool;
    if *size < base.prefix_len() {
        return Err(value(format!(
            "network at index {index} ({base}) has a smaller prefix (/{}) than the target size of that pool (/{size})",
            base.prefix_len()
        )));
    }
    if *size > base.max_prefix_len() {
        return Err(value(format!("invalid prefix size {size} for network at index {index} ({base})")));
    }
    let overlaps = |other: &&AddressPool| other.base.contains(base) || base.contains(&other.base);
    match others.iter().find(overlaps) {
        Some(other) => Err(value(format!("default address pools {} and {base} overlap", other.base))),
        None => Ok(()),
    }
}

/// Reads `bridge=com.docker.network.driver.mtu=1400` of a flag, or the file's object, by driver.
fn default_options(given: &[String]) -> Result<BTreeMap<String, BTreeMap<String, String>>, OptionError> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for text in given {
        if text.trim_start().starts_with('{') {
            let read: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(text)
                .map_err(|error| value(format!("invalid JSON: default-network-opts: {error}")))?;
            for (driver, options) in read {
                found.entry(driver).or_default().extend(options);
            }
            continue;
        }
        let wrong = || value(format!("invalid value {text:?} for map option, should be root-key=key=value"));
        let (driver, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (key, option) = rest.split_once('=').ok_or_else(wrong)?;
        found.entry(driver.to_owned()).or_default().insert(key.to_owned(), option.to_owned());
    }
    Ok(found)
}

/// Who filters and translates packets.
pub fn firewall(given: &Given, default: FirewallBackend) -> Result<FirewallOptions, OptionError> {
    let backend = match given.text("firewall-backend").filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|error| value(format!("{error}")))?,
        None => default,
    };
    let ipv4 = given.switch("iptables")?.unwrap_or(true);
    let ipv6 = given.switch("ip6tables")?.unwrap_or(true);
    let hairpin = given.switch("userland-proxy")? == Some(false);
    let mark = given.text("bridge-accept-fwmark").filter(|text| !text.is_empty());
    let mark = mark.map(str::parse).transpose().map_err(|error: InvalidMark| value(error.to_string()))?;
    // For kernels without that table, as dockerd has it.
    let raw = std::env::var_os("DOCKER_INSECURE_NO_IPTABLES_RAW").is_none_or(|value| value != "1");
    Ok(FirewallOptions { backend, ipv4, ipv6, hairpin, mark, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read_from_both_and_checked() {
        let read = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            pools(&texts).map_err(|error| error.to_string())
        };
        let flags = read(&["base=10.1.0.0/16,size=24", "size=64,base=FD00:1::/48"]).unwrap();
        assert_eq!((flags.len(), flags[0].size, flags[1].base.to_string().as_str()), (2, 24, "fd00:1::/48"));
        let file = read(&[r#"[{"base": "10.1.0.0/16", "size": 24}]"#]).unwrap();
        assert_eq!(file, flags[..1]);
        for (text, expected) in [
            ("base=10.1.0.0/16", "base and size are needed"),
            ("base=x,size=24", "invalid base prefix \"x\""),
            ("base=10.1.0.0/16,size=x", "(must be integer)"),
            ("base=10.1.0.0/16,size", "must be a key=value pair"),
            ("base=10.1.0.0/16,colour=red", "unexpected key 'colour'"),
            ("base=10.1.0.0/16,size=8", "has a smaller prefix (/16) than the target size of that pool (/8)"),
            ("base=10.1.0.0/16,size=33", "invalid prefix size 33"),
            (r#"[{"base": "10.1.0.0/16"}]"#, "invalid JSON"),
        ] {
            let error = read(&[text]).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = read(&["base=10.0.0.0/8,size=24", "base=10.1.0.0/16,size=24"]).unwrap_err();
        assert!(error.contains("overlap"), "{error}");
    }

    #[test]
    fn default_options_are_by_driver() {
        let texts = ["bridge=a=b".to_owned(), r#"{"bridge": {"c": "d=e"}, "macvlan": {}}"#.to_owned()];
        let found = default_options(&texts).unwrap();
        assert_eq!(found["bridge"], [("a".to_owned(), "b".to_owned()), ("c".into(), "d=e".into())].into());
        assert!(default_options(&["bridge=a".to_owned()]).is_err());
        assert!(default_options(&[r#"{"bridge": 1}"#.to_owned()]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in ".{0,30}", size in ".{0,4}") {
            let _ = pools(&[text.clone(), format!("base=10.0.0.0/8,size={size}")]);
            let _ = default_options(&[text]);
        }
    }
}
