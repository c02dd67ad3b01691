//! Options of the driver `bridge`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::StringMap;
use berth_network::{Reach, Rules};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How containers are reached from outside, by one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayMode {
    /// Through translated ports of the host.
    #[default]
    Nat,
    /// The same, and at any port of their own addresses.
    NatUnprotected,
    /// At published ports of their own addresses.
    Routed,
    /// Not at all: the host itself has no address on the network.
    Isolated,
}

impl GatewayMode {
    fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "nat" => Ok(GatewayMode::Nat),
            "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
            "routed" => Ok(GatewayMode::Routed),
            "isolated" => Ok(GatewayMode::Isolated),
            other => Err(Error::InvalidParameter(format!("unknown gateway mode {other}"))),
        }
    }

    fn reach(self) -> Reach {
        match self {
            GatewayMode::Nat | GatewayMode::Isolated => Reach::Translated,
            GatewayMode::NatUnprotected => Reach::All,
            GatewayMode::Routed => Reach::Published,
        }
    }

    fn translates(self) -> bool {
        matches!(self, GatewayMode::Nat | GatewayMode::NatUnprotected)
    }
}

/// What a user chose of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeOptions {
    /// Name of the link; `None` for one that follows from the network's ID.
    pub name: Option<String>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether containers reach each other.
    pub icc: bool,
    /// Whether packets that leave the host get the host's address.
    pub masquerade: bool,
    /// Where ports published without an address listen.
    pub publish_address: Option<IpAddr>,
    /// Beginning of the links' names inside containers.
    pub prefix: String,
    /// How containers are reached by IPv4.
    pub mode4: GatewayMode,
    /// How containers are reached by IPv6.
    pub mode6: GatewayMode,
    /// The host has no IPv4 address on the bridge.
    pub no_address4: bool,
    /// The host's address that leaving IPv4 packets get, instead of that of the link that they leave by.
    pub source4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub source6: Option<Ipv6Addr>,
    /// Links of the host whose hosts reach published ports at containers' own addresses.
    pub trusted: Vec<String>,
    /// An administrator made the link: it is never made here, nor removed.
    pub foreign: bool,
    /// The link was there before the network, with these addresses: it is not removed either.
    pub found: Option<Vec<IpNet>>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        BridgeOptions {
            name: None,
            mtu: 1500,
            icc: true,
            masquerade: true,
            publish_address: None,
            prefix: "eth".into(),
            mode4: GatewayMode::Nat,
            mode6: GatewayMode::Nat,
            no_address4: false,
            source4: None,
            source6: None,
            trusted: Vec::new(),
            foreign: false,
            found: None,
        }
    }
}

