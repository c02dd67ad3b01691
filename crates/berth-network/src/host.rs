//! The host's end: bridges, and a veth pair for each container.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Mutex;

use berth_sys::rtnetlink::netlink_packet_route::RouteNetlinkMessage;
use berth_sys::rtnetlink::netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use berth_sys::rtnetlink::{self, LinkConfig, Request, Socket};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::{Error, PortMapping, sysctl};

/// `NLM_F_CREATE | NLM_F_EXCL` (netlink(7)).
const CREATE: u16 = 0x400 | 0x200;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// A bridge of the host that containers join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Name of the bridge's link.
    pub name: String,
    /// The gateway's addresses with the prefix length of their subnets.
    pub gateways: Vec<IpNet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// What the firewall lets through.
    #[serde(default)]
    pub rules: Rules,
}

/// What the firewall lets through, to and from a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// IPv4 packets that leave the host get the host's address.
    pub masquerade4: bool,
    /// The same of IPv6.
    pub masquerade6: bool,
    /// Containers on the bridge reach each other.
    pub within: bool,
    /// Containers reach what is not on the bridge, and can be reached from there; else only each other.
    pub outward: bool,
    /// How containers are reached from outside by IPv4.
    pub reach4: Reach,
    /// The same by IPv6.
    pub reach6: Reach,
}

/// How containers are reached from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Through published ports of the host, whose packets are translated.
    #[default]
    Translated,
    /// At published ports of their own addresses, and by ICMP.
    Published,
    /// At any port of their own addresses.
    All,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            masquerade4: true,
            masquerade6: true,
            within: true,
            outward: true,
            reach4: Reach::Translated,
            reach6: Reach::Translated,
        }
    }
}

impl Bridge {
    /// The bridge's IPv4 gateway, if it has one.
    pub fn gateway4(&self) -> Option<Ipv4Net> {
        self.gateways.iter().find_map(|g| match g {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        })
    }
}

/// One container's connection to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// ID of the network; empty in records that are older than networks, for the default bridge.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Name of the network; empty as `network` is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network_name: String,
    /// Not all there yet, or not wholly gone: whoever finds it after a crash takes away what there is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// Of several endpoints with a gateway, that with the highest has the default route.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// Kernel parameters of the container's end: paths below `/proc/sys/net`, and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// Name of the host's end, at most 15 bytes, never used twice within minutes: an earlier link of the
    /// same name may still be going away. [`Endpoint::host_link_name`] makes one.
    pub host_link: String,
    /// Name of the container's end, such as `eth0`.
    pub name: String,
    /// Hardware address of the container's end.
    pub mac: [u8; 6],
    /// Addresses of the container's end with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Next hops of the default routes, if this endpoint has them.
    pub gateways: Vec<IpAddr>,
    /// Published ports, with the host's ports settled.
    pub ports: Vec<PortMapping>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Endpoint {
    /// A fresh name for the host's end of a veth pair.
    pub fn host_link_name() -> String {
        let mut bytes = [0u8; 5];
        // Without entropy (never after boot) the name would repeat and the kernel would refuse it: no harm.
        let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!("veth{hex}")
    }

    /// What the container's init sets in its own namespace, with the default routes by way of `gateways`. Hardware
    /// address and MTU are set by [`Host::connect`] when it makes the link. Without an IPv6 address, the link has none of
    /// its own making either, as in Docker.
    pub fn link_config(&self, gateways: Vec<IpAddr>) -> LinkConfig {
        let mut sysctls = Vec::new();
        if !self.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
            sysctls.push((format!("ipv6/conf/{}/disable_ipv6", self.name), "1".to_owned()));
        }
        sysctls.extend(self.sysctls.iter().cloned());
        LinkConfig {
            name: self.name.clone(),
            mac: None,
            addresses: self.addresses.clone(),
            gateways,
            mtu: None,
            sysctls,
        }
    }

    /// The IPv4 address, if there is one.
    pub fn address4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| match a {
            IpNet::V4(v4) => Some(v4.addr()),
            IpNet::V6(_) => None,
        })
    }

    /// The next hop of one family.
    pub fn gateway(&self, v6: bool) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv6() == v6)
    }
}

/// The host's network namespace, through one netlink socket. All calls take well under 2 ms and do not wait
/// for anything but the kernel's answer; callers in async code may call them directly.
pub struct Host {
    socket: Mutex<Socket>,
}

impl Host {
    /// Opens the namespace of the calling process.
    pub fn open() -> Result<Host, Error> {
        Ok(Host { socket: Mutex::new(Socket::open()?) })
    }

