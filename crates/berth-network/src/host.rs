//! The host's end: bridges, and a veth pair for each container.

use std::collections::BTreeMap;
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Mutex;

use berth_sys::rtnetlink::netlink_packet_route::RouteNetlinkMessage;
use berth_sys::rtnetlink::netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use berth_sys::rtnetlink::{self, LinkConfig, Request, Route, Socket};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::{Error, PortMapping, sysctl};

/// `NLM_F_CREATE | NLM_F_EXCL` (netlink(7)).
pub(crate) const CREATE: u16 = 0x400 | 0x200;
pub(crate) const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
/// The link is no bridge's port any more.
const EOPNOTSUPP: i32 = 95;
/// The group of links that bridges made here are in: by it, engines in one network namespace know each other's.
pub(crate) const LINK_GROUP: u32 = 0xbe47;
/// As in dockerd, tests name here a bridge that is not to be had.
const TEST_BRIDGE_ERROR: &str = "DOCKER_TEST_BRIDGE_INIT_ERROR";
/// What the kernel takes for a link's alias, in bytes.
const LONGEST_ALIAS: usize = 255;
/// Links whose packets are smaller have no IPv6 (RFC 8200).
const IPV6_LEAST: u32 = 1280;

/// A bridge of the host that containers join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Name of the bridge's link.
    pub name: String,
    /// The gateway's addresses with the prefix length of their subnets.
    pub gateways: Vec<IpNet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// An administrator made it: it is never made here.
    #[serde(default)]
    pub foreign: bool,
    /// It was there before its network, with these addresses: it stays, and keeps them, when the network goes.
    #[serde(default)]
    pub found: Option<Vec<IpNet>>,
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
    /// The host's address that leaving IPv4 packets get; `None` for that of the link that they leave by.
    pub source4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub source6: Option<Ipv6Addr>,
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
            source4: None,
            source6: None,
        }
    }
}

impl Bridge {
    /// Whether it is an administrator's, or another engine's: nothing that it has is taken away.
    pub fn is_others(&self) -> bool {
        self.foreign || self.found.is_some()
    }

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
    /// Further routes by way of this endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
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
            routes: self.routes.clone(),
            mtu: None,
            sysctls,
        }
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
    /// What bridges that are made say of their owner.
    owner: String,
    /// By bridge, which of those that continue it was joined last; 0 is the bridge itself, as for all that are not here.
    joined: Mutex<BTreeMap<String, usize>>,
}

impl Host {
    /// Opens the namespace of the calling process.
    pub fn open() -> Result<Host, Error> {
        Ok(Host { socket: Mutex::new(Socket::open()?), owner: String::new(), joined: Mutex::default() })
    }

    /// The same for an engine: `owner` is some text that is the engine's own and stays the same, and written on its bridges.
    pub fn open_for(owner: &str) -> Result<Host, Error> {
        let mut end = owner.len().min(LONGEST_ALIAS);
        while !owner.is_char_boundary(end) {
            end -= 1;
        }
        Ok(Host { owner: owner[..end].to_owned(), ..Host::open()? })
    }