impl BridgeOptions {
    /// Reads Docker's options; what is none of them is kept, and of no effect.
    pub fn parse(options: &StringMap, internal: bool) -> Result<Self, Error> {
        let mut found = BridgeOptions::default();
        for (key, value) in options {
            found.set(key, value)?;
        }
        let isolated = [found.mode4, found.mode6].contains(&GatewayMode::Isolated);
        if isolated && !internal {
            return Err(Error::InvalidParameter(
                "gateway mode 'isolated' can only be used for an internal network".into(),
            ));
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let failed =
            |why: &str| Error::InvalidParameter(format!("failed to parse {key} value: {value} ({why})"));
        let switch = || boolean(value).ok_or_else(|| failed("invalid syntax"));
        match key {
            "com.docker.network.bridge.name" => {
                if !is_link_name(value) {
                    return Err(failed("not a name of a link"));
                }
                self.name = Some(value.to_owned());
            }
            "com.docker.network.driver.mtu" => {
                self.mtu = value.parse().map_err(|_| failed("invalid syntax"))?;
                // Below, IP has no room (RFC 791).
                if !(68..=65_535).contains(&self.mtu) {
                    return Err(Error::InvalidParameter(format!("invalid MTU number: {value}")));
                }
            }
            "com.docker.network.bridge.enable_icc" => self.icc = switch()?,
            "com.docker.network.bridge.enable_ip_masquerade" => self.masquerade = switch()?,
            "com.docker.network.bridge.inhibit_ipv4" => self.no_address4 = switch()?,
            "com.docker.network.bridge.host_binding_ipv4" => {
                let address: std::net::Ipv4Addr = value.parse().map_err(|_| failed("nil ip"))?;
                self.publish_address = Some(address.into());
            }
            "com.docker.network.container_iface_prefix" => {
                // A number follows.
                if !is_link_name(value) || value.len() > 12 {
                    return Err(failed("not the beginning of a link's name"));
                }
                self.prefix = value.to_owned();
            }
            "com.docker.network.bridge.gateway_mode_ipv4" => self.mode4 = GatewayMode::parse(value)?,
            "com.docker.network.bridge.gateway_mode_ipv6" => self.mode6 = GatewayMode::parse(value)?,
            "com.docker.network.bridge.trusted_host_interfaces" => {
                let names = value.split(':').filter(|name| !name.is_empty());
                self.trusted = names.map(str::to_owned).collect();
                if !self.trusted.iter().all(|name| is_link_name(name)) {
                    return Err(failed("not a name of a link"));
                }
            }
            "com.docker.network.host_ipv4" => {
                self.source4 = Some(value.parse().map_err(|_| failed("not an IPv4 address"))?);
            }
            "com.docker.network.host_ipv6" => {
                self.source6 = Some(value.parse().map_err(|_| failed("not an IPv6 address"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The name of the link.
    pub fn link_name(&self, id: &str) -> String {
        self.name.clone().unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(id)))
    }

    /// Whether the host has no address of one family on the network.
    pub fn is_isolated(&self, v6: bool) -> bool {
        match v6 {
            true => self.mode6 == GatewayMode::Isolated,
            false => self.mode4 == GatewayMode::Isolated || self.no_address4,
        }
    }

    /// What the firewall lets through.
    pub fn rules(&self, internal: bool) -> Rules {
        let masquerade = self.masquerade && !internal;
        let reach = |mode: GatewayMode| if internal { Reach::Translated } else { mode.reach() };
        Rules {
            masquerade4: masquerade && self.mode4.translates(),
            masquerade6: masquerade && self.mode6.translates(),
            within: self.icc,
            outward: !internal,
            reach4: reach(self.mode4),
            reach6: reach(self.mode6),
            source4: self.source4,
            source6: self.source6,
        }
    }
}

/// Go's words for true and false.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the kernel takes this for a link's name, and a path below `/proc/sys` can hold it.
pub fn is_link_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    !name.is_empty() && name.len() <= 15 && !matches!(name, "." | "..") && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)], internal: bool) -> Result<BridgeOptions, String> {
        let options = pairs.iter().map(|(key, value)| {
            let prefix = if key.contains('.') { "com.docker.network." } else { "com.docker.network.bridge." };
            (format!("{prefix}{key}"), (*value).to_owned())
        });
        BridgeOptions::parse(&options.collect(), internal).map_err(|error| error.to_string())
    }

    #[test]
    fn dockers_options_are_read() {
        assert_eq!(parse(&[], false).unwrap(), BridgeOptions::default());
        let found = parse(
            &[
                ("name", "br0"),
                ("driver.mtu", "1400"),
                ("enable_icc", "False"),
                ("enable_ip_masquerade", "0"),
                ("host_binding_ipv4", "127.0.0.1"),
                ("gateway_mode_ipv6", "routed"),
                ("something", "else"),
            ],
            false,
        )
        .unwrap();
        assert_eq!((found.link_name("0123456789abcdef").as_str(), found.mtu), ("br0", 1400));
        let rules = found.rules(false);
        assert!(!rules.within && !rules.masquerade4 && rules.reach6 == Reach::Published);
        assert_eq!(BridgeOptions::default().link_name("0123456789abcdef"), "br-0123456789ab");
        assert!(!BridgeOptions::default().rules(true).outward);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (key, value, expected) in [
            ("enable_icc", "maybe", "failed to parse com.docker.network.bridge.enable_icc value: maybe"),
            ("driver.mtu", "67", "invalid MTU number: 67"),
            ("driver.mtu", "-1", "failed to parse"),
            ("name", "a/b", "failed to parse"),
            ("trusted_host_interfaces", "eth0:a b", "failed to parse"),
            ("name", "sixteencharacter", "failed to parse"),
            ("host_binding_ipv4", "x", "failed to parse"),
            ("gateway_mode_ipv4", "open", "unknown gateway mode open"),
            ("gateway_mode_ipv4", "isolated", "gateway mode 'isolated' can only be used for an internal"),
        ] {
            let error = parse(&[(key, value)], false).unwrap_err();
            assert!(error.starts_with(expected), "{key}={value}: {error}");
        }
        assert!(parse(&[("gateway_mode_ipv4", "isolated")], true).unwrap().is_isolated(false));
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_read_without_harm(value in ".{0,20}") {
            for key in ["name", "driver.mtu", "enable_icc", "host_binding_ipv4", "container_iface_prefix"] {
                let _ = parse(&[(key, &value)], false);
            }
        }
    }
}
