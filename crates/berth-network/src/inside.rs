//! The container's end of a link while the container runs: what its init does for the links it starts with.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_sys::netns;
use berth_sys::rtnetlink::{self, LinkConfig, Socket};

use crate::Error;

const ESRCH: i32 = 3;

/// Sets a link up that [`Host::connect`](crate::Host::connect) has made in the namespace: parameters, addresses, and the
/// default routes, which replace others. Blocks for some system calls.
pub fn configure(namespace: BorrowedFd<'_>, link: &LinkConfig) -> Result<(), Error> {
    within(namespace, || {
        for (path, value) in &link.sysctls {
            std::fs::write(Path::new("/proc/sys/net").join(path), value).map_err(|source| Error::Sysctl {
                name: format!("net/{path}"),
                value: value.clone(),
                source,
            })?;
        }
        Ok(rtnetlink::configure_another(link)?)
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

fn within(namespace: BorrowedFd<'_>, work: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    let entered = netns::within(namespace, || Ok(work()));
    entered.unwrap_or_else(|source: io::Error| Err(Error::Namespace { source }))
}
