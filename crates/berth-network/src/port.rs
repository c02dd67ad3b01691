//! Published ports as values.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol that ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol's number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// The text is no protocol that can be published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid proto: {0}")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(UnknownProtocol(text.into())),
        }
    }
}

/// One published port: what arrives at the host's address and port goes to the container's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address; unspecified for all of the family.
    pub host_address: IpAddr,
    /// The host's port; zero where none of the host's leads to the container's port, which is reached at its own address.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
}

/// A port of a container that is to be reserved on the host: the same port on all addresses, with one socket for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether the IPv6 address may be left out on a host that has no IPv6.
    #[serde(default)]
    pub without_ipv6: bool,
    /// The first of the host's ports that may be taken; zero for any that is free.
    pub first: u16,
    /// The last of them.
    pub last: u16,
    /// The container's port.
    pub container_port: u16,
    /// The container's address to which the net process itself carries what arrives at IPv6 addresses and the firewall
    /// does not translate.
    #[serde(default)]
    pub forward: Option<IpAddr>,
    /// The same of what arrives at IPv4 addresses: while others have emptied the firewall, or where there is none.
    #[serde(default)]
    pub forward4: Option<IpAddr>,
}

impl Wanted {
    /// Exactly this port, such as one that was reserved before.
    pub fn exactly(mapping: &PortMapping, forward: Option<IpAddr>) -> Wanted {
        let (forward, forward4) =
            if mapping.host_address.is_ipv6() { (forward, None) } else { (None, forward) };
        Wanted {
            protocol: mapping.protocol,
            addresses: vec![mapping.host_address],
            without_ipv6: false,
            first: mapping.host_port,
            last: mapping.host_port,
            container_port: mapping.container_port,
            forward,
            forward4,
        }
    }

    /// The mapping of one of the addresses.
    pub fn mapping(&self, host_address: IpAddr, host_port: u16) -> PortMapping {
        PortMapping { protocol: self.protocol, host_address, host_port, container_port: self.container_port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_read_and_print() {
        for (text, protocol) in [("tcp", Protocol::Tcp), ("UDP", Protocol::Udp), ("sctp", Protocol::Sctp)] {
            assert_eq!(text.parse::<Protocol>().unwrap(), protocol);
            assert_eq!(protocol.to_string(), text.to_lowercase());
        }
        assert_eq!("icmp".parse::<Protocol>().unwrap_err().to_string(), "invalid proto: icmp");
    }
}