    fn request(&self, requests: Vec<Request>) -> Result<(), rtnetlink::Error> {
        // A panic while the lock was held leaves at most unread answers, which sequence numbers tell apart.
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        socket.request(requests)
    }

    /// Makes the bridge as described, or completes one that exists: addresses, state, forwarding.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let made = self.request(vec![new_bridge(bridge)]);
        if let Err(error) = made
            && error.errno() != Some(EEXIST)
        {
            return Err(error.into());
        }
        let index = rtnetlink::link_index(&bridge.name)?;
        if bridge.gateways.iter().any(|gateway| matches!(gateway, IpNet::V6(_))) {
            sysctl::set(&format!("net/ipv6/conf/{}/disable_ipv6", bridge.name), "0")?;
        }
        for gateway in &bridge.gateways {
            let added = self.request(vec![rtnetlink::add_address(index, *gateway, &bridge.name)]);
            if let Err(error) = added
                && error.errno() != Some(EEXIST)
            {
                return Err(error.into());
            }
        }
        let mtu = vec![LinkAttribute::Mtu(bridge.mtu)];
        self.request(vec![rtnetlink::set_link(index, true, mtu, format!("set {} up", bridge.name))])?;
        sysctl::set("net/ipv4/ip_forward", "1")?;
        if bridge.gateways.iter().any(|gateway| matches!(gateway, IpNet::V6(_))) {
            sysctl::set("net/ipv6/conf/all/forwarding", "1")?;
        }
        // Published ports on 127.0.0.1 are translated on output; the raw chain drops what abuses it.
        sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", bridge.name), "1")
    }

    /// Makes a veth pair, one end on the bridge and up, the other named in the namespace `netns`, in a single
    /// request: moving a link between namespaces would wait for an RCU grace period.
    ///
    /// Deleting a veth costs 19 ms: unless its container goes on running ([`Host::remove_link`]), it is left to go with
    /// its namespace.
    pub fn connect(&self, bridge: &Bridge, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        let index = rtnetlink::link_index(&bridge.name)?;
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(endpoint.name.clone()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::Address(endpoint.mac.to_vec()),
            LinkAttribute::Mtu(bridge.mtu),
        ];
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(endpoint.host_link.clone()),
            LinkAttribute::Mtu(bridge.mtu),
            LinkAttribute::Controller(index),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let describe = format!("connect {} to {}", endpoint.host_link, bridge.name);
        let mut requests =
            vec![Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE, describe }];
        let mut port = Vec::new();
        if !endpoint.ports.is_empty() {
            // Where bridges filter, a container that asks for its own published port is translated within the bridge.
            // Only for those that publish, since broadcasts echo too.
            port.push(InfoBridgePort::HairpinMode(true));
        }
        if !bridge.rules.within {
            // The forward hook sees what goes from port to port only where bridges filter.
            port.push(InfoBridgePort::Isolated(true));
        }
        if !port.is_empty() {
            requests.push(set_port(&endpoint.host_link, port));
        }
        Ok(self.request(requests)?)
    }

    /// Removes a link, and with a veth its other end; one that is not there is fine. It takes some 20 ms.
    pub fn remove_link(&self, name: &str) -> Result<(), Error> {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(()) };
        match self.request(vec![rtnetlink::delete_link(index, name)]) {
            Err(error) if error.errno() != Some(ENODEV) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether a link of this name is in the host's namespace.
    pub fn link_exists(&self, name: &str) -> bool {
        rtnetlink::link_index(name).is_ok()
    }
}

/// Sets what a bridge does at one of its ports.
fn set_port(host_link: &str, settings: Vec<InfoBridgePort>) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(host_link.into()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)),
        ]),
    ];
    let describe = format!("set up the bridge's port {host_link}");
    Request { message: RouteNetlinkMessage::NewLink(message), flags: 0, describe }
}

fn new_bridge(bridge: &Bridge) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(bridge.name.clone()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    if let Some(gateway) = bridge.gateways.first() {
        // A fixed address: otherwise the bridge takes the lowest of its ports', and neighbours' caches go stale.
        message.attributes.push(LinkAttribute::Address(crate::ipam::mac_for(gateway.addr()).to_vec()));
    }
    let describe = format!("create bridge {}", bridge.name);
    Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE, describe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_link_names_fit_and_differ() {
        let (one, two) = (Endpoint::host_link_name(), Endpoint::host_link_name());
        assert!(one.len() <= 15 && one.starts_with("veth"), "{one}");
        assert_ne!(one, two);
    }
}
