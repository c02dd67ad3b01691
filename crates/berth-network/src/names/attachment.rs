//! A container's name server: its sockets, made in the container's namespace.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::table::View;
use super::{ADDRESS, Config, MAX_UPSTREAMS, Upstream};
use crate::{Error, firewall};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// What serves one container.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) owner: String,
    pub(super) config: Config,
    pub(super) view: View,
    /// Whom this container may ask.
    pub(super) upstreams: Rc<[Upstream]>,
    /// Containers with the same number share cached answers.
    pub(super) scope: u32,
    pub(super) namespace: OwnedFd,
    /// Becomes readable when the container ends.
    pub(super) life: Option<OwnedFd>,
    pub(super) sockets: Sockets,
    /// Queries that wait for upstreams.
    pub(super) waiting: usize,
    /// Open connections.
    pub(super) connections: usize,
}

/// The sockets on 127.0.0.11.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Sockets {
    /// Makes the sockets in the calling thread's namespace and leads port 53 to them.
    ///
    /// The ports follow from the owner if they are free: clients that keep a socket open over a restart of the net process are
    /// led to the same port by what conntrack remembers.
    pub(super) fn open(owner: &str) -> io::Result<Sockets> {
        // A container that is not set up yet: the address must be there, or answers would leave with another.
        berth_sys::rtnetlink::loopback_up().map_err(|error| match error.errno() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error),
        })?;
        let port = preferred_port(owner);
        let udp = bound(SocketType::DGRAM, port)?;
        let tcp = bound(SocketType::STREAM, port)?;
        listen(&tcp, BACKLOG)?;
        let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
        firewall::redirect_names(ADDRESS, udp.local_addr()?.port(), tcp.local_addr()?.port()).map_err(
            |error| match error {
                Error::Firewall { source, .. } => source,
                other => io::Error::other(other),
            },
        )?;
        Ok(Sockets { udp, tcp })
    }
}

fn bound(kind: SocketType, port: u16) -> io::Result<OwnedFd> {
    let attempt = |port| -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
        if kind == SocketType::STREAM {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::V4(SocketAddrV4::new(ADDRESS, port)))?;
        Ok(socket)
    };
    attempt(port).or_else(|_| attempt(0))
}

/// A port among those that the kernel gives out by itself, the same for the same owner (FNV-1a).
fn preferred_port(owner: &str) -> u16 {
    let hash =
        owner.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    32768 + (hash % 28232) as u16
}

/// Whom a container with this configuration may ask: never its own name server, and nobody in the host's namespace without a way
/// out (CVE-2024-29018).
pub(super) fn permitted(config: &Config) -> Rc<[Upstream]> {
    let allowed = |upstream: &&Upstream| match upstream.from_host {
        true => config.forward,
        false => upstream.address.ip().to_canonical() != ADDRESS,
    };
    config.upstreams.iter().take(MAX_UPSTREAMS).filter(allowed).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_way_out_asks_nobody_from_the_host() {
        let upstream = |address: &str, from_host| Upstream::new(address.parse().unwrap(), from_host);
        let upstreams =
            vec![upstream("127.0.0.11", true), upstream("10.0.0.1", false), upstream("127.0.0.11", false)];
        let inside = Config { upstreams: upstreams.clone(), ..Config::default() };
        assert_eq!(permitted(&inside)[..], upstreams[1..2]);
        assert_eq!(permitted(&Config { forward: true, ..inside })[..], upstreams[..2]);
    }

    #[test]
    fn the_preferred_port_is_the_owners() {
        assert_eq!(preferred_port("one"), preferred_port("one"));
        assert_ne!(preferred_port("one"), preferred_port("two"));
        for owner in ["", "x", &"f".repeat(64)] {
            assert!((32768..=60999).contains(&preferred_port(owner)));
        }
    }
}
