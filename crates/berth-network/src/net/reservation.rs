//! Bound sockets that keep ports.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt,
};

use crate::{PortMapping, Protocol};

/// A port that no other socket of this namespace can bind while this value lives.
#[derive(Debug)]
pub(super) struct Reservation {
    /// The mapping, with the host's port settled.
    pub(super) mapping: PortMapping,
    _socket: OwnedFd,
}

impl Reservation {
    /// Binds the host's side of `mapping`; port zero takes a free one.
    pub(super) fn bind(mapping: &PortMapping) -> io::Result<Reservation> {
        let family = if mapping.host_address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, protocol) = match mapping.protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
        if mapping.host_address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if mapping.protocol == Protocol::Tcp {
            // Connections of an earlier owner in TIME_WAIT must not keep the port from its successor.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::new(mapping.host_address, mapping.host_port))?;
        if mapping.protocol == Protocol::Tcp {
            // Only a listening socket keeps others with SO_REUSEADDR away. Nobody connects: packets are translated.
            listen(&socket, 1)?;
        }
        let port = match SocketAddr::try_from(getsockname(&socket)?) {
            Ok(address) => address.port(),
            Err(_) => mapping.host_port,
        };
        Ok(Reservation { mapping: PortMapping { host_port: port, ..mapping.clone() }, _socket: socket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(protocol: Protocol, host_port: u16) -> PortMapping {
        let host_address = "127.0.0.1".parse().unwrap();
        PortMapping { protocol, host_address, host_port, container_port: 80 }
    }

    #[test]
    fn keeps_the_port_until_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = Reservation::bind(&loopback(protocol, 0)).unwrap();
            let port = first.mapping.host_port;
            assert_ne!(port, 0);
            let second = Reservation::bind(&loopback(protocol, port)).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse, "{protocol}");
            drop(first);
            Reservation::bind(&loopback(protocol, port)).unwrap();
        }
    }
}
