//! Links, addresses and routes over a `NETLINK_ROUTE` socket, synchronously (rtnetlink(7)).
//!
//! It acts on the network namespace in which its socket was opened, spawns nothing and holds no state
//! beyond the socket, so that a container's init can use it between `clone3` and `execve`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, link, route};
use netlink_sys::constants::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

pub use netlink_packet_route;

/// What a bridge has to say of its port (`linux/if_link.h`).
const IFLA_PROTINFO: u16 = 12;
/// `linux/if_bridge.h`.
const BR_STATE_DISABLED: u8 = 0;

/// Everything that a link inside a container needs; the link itself exists already, under this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Name of the link in its namespace, such as `eth0`.
    pub name: String,
    /// Hardware address to set, if it is not the right one already.
    pub mac: Option<[u8; 6]>,
    /// Addresses with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Next hops of the default routes, at most one for each family.
    pub gateways: Vec<IpAddr>,
    /// Further routes by way of this link.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Largest packet in bytes; `None` leaves what the link has.
    pub mtu: Option<u32>,
    /// Kernel parameters to set before anything else: paths below `/proc/sys/net`, and values.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
}

/// A route by way of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop; none if the link itself leads there.
    pub gateway: Option<IpAddr>,
}

/// What went wrong, and with which request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be opened, written or read.
    #[error("rtnetlink socket: {operation}: {source}")]
    Socket {
        /// The system call that failed.
        operation: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("rtnetlink: {request}: {source}")]
    Refused {
        /// The request in words, such as `add address 172.17.0.2/16 to eth0`.
        request: String,
        /// The kernel's errno.
        source: io::Error,
    },
    /// The kernel's answer could not be decoded.
    #[error("rtnetlink: undecodable answer: {0}")]
    Answer(String),
}

impl Error {
    /// The kernel's errno, if it refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. } | Error::Socket { source, .. } => source.raw_os_error(),
            Error::Answer(_) => None,
        }
    }
}

/// A `NETLINK_ROUTE` socket, bound to the namespace in which it was opened.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the caller's network namespace.
    pub fn open() -> Result<Socket, Error> {
        let inner = netlink_sys::Socket::new(NETLINK_ROUTE)
            .map_err(|source| Error::Socket { operation: "socket", source })?;
        Ok(Socket { inner, sequence: 0 })
    }

    /// Sends requests as one batch and waits for every acknowledgement; each comes with its description
    /// for the error. The kernel handles them in order and goes on after a refusal; the first one is returned.
    pub fn request(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut batch = Vec::new();
        let mut names = Vec::with_capacity(requests.len());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut batch, request.message, NLM_F_REQUEST | NLM_F_ACK | request.flags, self.sequence);
            names.push(request.describe);
        }
        self.send(&batch)?;
        let mut outcome = Ok(());
        let mut pending = names.len();
        while pending > 0 {
            for message in self.receive()? {
                let NetlinkPayload::Error(error) = message.payload else { continue };
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                let Some(name) = names.get_mut(index) else { continue };
                pending -= 1;
                if let Some(code) = error.code
                    && outcome.is_ok()
                {
                    let source = io::Error::from_raw_os_error(code.get().abs());
                    outcome = Err(Error::Refused { request: std::mem::take(name), source });
                }
            }
        }
        outcome
    }

    /// Sends a dump request and collects its answers.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut batch = Vec::new();
        append(&mut batch, message, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.send(&batch)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => {
                        let code = error.code.map_or(0, |c| c.get().abs());
                        let source = io::Error::from_raw_os_error(code);
                        return Err(Error::Refused { request: "dump".into(), source });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for one object, and waits for it and the acknowledgement.
    fn get(&mut self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut batch = Vec::new();
        append(&mut batch, message, NLM_F_REQUEST | NLM_F_ACK, self.sequence);
        self.send(&batch)?;
        let mut found = None;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found = Some(inner),
                    NetlinkPayload::Error(error) => {
                        let Some(code) = error.code else { return Ok(found) };
                        let source = io::Error::from_raw_os_error(code.get().abs());
                        return Err(Error::Refused { request: "get".into(), source });
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&self, batch: &[u8]) -> Result<(), Error> {
        self.inner.send(batch, 0).map_err(|source| Error::Socket { operation: "send", source })?;
        Ok(())
    }

    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let (data, _) = loop {
            match self.inner.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|source| Error::Socket { operation: "recv", source })?,
            }
        };
        let mut rest = data.as_slice();
        let mut messages = Vec::new();
        while rest.len() >= 16 {
            let length = NetlinkBuffer::new_checked(&rest).map_err(|e| Error::Answer(e.to_string()))?.length()
                as usize;
            let message =
                NetlinkMessage::deserialize(&rest[..length]).map_err(|e| Error::Answer(e.to_string()))?;
            messages.push(message);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// One change asked of the kernel.
pub struct Request {
    /// The message.
    pub message: RouteNetlinkMessage,
    /// Flags beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub flags: u16,
    /// The change in words, for the error.
    pub describe: String,
}

fn append(batch: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = batch.len();
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut batch[start..]);
}

/// Sets a link's flags, hardware address or MTU.
pub fn set_link(index: u32, up: bool, attributes: Vec<LinkAttribute>, describe: String) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = attributes;
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0, describe }
}

