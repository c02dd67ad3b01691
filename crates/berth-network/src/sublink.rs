//! Links of containers that share a parent link of the host: macvlan and ipvlan (ip-link(8)).
//!
//! The host makes such a link in the container's namespace at once, under its final name; nothing of it is left in the
//! host's. Their addresses are the kernel's to keep apart, so they are removed as soon as their container has ended, and
//! not left to go with its namespace, which may take a moment.

use std::os::fd::{AsRawFd, BorrowedFd};

use berth_sys::rtnetlink::netlink_packet_route::RouteNetlinkMessage;
use berth_sys::rtnetlink::netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage, MacVlanMode,
};
use berth_sys::rtnetlink::{self, Request};
use serde::{Deserialize, Serialize};

use crate::host::{CREATE, EEXIST};
use crate::{Endpoint, Error, Host};

/// What a kernel without a kind of links says.
const EOPNOTSUPP: i32 = 95;

/// Links that share a parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sublinks {
    /// Name of the parent.
    pub parent: String,
    /// How the parent is made if it is not there; `None` if it is an administrator's.
    pub made: Option<Parent>,
    /// What the links are.
    pub kind: SublinkKind,
}

/// A parent that is made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// It leads nowhere.
    Dummy,
    /// A VLAN of another link (IEEE 802.1Q).
    Vlan {
        /// The other link.
        of: String,
        /// The VLAN's number, 1 to 4094.
        id: u16,
    },
}

/// What links of a parent are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SublinkKind {
    /// Each has a hardware address of its own.
    Macvlan(MacvlanMode),
    /// All have the parent's hardware address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Whom a macvlan link reaches through its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacvlanMode {
    /// The others of the parent, at once.
    Bridge,
    /// None of the others.
    Private,
    /// The others if the next switch sends their packets back.
    Vepa,
    /// It has the parent alone.
    Passthru,
}

/// Where an ipvlan link's packets are decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanMode {
    /// By neighbour, in the container.
    L2,
    /// By route, on the host.
    L3,
    /// By route, through the host's filters.
    L3s,
}

/// Whom an ipvlan link reaches through its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanFlag {
    /// The others of the parent, at once.
    Bridge,
    /// None of the others.
    Private,
    /// The others if the next switch sends their packets back.
    Vepa,
}

impl SublinkKind {
    /// Whether a link's own hardware address follows from its IP address, if nobody chose it.
    pub fn has_own_address(self) -> bool {
        matches!(self, SublinkKind::Macvlan(mode) if mode != MacvlanMode::Passthru)
    }

    fn info(self) -> Vec<LinkInfo> {
        match self {
            SublinkKind::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
                vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(data)]
            }
            SublinkKind::Ipvlan(mode, flag) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let flag = match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                };
                let data = InfoData::IpVlan(vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flag)]);
                vec![LinkInfo::Kind(InfoKind::IpVlan), LinkInfo::Data(data)]
            }
        }
    }
}

impl Sublinks {
    /// Makes the parent, if it is to be made and is not there.
    pub fn ensure(&self, host: &Host) -> Result<(), Error> {
        let Some(made) = &self.made else { return self.parent_index().map(|_| ()) };
        if host.link_exists(&self.parent) {
            return Ok(());
        }
        let mut message = up(vec![LinkAttribute::IfName(self.parent.clone())]);
        let kinds = match made {
            // Either drops what is sent by it, and few kernels have neither.
            Parent::Dummy => vec![vec![LinkInfo::Kind(InfoKind::Dummy)], vec![LinkInfo::Kind(InfoKind::Ifb)]],
            Parent::Vlan { of, id } => {
                let index = rtnetlink::link_index(of).map_err(|_| Error::NoParent(of.clone()))?;
                message.attributes.push(LinkAttribute::Link(index));
                let vlan = LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(*id)]));
                vec![vec![LinkInfo::Kind(InfoKind::Vlan), vlan]]
            }
        };
        let mut outcome = Ok(());
        for info in kinds {
            let mut message = message.clone();
            message.attributes.push(LinkAttribute::LinkInfo(info));
            outcome = host.request(vec![new_link(message, format!("create {}", self.parent))]);
            match &outcome {
                Err(error) if error.errno() == Some(EOPNOTSUPP) => {}
                Err(error) if error.errno() == Some(EEXIST) => return Ok(()),
                _ => break,
            }
        }
        Ok(outcome?)
    }

    /// Removes the parent, if it was made here. Links of it go too.
    pub fn remove(&self, host: &Host) -> Result<(), Error> {
        match self.made {
            Some(_) => host.remove_link(&self.parent),
            None => Ok(()),
        }
    }

    /// Makes an endpoint's link in the namespace `netns`.
    pub fn connect(&self, host: &Host, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(endpoint.name.clone()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::Link(self.parent_index()?),
        ];
        if endpoint.mac != [0; 6] {
            message.attributes.push(LinkAttribute::Address(endpoint.mac.to_vec()));
        }
        message.attributes.push(LinkAttribute::LinkInfo(self.kind.info()));
        let describe = format!("create {} of {}", endpoint.name, self.parent);
        Ok(host.request(vec![new_link(message, describe)])?)
    }

    fn parent_index(&self) -> Result<u32, Error> {
        rtnetlink::link_index(&self.parent).map_err(|_| Error::NoParent(self.parent.clone()))
    }
}

fn up(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = attributes;
    message
}

fn new_link(message: LinkMessage, describe: String) -> Request {
    Request { message: RouteNetlinkMessage::NewLink(message), flags: CREATE, describe }
}
