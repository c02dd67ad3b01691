//! Links that somebody else has made on the host: handed into a container's network namespace, and back again.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

use berth_sys::rtnetlink::netlink_packet_route::link::LinkAttribute;
use berth_sys::rtnetlink::{self, Socket};

use crate::{Endpoint, Error, Host, inside};

/// Moves an endpoint's link into the namespace `netns`, under its name inside and with the endpoint's hardware address, if
/// that has one. An endpoint without a link on the host has none to move.
pub fn take(host: &Host, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.host_link.is_empty() {
        return Ok(());
    }
    let index = rtnetlink::link_index(&endpoint.host_link)?;
    let mut attributes =
        vec![LinkAttribute::NetNsFd(netns.as_raw_fd()), LinkAttribute::IfName(endpoint.name.clone())];
    if endpoint.mac != [0; 6] {
        attributes.push(LinkAttribute::Address(endpoint.mac.to_vec()));
    }
    let describe = format!("move {} into the container as {}", endpoint.host_link, endpoint.name);
    Ok(host.request(vec![rtnetlink::set_link(index, false, attributes, describe)])?)
}

/// Moves it back into the caller's namespace, under the name that it had there. One that is gone is fine.
pub fn give_back(netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.host_link.is_empty() {
        return Ok(());
    }
    let here = File::open("/proc/thread-self/ns/net").map_err(|source| Error::Namespace { source })?;
    inside::within(netns, || {
        let Ok(index) = rtnetlink::link_index(&endpoint.name) else { return Ok(()) };
        let attributes =
            vec![LinkAttribute::NetNsFd(here.as_raw_fd()), LinkAttribute::IfName(endpoint.host_link.clone())];
        let describe = format!("move {} out of the container as {}", endpoint.name, endpoint.host_link);
        Ok(Socket::open()?.request(vec![rtnetlink::set_link(index, false, attributes, describe)])?)
    })
}
