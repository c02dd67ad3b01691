//! What the endpoints of a network hang on: one enum, with a variant for each kind of driver that makes links.

use std::os::fd::BorrowedFd;

use crate::{Bridge, Endpoint, Error, Host, Rules, firewall};

/// The host's side of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A bridge, and a veth pair for each endpoint.
    Bridge(Bridge),
}

impl Link {
    /// Makes what the network needs on the host, or completes what is there. The firewall is not part of it.
    pub fn ensure(&self, host: &Host) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => host.ensure_bridge(bridge),
        }
    }

    /// Takes it away again; what is not there is fine.
    pub fn remove(&self, host: &Host) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => host.remove_link(&bridge.name),
        }
    }

    /// Makes an endpoint's link in the network namespace `netns`, under the name and with the hardware address that the
    /// endpoint has, down and without addresses.
    pub fn connect(&self, host: &Host, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Link::Bridge(bridge) => host.connect(bridge, netns, endpoint),
        }
    }

    /// Takes an endpoint's link out of a namespace that goes on; one that is not there is fine.
    pub fn disconnect(&self, host: &Host, endpoint: &Endpoint) -> Result<(), Error> {
        match self {
            Link::Bridge(_) => host.remove_link(&endpoint.host_link),
        }
    }

    /// The firewall's entry: the name of the host's link, and what is let through.
    pub fn firewall(&self) -> Option<(String, Rules)> {
        match self {
            Link::Bridge(bridge) => Some((bridge.name.clone(), bridge.rules)),
        }
    }

    /// Lets the firewall know of it.
    pub fn open_firewall(&self) -> Result<(), Error> {
        self.firewall().map_or(Ok(()), |(name, rules)| firewall::add_bridge(&name, rules))
    }

    /// Takes it out of the firewall.
    pub fn close_firewall(&self) -> Result<(), Error> {
        self.firewall().map_or(Ok(()), |(name, rules)| firewall::remove_bridge(&name, rules))
    }
}