    /// Whether a link is a bridge that another engine has made.
    pub fn is_anothers(&self, name: &str) -> Result<bool, Error> {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(false) };
        let alias = self.alias(index)?;
        Ok(alias.is_some_and(|alias| !alias.is_empty() && alias != self.owner && crate::is_there(&alias)))
    }

    /// The addresses of a bridge of this name that is not this engine's own; `None` if there is none.
    ///
    /// # Errors
    /// The name is that of a link that is no bridge.
    pub fn foreign_bridge(&self, name: &str) -> Result<Option<Vec<IpNet>>, Error> {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(None) };
        if !self.is_bridge(index)? {
            return Err(Error::NotABridge(name.to_owned()));
        }
        if !self.owner.is_empty() && self.alias(index)?.as_ref() == Some(&self.owner) {
            // Left behind by a network of before: whoever makes one of that name has it.
            return Ok(None);
        }
        self.addresses_of(index).map(Some)
    }

    pub(crate) fn request(&self, requests: Vec<Request>) -> Result<(), rtnetlink::Error> {
        // A panic while the lock was held leaves at most unread answers, which sequence numbers tell apart.
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        socket.request(requests)
    }

    /// Makes the bridge as described, or completes one that exists: addresses, state, forwarding.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        if bridge.foreign && !self.link_exists(&bridge.name) {
            return Err(Error::NoBridge(bridge.name.clone()));
        }
        let made = self.request(vec![new_bridge(bridge)]);
        if let Err(error) = made
            && error.errno() != Some(EEXIST)
        {
            return Err(error.into());
        }
        let index = rtnetlink::link_index(&bridge.name)?;
        if !self.is_bridge(index)? {
            return Err(Error::NotABridge(bridge.name.clone()));
        }
        if bridge.gateways.iter().any(|gateway| matches!(gateway, IpNet::V6(_))) {
            sysctl::set(&format!("net/ipv6/conf/{}/disable_ipv6", bridge.name), "0")?;
        }
        if bridge.gateways.is_empty() && !bridge.is_others() && bridge.mtu >= IPV6_LEAST {
            // The host is not on it, by the kernel's own address neither.
            sysctl::set(&format!("net/ipv6/conf/{}/disable_ipv6", bridge.name), "1")?;
        }
        if !bridge.is_others() {
            self.clear_addresses(bridge, index)?;
        }
        for gateway in &bridge.gateways {
            let added = self.request(vec![rtnetlink::add_address(index, *gateway, &bridge.name)]);
            if let Err(error) = added
                && error.errno() != Some(EEXIST)
            {
                return Err(error.into());
            }
        }
        let mut settings = Vec::new();
        if !bridge.is_others() {
            settings.extend([LinkAttribute::Mtu(bridge.mtu), LinkAttribute::Group(LINK_GROUP)]);
            if !self.owner.is_empty() {
                settings.push(LinkAttribute::IfAlias(self.owner.clone()));
            }
        }
        self.request(vec![rtnetlink::set_link(index, true, settings, format!("set {} up", bridge.name))])?;
        // Published ports on 127.0.0.1 are translated on output; the raw chain drops what abuses it.
        sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", bridge.name), "1")?;
        match env::var(TEST_BRIDGE_ERROR) {
            Ok(name) if name == bridge.name => Err(Error::ToldToFail { variable: TEST_BRIDGE_ERROR, name }),
            _ => Ok(()),
        }
    }

    /// Takes addresses off the bridge that are another subnet's: its own from before. As in Docker, one of IPv4 at most,
    /// and of IPv6 all but those that the kernel or an administrator needs.
    fn clear_addresses(&self, bridge: &Bridge, index: u32) -> Result<(), Error> {
        let found = self.addresses_of(index)?;
        let same = |one: &IpNet, other: &IpNet| {
            one.addr() == other.addr() && (one == other || other.addr().is_ipv6())
        };
        for wanted in &bridge.gateways {
            let v6 = matches!(wanted, IpNet::V6(_));
            let mut stale: Vec<&IpNet> = found
                .iter()
                .filter(|net| matches!(net, IpNet::V6(_)) == v6 && !same(net, wanted) && !is_kernels(net))
                .collect();
            if !v6 {
                let kept = found.contains(wanted);
                // Of several, that in the wanted subnet, or the first.
                stale.sort_by_key(|net| !wanted.contains(&net.addr()));
                stale.truncate(usize::from(!kept));
            }
            for net in stale {
                self.request(vec![rtnetlink::remove_address(index, *net, &bridge.name)])?;
            }
        }
        Ok(())
    }

    /// Takes the gateways' addresses off a bridge that stays, but for those that it had before; what is not there is fine.
    pub(crate) fn give_back_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        let Ok(index) = rtnetlink::link_index(&bridge.name) else { return Ok(()) };
        let found = self.addresses_of(index)?;
        let before = bridge.found.as_deref().unwrap_or_default();
        let gone = bridge.gateways.iter().filter(|net| found.contains(net) && !before.contains(net));
        for net in gone {
            self.request(vec![rtnetlink::remove_address(index, *net, &bridge.name)])?;
        }
        Ok(())
    }

    fn alias(&self, index: u32) -> Result<Option<String>, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(rtnetlink::alias(&mut socket, index)?)
    }

    fn is_bridge(&self, index: u32) -> Result<bool, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(rtnetlink::is_bridge(&mut socket, index)?)
    }

    fn addresses_of(&self, index: u32) -> Result<Vec<IpNet>, Error> {
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(rtnetlink::addresses(&mut socket, index)?)
    }

    /// The addresses of a link, its primary one first; none if there is no such link.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpNet>, Error> {
        match rtnetlink::link_index(name) {
            Ok(index) => self.addresses_of(index),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Makes the host forward packets of one family.
    pub fn forward(&self, v6: bool) -> Result<(), Error> {
        FORWARD[usize::from(v6)].iter().try_for_each(|name| sysctl::set(name, "1"))
    }

    /// Makes a veth pair, one end on the bridge and up, the other named in the namespace `netns`, in a single
    /// request: moving a link between namespaces would wait for an RCU grace period.
    ///
    /// Deleting a veth costs 19 ms: unless its container goes on running ([`Host::remove_link`]), it is left to go with
    /// its namespace.
    pub fn connect(&self, bridge: &Bridge, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        self.connect_somewhere(bridge, netns, endpoint)
    }

    pub(crate) fn joined(&self, bridge: &str) -> usize {
        let joined = self.joined.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        joined.get(bridge).copied().unwrap_or_default()
    }

    pub(crate) fn set_joined(&self, bridge: &str, index: usize) {
        let mut joined = self.joined.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match index {
            0 => drop(joined.remove(bridge)),
            _ => drop(joined.insert(bridge.to_owned(), index)),
        }
    }

    /// The same with the link called `on`: the bridge, or one that continues it.
    pub(crate) fn connect_to(
        &self,
        bridge: &Bridge,
        on: &str,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let index = rtnetlink::link_index(on)?;
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

    /// Makes a port of a bridge meet only ports that are not isolated, or all again; one that is not there is fine.
    pub fn isolate(&self, host_link: &str, isolated: bool) -> Result<(), Error> {
        self.change_port(host_link, vec![InfoBridgePort::Isolated(isolated)])
    }

    /// Makes a port of a bridge send packets back to where they come from, or not: for a container that publishes ports, and
    /// reaches itself by them. One that is not there is fine.
    pub fn set_hairpin(&self, host_link: &str, on: bool) -> Result<(), Error> {
        self.change_port(host_link, vec![InfoBridgePort::HairpinMode(on)])
    }

    /// Lets nothing more through a port of a bridge, whose address is another's from now on while its container's namespace
    /// still goes away; one that is not there is fine. Unlike a removal, it waits for nobody.
    pub fn silence(&self, host_link: &str) -> Result<(), Error> {
        let Ok(index) = rtnetlink::link_index(host_link) else { return Ok(()) };
        self.change_port(host_link, vec![InfoBridgePort::Flush])?;
        unless_gone(self.request(vec![rtnetlink::disable_port(index, format!("silence {host_link}"))]))
    }

    fn change_port(&self, host_link: &str, settings: Vec<InfoBridgePort>) -> Result<(), Error> {
        unless_gone(self.request(vec![set_port(host_link, settings)]))
    }

    /// Removes a link, and with a veth its other end; one that is not there is fine. It takes some 20 ms.
    pub fn remove_link(&self, name: &str) -> Result<(), Error> {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(()) };
        match self.request(vec![rtnetlink::delete_link(index, name)]) {
            Err(error) if error.errno() != Some(ENODEV) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes a bridge that was made here. What has its name and is no bridge, or says that it is another's, stays.
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(()) };
        match self.is_bridge(index)? && !self.is_anothers(name)? {
            true => self.remove_link(name),
            false => Ok(()),
        }
    }

    /// Whether a link of this name is in the host's namespace.
    pub fn link_exists(&self, name: &str) -> bool {
        rtnetlink::link_index(name).is_ok()
    }
}

/// A port that is not there any more, or no bridge's, needs no change.
fn unless_gone(outcome: Result<(), rtnetlink::Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if !matches!(error.errno(), Some(ENODEV | EOPNOTSUPP)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The kernel's parameters of forwarding, by family.
const FORWARD: [&[&str]; 2] =
    [&["net/ipv4/ip_forward"], &["net/ipv6/conf/default/forwarding", "net/ipv6/conf/all/forwarding"]];

/// Whether the calling process's namespace forwards packets of one family.
pub fn forwards(v6: bool) -> Result<bool, Error> {
    let mut on = true;
    for name in FORWARD[usize::from(v6)] {
        on &= sysctl::get(name)? == "1";
    }
    Ok(on)
}

/// Whether an address is the kernel's own making, or nobody's in particular.
fn is_kernels(net: &IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.addr().segments()[..4] == [0xfe80, 0, 0, 0] || v6.addr().is_multicast(),
    }
}

/// Sets what a bridge does at one of its ports.
pub(crate) fn set_port(host_link: &str, settings: Vec<InfoBridgePort>) -> Request {
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
        message.attributes.push(LinkAttribute::Address(crate::ipam::mac_for(*gateway).to_vec()));
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
