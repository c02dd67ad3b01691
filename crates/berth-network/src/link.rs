//! What the endpoints of a network hang on: one enum, with a variant for each kind of driver that makes links.

use std::os::fd::BorrowedFd;

use crate::sublink::Sublinks;
use crate::{Bridge, Endpoint, Error, Host, Rules, handed, inside};

/// The host's side of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A bridge, and a veth pair for each endpoint.
    Bridge(Bridge),
    /// A parent, and a link of it for each endpoint.
    Sublinks(Sublinks),
    /// Links that somebody else makes on the host, one for each endpoint.
    Handed,
}

impl Link {
    /// Makes what the network needs on the host, or completes what is there. The firewall is not part of it.
    pub fn ensure(&self, host: &Host) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => host.ensure_bridge(bridge),
            Link::Sublinks(sublinks) => sublinks.ensure(host),
            Link::Handed => Ok(()),
        }
    }

    /// Takes it away again; what is not there is fine.
    pub fn remove(&self, host: &Host) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => {
                host.remove_continuations(&bridge.name)?;
                match bridge.is_others() {
                    true => host.give_back_bridge(bridge),
                    false => host.remove_bridge(&bridge.name),
                }
            }
            Link::Sublinks(sublinks) => sublinks.remove(host),
            Link::Handed => Ok(()),
        }
    }

    /// Makes an endpoint's link in the network namespace `netns`, under the name and with the hardware address that the
    /// endpoint has, down and without addresses.
    pub fn connect(&self, host: &Host, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => host.connect(bridge, netns, endpoint),
            Link::Sublinks(sublinks) => sublinks.connect(host, netns, endpoint),
            Link::Handed => handed::take(host, netns, endpoint),
        }
    }

    /// Makes room for the next endpoint of so many, if there may soon be none: the name of a link that the firewall has to
    /// know, too.
    pub fn make_room(&self, host: &Host, endpoints: usize) -> Result<Option<String>, Error> {
        match self {
            Link::Bridge(bridge) => host.continue_bridge(bridge, endpoints),
            Link::Sublinks(_) | Link::Handed => Ok(None),
        }
    }

    /// Takes an endpoint's link out of a namespace, if that is still there; one that is not there is fine.
    pub fn disconnect(
        &self,
        host: &Host,
        netns: Option<BorrowedFd<'_>>,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        match (self, netns) {
            (Link::Bridge(_), _) => host.remove_link(&endpoint.host_link),
            (Link::Sublinks(_), Some(netns)) => inside::remove_link(netns, &endpoint.name),
            (Link::Handed, Some(netns)) => handed::give_back(netns, endpoint),
            (Link::Sublinks(_) | Link::Handed, None) => Ok(()),
        }
    }

    /// Whether an endpoint's link does not go by itself soon enough, but has to be removed when its container ends.
    pub fn has_to_be_removed(&self) -> bool {
        matches!(self, Link::Sublinks(_) | Link::Handed)
    }

    /// Whether what one needs on the host is the other's too.
    pub fn shares(&self, other: &Link) -> bool {
        match (self, other) {
            (Link::Sublinks(one), Link::Sublinks(other)) => one.parent == other.parent,
            (Link::Bridge(one), Link::Bridge(other)) => one.name == other.name,
            _ => false,
        }
    }

    /// The firewall's entry: the name of the host's link, and what is let through; none if nothing passes through the
    /// host.
    pub fn firewall(&self) -> Option<(String, Rules)> {
        match self {
            Link::Bridge(bridge) => Some((bridge.name.clone(), bridge.rules)),
            Link::Sublinks(_) | Link::Handed => None,
        }
    }
}