/// Lets nothing more through a port of a bridge, by the bridge's own protocol: a change of the link itself would have the
/// bridge look at its port anew, and let it go on.
pub fn disable_port(index: u32, describe: String) -> Request {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Other(DefaultNla::new(IFLA_PROTINFO, vec![BR_STATE_DISABLED]))];
    Request { message: RouteNetlinkMessage::SetLink(message), flags: 0, describe }
}

/// Adds an address to a link. IPv6 skips duplicate address detection: the engine hands out each address once,
/// and a tentative address could not be used at once.
pub fn add_address(index: u32, address: IpNet, link: &str) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    match address {
        IpNet::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            if v4.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    let describe = format!("add address {address} to {link}");
    Request { message: RouteNetlinkMessage::NewAddress(message), flags: NLM_F_CREATE | NLM_F_EXCL, describe }
}

/// Adds the default route by way of `gateway`; by the link itself, if that is the unspecified address.
pub fn add_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family =
        if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if gateway.is_unspecified() {
        message.header.scope = RouteScope::Link;
    } else {
        message.attributes.push(RouteAttribute::Gateway(route::RouteAddress::from(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    let describe = format!("add default route via {gateway}");
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_EXCL, describe }
}

/// Adds a route by way of a link.
pub fn add_route(index: u32, route: &Route) -> Request {
    let nowhere: IpAddr = match route.destination {
        IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut request = add_default_route(index, route.gateway.unwrap_or(nowhere));
    request.describe = format!("add a route to {}", route.destination);
    if let RouteNetlinkMessage::NewRoute(message) = &mut request.message {
        message.header.destination_prefix_length = route.destination.prefix_len();
        let network = route::RouteAddress::from(route.destination.network());
        message.attributes.push(RouteAttribute::Destination(network));
    }
    request
}

/// Makes `gateway` the next hop of the default route, whatever it was.
pub fn replace_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut request = add_default_route(index, gateway);
    request.flags = NLM_F_CREATE | NLM_F_REPLACE;
    request.describe = format!("set the default route to {gateway}");
    request
}

/// Removes the default route by way of `gateway`.
pub fn delete_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut request = add_default_route(index, gateway);
    request.flags = 0;
    request.describe = format!("remove the default route to {gateway}");
    if let RouteNetlinkMessage::NewRoute(message) = request.message {
        request.message = RouteNetlinkMessage::DelRoute(message);
    }
    request
}

/// Removes a link. It waits until nothing in the kernel uses it any more: some 20 ms.
pub fn delete_link(index: u32, link: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request { message: RouteNetlinkMessage::DelLink(message), flags: 0, describe: format!("remove {link}") }
}

/// Takes an address off a link.
pub fn remove_address(index: u32, address: IpNet, link: &str) -> Request {
    let mut request = add_address(index, address, link);
    request.flags = 0;
    request.describe = format!("remove address {address} from {link}");
    if let RouteNetlinkMessage::NewAddress(message) = request.message {
        request.message = RouteNetlinkMessage::DelAddress(message);
    }
    request
}

/// The addresses of a link in the socket's namespace, in the kernel's order: an IPv4 link's first is its primary one.
pub fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, Error> {
    let found = socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let of_link = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => Some(message),
        _ => None,
    });
    Ok(of_link.filter_map(|message| address_of(&message)).collect())
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let pick = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // Of a point-to-point link, the other attribute is its peer's.
    let local = pick(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        pick(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    IpNet::new(address?, message.header.prefix_len).ok()
}

/// Whether a link of the socket's namespace is a bridge.
pub fn is_bridge(socket: &mut Socket, index: u32) -> Result<bool, Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let Some(RouteNetlinkMessage::NewLink(found)) = socket.get(RouteNetlinkMessage::GetLink(message))? else {
        return Ok(false);
    };
    let is_kind = |info: &link::LinkInfo| matches!(info, link::LinkInfo::Kind(link::InfoKind::Bridge));
    Ok(found.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(is_kind),
        _ => false,
    }))
}

