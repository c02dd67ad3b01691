//! Bridges that continue one that is full: the kernel gives a bridge 1,023 ports.
//!
//! Each is joined to the one before it by a veth pair, and the last has room, always: nobody could join another to one
//! that is full. Only the first is a network's own, with the host's addresses; users see no other. Where containers do not
//! reach each other, the trunk's lower end is an isolated port like theirs, and what comes from above has passed the first.

use std::os::fd::BorrowedFd;

use berth_sys::rtnetlink::netlink_packet_route::RouteNetlinkMessage;
use berth_sys::rtnetlink::netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use berth_sys::rtnetlink::{self, Request};

use crate::host::{CREATE, EEXIST, set_port};
use crate::{Bridge, Endpoint, Error, Host, Rules, sysctl};

/// No port is left (`EXFULL`).
const FULL: i32 = 54;
/// From so many endpoints on, a network has a bridge in reserve: before its first is full, whatever else has joined that.
const FROM: usize = 512;
/// The beginning of the names of trunks' ends above: what comes from there, or goes there, the firewall lets through.
pub(crate) const ABOVE: &str = "berthup";

/// The name of the so-manieth bridge that continues another.
fn next_name(bridge: &str, index: usize) -> String {
    format!("bx{:08x}-{index}", checksum(bridge))
}

/// The ends of the trunk between a bridge that continues another and the one before it: on that, and on itself.
fn trunk_names(bridge: &str, index: usize) -> [String; 2] {
    let of_both = checksum(&next_name(bridge, index));
    [format!("berthdn{of_both:08x}"), format!("{ABOVE}{of_both:08x}")]
}

/// FNV-1a: names that differ in few bytes.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What the firewall lets through of a bridge that continues another: all, since bridging is all that it does.
pub const RULES: Rules = Rules {
    masquerade4: false,
    masquerade6: false,
    within: true,
    outward: true,
    reach4: crate::Reach::Translated,
    reach6: crate::Reach::Translated,
    source4: None,
    source6: None,
};

impl Host {
    /// The names of the bridges that continue one, in order.
    pub fn continuations(&self, bridge: &str) -> Vec<String> {
        let names = (1..).map(|index| next_name(bridge, index));
        names.take_while(|name| self.link_exists(name)).collect()
    }

    /// Makes a veth pair for an endpoint with its end on the bridge, or on one that continues it.
    pub(crate) fn connect_somewhere(
        &self,
        bridge: &Bridge,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let last = self.joined(&bridge.name);
        match self.connect_at(bridge, last, netns, endpoint) {
            Err(Error::Route(error)) if error.errno() == Some(FULL) => {}
            outcome => return outcome,
        }
        // The others in turn: some may have been left meanwhile.
        let count = self.continuations(&bridge.name).len() + 1;
        for index in (last + 1..count).chain(0..last) {
            match self.connect_at(bridge, index, netns, endpoint) {
                Err(Error::Route(error)) if error.errno() == Some(FULL) => {}
                outcome => {
                    self.set_joined(&bridge.name, index);
                    return outcome;
                }
            }
        }
        Err(Error::BridgeFull(bridge.name.clone()))
    }

    fn connect_at(
        &self,
        bridge: &Bridge,
        index: usize,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        match index {
            0 => self.connect_to(bridge, &bridge.name, netns, endpoint),
            _ => self.connect_to(bridge, &next_name(&bridge.name, index), netns, endpoint),
        }
    }

    /// Makes a bridge in reserve if a network with so many endpoints has none. Its name comes back.
    pub fn continue_bridge(&self, bridge: &Bridge, endpoints: usize) -> Result<Option<String>, Error> {
        if endpoints < FROM {
            return Ok(None);
        }
        let last = self.joined(&bridge.name);
        let name = next_name(&bridge.name, last + 1);
        if self.link_exists(&name) {
            return Ok(None);
        }
        let before = if last == 0 { bridge.name.clone() } else { next_name(&bridge.name, last) };
        self.add_continuation(bridge, &before, last + 1)?;
        Ok(Some(name))
    }

    fn add_continuation(&self, bridge: &Bridge, before: &str, index: usize) -> Result<(), Error> {
        let name = next_name(&bridge.name, index);
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        let describe = format!("create bridge {name}");
        let made = Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE, describe };
        self.unless_there(vec![made])?;
        // The host is not on it.
        sysctl::set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        let new = rtnetlink::link_index(&name)?;
        let mtu = vec![LinkAttribute::Mtu(bridge.mtu)];
        self.request(vec![rtnetlink::set_link(new, true, mtu, format!("set {name} up"))])?;
        let [below, above] = trunk_names(&bridge.name, index);
        let end = |name: &str, on: u32| {
            let mut message = LinkMessage::default();
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            message.attributes = vec![
                LinkAttribute::IfName(name.into()),
                LinkAttribute::Mtu(bridge.mtu),
                LinkAttribute::Controller(on),
            ];
            message
        };
        let mut message = end(&below, rtnetlink::link_index(before)?);
        let mut peer = end(&above, new);
        // The kernel takes no master for the other end while it makes a pair.
        peer.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::Controller(_)));
        // Nor can it be up before there are two.
        (peer.header.flags, peer.header.change_mask) = (LinkFlags::empty(), LinkFlags::empty());
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let describe = format!("join {name} to {before}");
        let trunk = Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE, describe };
        self.unless_there(vec![trunk])?;
        if !bridge.rules.within {
            self.request(vec![set_port(&below, vec![InfoBridgePort::Isolated(true)])])?;
        }
        let index = rtnetlink::link_index(&above)?;
        let on = vec![LinkAttribute::Controller(new)];
        Ok(self.request(vec![rtnetlink::set_link(index, true, on, format!("put {above} on {name}"))])?)
    }

    fn unless_there(&self, requests: Vec<Request>) -> Result<(), Error> {
        match self.request(requests) {
            Err(error) if error.errno() != Some(EEXIST) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes the bridges that continue one, the last first.
    pub(crate) fn remove_continuations(&self, bridge: &str) -> Result<(), Error> {
        for (index, name) in (1..).zip(self.continuations(bridge)).collect::<Vec<_>>().into_iter().rev() {
            self.remove_link(&trunk_names(bridge, index)[0])?;
            self.remove_link(&name)?;
        }
        self.set_joined(bridge, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let mut all: Vec<String> = Vec::new();
        for bridge in ["docker0", "berth0", "br-0123456789ab", "br-0123456789ac"] {
            for index in [1, 2, 99] {
                all.push(next_name(bridge, index));
                all.extend(trunk_names(bridge, index));
            }
        }
        assert!(all.iter().all(|name| name.len() <= 15), "{all:?}");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
