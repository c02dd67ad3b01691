//! `--network` and what belongs to it.

use std::collections::BTreeMap;

use berth_api::network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use clap::ArgMatches;

use crate::failure::{Failure, Outcome};
use crate::flags;

/// What was said of the network.
#[derive(Debug, Default, PartialEq)]
pub struct Network {
    /// For the host's configuration.
    pub mode: String,
    /// Settings of the container on it.
    pub endpoints: Option<NetworkingConfig>,
}

/// Reads the flags.
pub fn read(matches: &ArgMatches) -> Outcome<Network> {
    let mut mode = flags::or_empty(matches, "network");
    let mut settings = EndpointSettings {
        aliases: flags::some(matches, "network-alias"),
        links: flags::some(matches, "link"),
        mac_address: flags::or_empty(matches, "mac-address"),
        ..EndpointSettings::default()
    };
    let (mut ipv4, mut ipv6) = (flags::or_empty(matches, "ip"), flags::or_empty(matches, "ip6"));
    // The long form: name=…,alias=…,ip=….
    if mode.contains("name=") {
        let text = std::mem::take(&mut mode);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("name", value)) => mode = value.to_owned(),
                Some(("alias", value)) => settings.aliases.get_or_insert_default().push(value.to_owned()),
                Some(("ip", value)) => ipv4 = value.to_owned(),
                Some(("ip6", value)) => ipv6 = value.to_owned(),
                Some(("mac-address", value)) => settings.mac_address = value.to_owned(),
                _ => return Err(Failure::new(format!("invalid field {field:?} in --network"))),
            }
        }
    }
    if !ipv4.is_empty() || !ipv6.is_empty() {
        settings.ipam_config =
            Some(EndpointIpamConfig { ipv4_address: ipv4, ipv6_address: ipv6, link_local_ips: None });
    }
    if settings == EndpointSettings::default() {
        return Ok(Network { mode, endpoints: None });
    }
    let name = if mode.is_empty() { "default".to_owned() } else { mode.clone() };
    let endpoints = BTreeMap::from([(name, Some(settings))]);
    Ok(Network { mode, endpoints: Some(NetworkingConfig { endpoints_config: Some(endpoints) }) })
}