/// What somebody wrote down about a link, if anything.
pub fn alias(socket: &mut Socket, index: u32) -> Result<Option<String>, Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let Some(RouteNetlinkMessage::NewLink(found)) = socket.get(RouteNetlinkMessage::GetLink(message))? else {
        return Ok(None);
    };
    Ok(found.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(text) => Some(text),
        _ => None,
    }))
}

/// The index of a link in the caller's namespace, by name.
pub fn link_index(name: &str) -> Result<u32, Error> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(|e| Error::Socket { operation: "socket", source: e.into() })?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|e| Error::Refused { request: format!("look up link {name}"), source: e.into() })
}

/// Index of the loopback link in every namespace (the kernel creates it first).
const LOOPBACK_INDEX: u32 = 1;

/// Sets the loopback link of the caller's namespace up; the kernel gives it its addresses.
pub fn loopback_up() -> Result<(), Error> {
    Socket::open()?.request(vec![loopback_request()])
}

fn loopback_request() -> Request {
    set_link(LOOPBACK_INDEX, true, Vec::new(), "set lo up".into())
}

/// Sets loopback and the given links up in the caller's namespace: addresses, link state, default routes,
/// in that order, in one batch.
pub fn configure(links: &[LinkConfig]) -> Result<(), Error> {
    let mut requests = vec![loopback_request()];
    for config in links {
        requests.extend(link_requests(config)?);
    }
    Socket::open()?.request(requests)
}

/// The same for one more link of a namespace that is in use, but for its default routes.
pub fn configure_another(config: &LinkConfig) -> Result<(), Error> {
    let requests = link_requests(&LinkConfig { gateways: Vec::new(), ..config.clone() })?;
    Socket::open()?.request(requests)
}

fn link_requests(config: &LinkConfig) -> Result<Vec<Request>, Error> {
    let index = link_index(&config.name)?;
    let mut attributes = Vec::new();
    if let Some(mac) = config.mac {
        attributes.push(LinkAttribute::Address(mac.to_vec()));
    }
    if let Some(mtu) = config.mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    let mut requests: Vec<_> =
        config.addresses.iter().map(|a| add_address(index, *a, &config.name)).collect();
    requests.push(set_link(index, true, attributes, format!("set {} up", config.name)));
    // Next hops may lie where another route leads.
    let (direct, by_hops): (Vec<_>, Vec<_>) = config.routes.iter().partition(|route| route.gateway.is_none());
    requests.extend(direct.into_iter().chain(by_hops).map(|route| add_route(index, route)));
    requests.extend(config.gateways.iter().map(|g| add_default_route(index, *g)));
    Ok(requests)
}

/// All links of the caller's namespace: index and name.
pub fn links(socket: &mut Socket) -> Result<Vec<(u32, String)>, Error> {
    let found = socket.dump(RouteNetlinkMessage::GetLink(link::LinkMessage::default()))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => {
                let name = message.attributes.into_iter().find_map(|a| match a {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })?;
                Some((message.header.index, name))
            }
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_the_loopback_link() {
        let mut socket = Socket::open().unwrap();
        assert!(links(&mut socket).unwrap().contains(&(LOOPBACK_INDEX, "lo".to_string())));
    }

    #[test]
    fn tells_the_addresses_of_a_link() {
        crate::netns::unshare().unwrap();
        loopback_up().unwrap();
        let mut socket = Socket::open().unwrap();
        assert!(!is_bridge(&mut socket, LOOPBACK_INDEX).unwrap());
        let found = addresses(&mut socket, LOOPBACK_INDEX).unwrap();
        assert!(found.contains(&"127.0.0.1/8".parse().unwrap()), "{found:?}");
        socket.request(vec![remove_address(LOOPBACK_INDEX, "127.0.0.1/8".parse().unwrap(), "lo")]).unwrap();
        let left = addresses(&mut socket, LOOPBACK_INDEX).unwrap();
        assert!(!left.iter().any(|address| matches!(address, IpNet::V4(_))), "{left:?}");
    }

    #[test]
    fn a_refusal_names_the_request() {
        let error = Socket::open().unwrap().request(vec![add_address(
            0x7fff_0000,
            "10.0.0.1/8".parse().unwrap(),
            "ghost0",
        )]);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("add address 10.0.0.1/8 to ghost0"), "{text}");
    }

    #[test]
    fn an_unknown_link_is_named() {
        assert!(link_index("no-such-link").unwrap_err().to_string().contains("no-such-link"));
    }
}
