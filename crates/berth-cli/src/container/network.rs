//! `--network` and what belongs to it.

use std::collections::BTreeMap;

use berth_api::StringMap;
use berth_api::network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use clap::ArgMatches;

use crate::failure::{Failure, Outcome};
use crate::flags;

/// What was said of networks.
#[derive(Debug, Default, PartialEq)]
pub struct Network {
    /// For the host's configuration: the first network.
    pub mode: String,
    /// Settings of the container on each.
    pub endpoints: Option<NetworkingConfig>,
}

/// Reads the flags.
pub fn read(matches: &ArgMatches) -> Outcome<Network> {
    let mut networks = Vec::new();
    for text in flags::list(matches, "network") {
        networks.push(one(&text)?);
    }
    let mut mode = networks.first().map(|(name, _)| name.clone()).unwrap_or_default();
    if networks.is_empty() {
        networks.push(("default".to_owned(), EndpointSettings::default()));
        mode = String::new();
    }
    let (name, settings) = &mut networks[0];
    apply(matches, settings)?;
    // On the default bridge links are the container's own.
    settings.links = flags::some(matches, "link").filter(|_| is_joined(name));
    let several = networks.len() > 1;
    let mut endpoints = BTreeMap::new();
    for (name, settings) in networks {
        if several && !is_joined(&name) {
            return Err(Failure::new(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        if several || settings != EndpointSettings::default() {
            let name = if name.is_empty() { "default".to_owned() } else { name };
            if endpoints.insert(name.clone(), Some(settings)).is_some() {
                return Err(Failure::new(format!("network {name:?} is specified multiple times")));
            }
        }
    }
    let endpoints = Some(endpoints).filter(|endpoints| !endpoints.is_empty());
    Ok(Network { mode, endpoints: endpoints.map(|all| NetworkingConfig { endpoints_config: Some(all) }) })
}

/// Whether a container can be on the network and on others too.
fn is_joined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "none" | "host") && !name.starts_with("container:")
}

/// Flags without a network's name are about the first.
fn apply(matches: &ArgMatches, settings: &mut EndpointSettings) -> Outcome {
    let conflict = |flag: &str, option: &str| {
        Err(Failure::new(format!(
            "conflicting options: cannot specify both --{flag} and per-network {option}"
        )))
    };
    if let Some(aliases) = flags::some(matches, "network-alias") {
        if settings.aliases.is_some() {
            return conflict("network-alias", "alias");
        }
        settings.aliases = Some(aliases);
    }
    if let Some(address) = flags::text(matches, "mac-address") {
        if !settings.mac_address.is_empty() {
            return conflict("mac-address", "MAC address");
        }
        settings.mac_address = address.to_owned();
    }
    let link_local = flags::some(matches, "link-local-ip");
    let (ipv4, ipv6) = (flags::or_empty(matches, "ip"), flags::or_empty(matches, "ip6"));
    if ipv4.is_empty() && ipv6.is_empty() && link_local.is_none() {
        return Ok(());
    }
    let ipam = settings.ipam_config.get_or_insert_default();
    for (flag, option, given, place) in [
        ("ip", "IPv4 address", ipv4, &mut ipam.ipv4_address),
        ("ip6", "IPv6 address", ipv6, &mut ipam.ipv6_address),
    ] {
        if !given.is_empty() {
            if !place.is_empty() {
                return conflict(flag, option);
            }
            *place = given;
        }
    }
    if link_local.is_some() {
        if ipam.link_local_ips.is_some() {
            return conflict("link-local-ip", "link-local IP addresses");
        }
        ipam.link_local_ips = link_local;
    }
    Ok(())
}

/// Reads one flag: a name, or the long form `name=…,alias=…,ip=…`.
fn one(text: &str) -> Outcome<(String, EndpointSettings)> {
    let mut settings = EndpointSettings::default();
    if !text.contains("name=") {
        return Ok((text.to_owned(), settings));
    }
    let mut name = String::new();
    let mut ipam = EndpointIpamConfig::default();
    let mut options = StringMap::new();
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Failure::new(format!("invalid field {field:?} in --network")));
        };
        match key.trim().to_lowercase().as_str() {
            "name" => name = value.to_owned(),
            "alias" => settings.aliases.get_or_insert_default().push(value.to_owned()),
            "ip" => ipam.ipv4_address = value.to_owned(),
            "ip6" => ipam.ipv6_address = value.to_owned(),
            "link-local-ip" => ipam.link_local_ips.get_or_insert_default().push(value.to_owned()),
            "mac-address" => settings.mac_address = value.to_owned(),
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or_else(|| {
                    Failure::new("invalid key value pair format in driver options".to_owned())
                })?;
                options.insert(key.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                settings.gw_priority = value
                    .parse()
                    .map_err(|_| Failure::new(format!("invalid gw-priority: invalid value '{value}'")))?;
            }
            _ => return Err(Failure::new(format!("invalid field {field:?} in --network"))),
        }
    }
    settings.ipam_config = Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default());
    settings.driver_opts = Some(options).filter(|options| !options.is_empty());
    Ok((name, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Outcome<Network> {
        let command =
            clap::Command::new("run").args(crate::container::options::all()).disable_help_flag(true);
        read(&command.try_get_matches_from(line.split(' ')).unwrap())
    }

    #[test]
    fn several_networks_each_have_their_settings() {
        assert_eq!(of("run").unwrap(), Network::default());
        assert_eq!(of("run --net host").unwrap(), Network { mode: "host".into(), endpoints: None });
        let found =
            of("run --network name=a,alias=x,ip=10.0.0.2,gw-priority=3 --network b --ip6 fe80::1").unwrap();
        assert_eq!(found.mode, "a");
        let endpoints = found.endpoints.unwrap().endpoints_config.unwrap();
        let first = endpoints["a"].as_ref().unwrap();
        assert_eq!((first.aliases.as_deref(), first.gw_priority), (Some(&["x".to_owned()][..]), 3));
        let ipam = first.ipam_config.as_ref().unwrap();
        assert_eq!((ipam.ipv4_address.as_str(), ipam.ipv6_address.as_str()), ("10.0.0.2", "fe80::1"));
        assert_eq!(endpoints["b"], Some(EndpointSettings::default()));
        let linked = of("run --network a --link b:c").unwrap().endpoints.unwrap().endpoints_config.unwrap();
        assert_eq!(linked["a"].as_ref().unwrap().links.as_deref(), Some(&["b:c".to_owned()][..]));
        assert_eq!(of("run --link b:c").unwrap(), Network::default());
        let local =
            of("run --link-local-ip 169.254.1.1").unwrap().endpoints.unwrap().endpoints_config.unwrap();
        let ipam = local["default"].as_ref().unwrap().ipam_config.as_ref().unwrap();
        assert_eq!(ipam.link_local_ips.as_deref(), Some(&["169.254.1.1".to_owned()][..]));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (line, message) in [
            ("run --network a --network host", "cannot attach both user-defined and non-user-defined"),
            ("run --network a --network a", "specified multiple times"),
            ("run --network name=a,ip=1.2.3.4 --ip 1.2.3.5", "both --ip and per-network IPv4 address"),
            ("run --network name=a,colour=red", "invalid field"),
            ("run --network name=a,gw-priority=x", "invalid gw-priority"),
        ] {
            let failure = of(line).unwrap_err();
            assert!(failure.message.contains(message), "{line}: {failure}");
        }
    }
}
