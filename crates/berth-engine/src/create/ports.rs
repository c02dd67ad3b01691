//! Exposed and published ports, as Docker writes them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use berth_api::container::{Config, HostConfig};
use berth_api::network::PortBinding;
use berth_network::Protocol;

use crate::Error;

/// A port of a container: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl ContainerPort {
    /// Reads `80/tcp` or `80`.
    pub fn parse(text: &str) -> Result<ContainerPort, Error> {
        let invalid = || Error::InvalidParameter(format!("invalid port specification: \"{text}\""));
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port: u16 = port.parse().map_err(|_| invalid())?;
        let protocol = protocol.parse().map_err(|_| invalid())?;
        if port == 0 { Err(invalid()) } else { Ok(ContainerPort { port, protocol }) }
    }
}

impl std::fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// A port to publish: where, and on which of the host's ports; an empty range leaves the choice to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The host's address; `None` leaves it to the network and the engine.
    pub address: Option<IpAddr>,
    /// The host's ports that may be taken.
    pub host: Option<RangeInclusive<u16>>,
    /// What it leads to.
    pub container: ContainerPort,
}

/// All ports that a container publishes.
pub fn publications(config: &Config, host: &HostConfig) -> Result<Vec<Publication>, Error> {
    let mut found = Vec::new();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let container = ContainerPort::parse(port)?;
        let bindings = bindings.as_deref().unwrap_or_default();
        if bindings.is_empty() {
            found.push(Publication { address: None, host: None, container });
        }
        for binding in bindings {
            found.push(publication(binding, container)?);
        }
    }
    if host.publish_all_ports {
        for port in exposed(config)? {
            if !found.iter().any(|p| p.container == port) {
                found.push(Publication { address: None, host: None, container: port });
            }
        }
    }
    Ok(found)
}

/// The ports that a container exposes, published or not.
pub fn exposed(config: &Config) -> Result<Vec<ContainerPort>, Error> {
    config.exposed_ports.iter().flatten().map(|(port, _)| ContainerPort::parse(port)).collect()
}

fn publication(binding: &PortBinding, container: ContainerPort) -> Result<Publication, Error> {
    let address = match binding.host_ip.as_str() {
        "" => None,
        text => {
            let address = text.parse();
            Some(address.map_err(|_| Error::InvalidParameter(format!("invalid IP address: {text}")))?)
        }
    };
    let invalid =
        || Error::InvalidParameter(format!("invalid port specification: \"{}\"", binding.host_port));
    let host = match binding.host_port.as_str() {
        "" | "0" => None,
        text => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let first: u16 = first.parse().map_err(|_| invalid())?;
            let last: u16 = last.parse().map_err(|_| invalid())?;
            if first == 0 || last < first {
                return Err(invalid());
            }
            Some(first..=last)
        }
    };
    Ok(Publication { address, host, container })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: &str, bindings: Option<Vec<(&str, &str)>>) -> HostConfig {
        let bindings = bindings.map(|list| {
            list.into_iter()
                .map(|(ip, port)| PortBinding { host_ip: ip.into(), host_port: port.into() })
                .collect()
        });
        HostConfig { port_bindings: Some([(port.to_owned(), bindings)].into()), ..Default::default() }
    }

    #[test]
    fn ports_read_and_print() {
        for (text, shown) in [("80", "80/tcp"), ("53/udp", "53/udp"), ("9/SCTP", "9/sctp")] {
            assert_eq!(ContainerPort::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "0", "x", "80/icmp", "65536", "-1", "80/", "1-2"] {
            let text = ContainerPort::parse(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid port specification: \"{bad}\""));
        }
    }

    #[test]
    fn bindings_become_publications() {
        let with = |host: HostConfig| publications(&Config::default(), &host).unwrap();
        let found = with(host("80/tcp", Some(vec![("127.0.0.1", "8080"), ("", "")])));
        assert_eq!(found[0].host, Some(8080..=8080));
        assert_eq!(found[0].address.unwrap().to_string(), "127.0.0.1");
        assert_eq!((found[1].address, found[1].host.clone()), (None, None));
        assert_eq!(with(host("80", Some(vec![("", "7000-7002")])))[0].host, Some(7000..=7002));
        assert_eq!(with(host("80", None)).len(), 1);
    }

    #[test]
    fn malformed_bindings_are_refused() {
        for (ip, port) in [("nonsense", "80"), ("", "99999"), ("", "8-7"), ("", "a"), ("", "0-5")] {
            assert!(publications(&Config::default(), &host("80", Some(vec![(ip, port)]))).is_err());
        }
    }

    #[test]
    fn publish_all_takes_what_is_exposed_and_not_yet_published() {
        let config = Config {
            exposed_ports: Some(
                [("80/tcp", ()), ("81/tcp", ())].map(|(p, ())| (p.to_owned(), berth_api::Empty {})).into(),
            ),
            ..Default::default()
        };
        let mut host = host("80/tcp", Some(vec![("", "8080")]));
        host.publish_all_ports = true;
        let found = publications(&config, &host).unwrap();
        assert_eq!(found.iter().map(|p| p.container.port).collect::<Vec<_>>(), [80, 81]);
    }
}
