//! The container's end of a link while the container runs: what its init does for the links it starts with.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_sys::netns;
use berth_sys::rtnetlink::{self, LinkConfig, Socket};

use crate::Error;

const ESRCH: i32 = 3;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// Sets a link up that [`Host::connect`](crate::Host::connect) has made in the namespace: parameters, addresses, and the
/// default routes. By family, IPv4 first, `replaced` says whether another link of the container's has had those; a route
/// that is none of ours is left, and an error. Blocks for some system calls.
pub fn configure(namespace: BorrowedFd<'_>, link: &LinkConfig, replaced: [bool; 2]) -> Result<(), Error> {
    within(namespace, || {
        for (path, value) in &link.sysctls {
            let file = Path::new("/proc/sys/net").join(path);
            // A link of less than 1280 bytes has no IPv6, and nothing to turn it off with.
            if path.ends_with("/disable_ipv6") && value == "1" && !file.exists() {
                continue;
            }
            std::fs::write(file, value).map_err(|source| Error::Sysctl {
                name: format!("net/{path}"),
                value: value.clone(),
                source,
            })?;
        }
        rtnetlink::configure_another(link)?;
        let index = rtnetlink::link_index(&link.name)?;
        let mut socket = Socket::open()?;
        for gateway in &link.gateways {
            let request = match replaced[usize::from(gateway.is_ipv6())] {
                true => rtnetlink::replace_default_route(index, *gateway),
                false => rtnetlink::add_default_route(index, *gateway),
            };
            match socket.request(vec![request]) {
                Err(error) if error.errno() == Some(EEXIST) => return Err(Error::ForeignRoute),
                outcome => outcome?,
            }
        }
        Ok(())
    })
}

/// Makes the default routes go by these: link and next hop. `without` names families' next hops that are none any more.
pub fn route(
    namespace: BorrowedFd<'_>,
    by: &[(String, IpAddr)],
    without: &[(String, IpAddr)],
) -> Result<(), Error> {
    within(namespace, || {
        let mut socket = Socket::open()?;
        for (link, gateway) in without {
            let Ok(index) = rtnetlink::link_index(link) else { continue };
            match socket.request(vec![rtnetlink::delete_default_route(index, *gateway)]) {
                Err(error) if error.errno() != Some(ESRCH) => return Err(error.into()),
                _ => {}
            }
        }
        for (link, gateway) in by {
            let index = rtnetlink::link_index(link)?;
            socket.request(vec![rtnetlink::replace_default_route(index, *gateway)])?;
        }
        Ok(())
    })
}

/// Removes a link; one that is not there is fine.
pub fn remove_link(namespace: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
    within(namespace, || {
        let Ok(index) = rtnetlink::link_index(name) else { return Ok(()) };
        match Socket::open()?.request(vec![rtnetlink::delete_link(index, name)]) {
            Err(error) if error.errno() != Some(ENODEV) => Err(error.into()),
            _ => Ok(()),
        }
    })
}

pub(crate) fn within(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let entered = netns::within(namespace, || Ok(work()));
    entered.unwrap_or_else(|source: io::Error| Err(Error::Namespace { source }))
}
