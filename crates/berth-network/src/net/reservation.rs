//! Bound sockets that keep ports.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt,
};

use super::forward::{Forward, Forwarder};
use crate::{PortMapping, Protocol, Wanted};

/// How often a free port is looked for that is free on all addresses.
const ATTEMPTS: usize = 50;
/// Connections that wait until the forwarder takes them.
const BACKLOG: i32 = 128;

/// Reserved ports by container.
pub(super) type Held = BTreeMap<String, Vec<Reservation>>;

/// Why a port was not reserved.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is another container's.
    Taken(PortMapping),
    /// The kernel's error.
    Failed(PortMapping, i32),
}

/// A port that no other socket of this namespace can bind while this value lives.
#[derive(Debug)]
pub(super) struct Reservation {
    /// The mapping, with the host's port settled.
    pub(super) mapping: PortMapping,
    /// None for a protocol that the kernel does not have.
    socket: Option<OwnedFd>,
    forward: Option<Forward>,
}

impl Reservation {
    /// Binds the host's side of `mapping`; port zero takes a free one.
    fn bind(mapping: &PortMapping) -> io::Result<Reservation> {
        let family = if mapping.host_address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, protocol) = match mapping.protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol));
        let socket = match socket {
            Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if mapping.protocol == Protocol::Sctp => {
                return without_protocol(mapping);
            }
            socket => socket?,
        };
        if mapping.host_address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if mapping.protocol == Protocol::Tcp {
            // Connections of an earlier owner in TIME_WAIT must not keep the port from its successor.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::new(mapping.host_address, mapping.host_port))?;
        if mapping.protocol != Protocol::Udp {
            // Only a listening socket keeps others with SO_REUSEADDR away. What the firewall translates never connects.
            listen(&socket, BACKLOG)?;
        }
        let port = match SocketAddr::try_from(getsockname(&socket)?) {
            Ok(address) => address.port(),
            Err(_) => mapping.host_port,
        };
        let mapping = PortMapping { host_port: port, ..mapping.clone() };
        Ok(Reservation { mapping, socket: Some(socket), forward: None })
    }

    /// Whether what arrives here goes to `target`, or nowhere.
    fn leads_to(&self, target: Option<IpAddr>) -> bool {
        self.forward.as_ref().map(Forward::target) == target
    }
}

/// No program of the host has ports of a protocol that the kernel lacks; other containers may.
fn without_protocol(mapping: &PortMapping) -> io::Result<Reservation> {
    let mut mapping = mapping.clone();
    if mapping.host_port == 0 {
        // A number as good as any: one that is free in another protocol.
        let free = Reservation::bind(&PortMapping { protocol: Protocol::Udp, ..mapping.clone() })?;
        mapping.host_port = free.mapping.host_port;
    }
    Ok(Reservation { mapping, socket: None, forward: None })
}

/// Lets `owner` hold what is wanted and nothing else, or, after an error, what it held before.
pub(super) fn reserve(
    owner: &str,
    wanted: &[Wanted],
    held: &mut Held,
    forwarder: &mut Forwarder,
) -> Result<Vec<PortMapping>, Refusal> {
    let mut before = held.remove(owner).unwrap_or_default();
    let mut settled = Vec::new();
    // What stays is taken out first: it must not be given away to what is new.
    let mut kept = Vec::new();
    for one in wanted.iter().filter(|one| one.first != 0 && one.first == one.last) {
        for address in &one.addresses {
            let mapping = one.mapping(*address, one.first);
            if let Some(index) = before.iter().position(|old| old.mapping == mapping) {
                kept.push(before.swap_remove(index));
            }
        }
    }
    let outcome = wanted.iter().try_for_each(|one| {
        let missing = |address: &&IpAddr| {
            one.first == 0 || !kept.iter().any(|old| old.mapping == one.mapping(**address, one.first))
        };
        let addresses: Vec<IpAddr> = one.addresses.iter().filter(missing).copied().collect();
        let mut fresh = place(one, &addresses, held.values().flatten().chain(&kept).chain(&settled))?;
        settled.append(&mut fresh);
        Ok(())
    });
    if let Err(refusal) = outcome {
        before.append(&mut kept);
        if !before.is_empty() {
            held.insert(owner.to_owned(), before);
        }
        return Err(refusal);
    }
    drop(before);
    kept.append(&mut settled);
    for one in wanted {
        connect(one, &mut kept, forwarder);
    }
    let order = |one: &Reservation| {
        let index = wanted.iter().position(|wanted| is_of(one, wanted));
        (index, one.mapping.host_address)
    };
    kept.sort_by_key(order);
    let mappings = kept.iter().map(|one| one.mapping.clone()).collect();
    if !kept.is_empty() {
        held.insert(owner.to_owned(), kept);
    }
    Ok(mappings)
}

fn is_of(reservation: &Reservation, wanted: &Wanted) -> bool {
    let mapping = &reservation.mapping;
    let port = wanted.first == 0 || (wanted.first..=wanted.last).contains(&mapping.host_port);
    port && mapping.protocol == wanted.protocol
        && mapping.container_port == wanted.container_port
        && wanted.addresses.contains(&mapping.host_address)
}

/// Lets the forwarder carry what arrives.
fn connect(wanted: &Wanted, all: &mut [Reservation], forwarder: &mut Forwarder) {
    for one in all.iter_mut().filter(|one| is_of(one, wanted)) {
        let target = match one.mapping.host_address {
            IpAddr::V6(_) => wanted.forward,
            IpAddr::V4(_) => wanted.forward4,
        };
        if one.leads_to(target) {
            continue;
        }
        one.forward = None;
        let (Some(target), Some(socket)) = (target, &one.socket) else { continue };
        // Without a forwarder the port is reserved, and what is translated arrives.
        let target = SocketAddr::new(target, wanted.container_port);
        let v6 = one.mapping.host_address.is_ipv6();
        one.forward = forwarder.add(socket, v6, wanted.protocol, target).ok();
    }
}

/// Binds one port on all addresses: the first of the range that is free on all.
fn place<'a>(
    wanted: &Wanted,
    addresses: &[IpAddr],
    others: impl Iterator<Item = &'a Reservation> + Clone,
) -> Result<Vec<Reservation>, Refusal> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let any = wanted.first == 0;
    let ports = if any { 1..=u16::try_from(ATTEMPTS).unwrap_or(1) } else { wanted.first..=wanted.last };
    let mut last = None;
    for port in ports {
        match place_at(wanted, addresses, if any { 0 } else { port }, others.clone()) {
            Ok(found) => return Ok(found),
            Err(refusal @ (Refusal::Taken(_) | Refusal::Failed(_, EADDRINUSE))) => last = Some(refusal),
            Err(other) => return Err(other),
        }
    }
    // An empty range was refused before it came here.
    Err(last.unwrap_or_else(|| Refusal::Failed(wanted.mapping(addresses[0], wanted.first), EADDRINUSE)))
}

const EADDRINUSE: i32 = 98;

fn place_at<'a>(
    wanted: &Wanted,
    addresses: &[IpAddr],
    mut port: u16,
    others: impl Iterator<Item = &'a Reservation> + Clone,
) -> Result<Vec<Reservation>, Refusal> {
    let mut found: Vec<Reservation> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mapping = wanted.mapping(*address, port);
        let taken = |other: &Reservation| meets(&other.mapping, &mapping);
        if others.clone().any(taken) || found.iter().any(taken) {
            return Err(Refusal::Taken(mapping));
        }
        match Reservation::bind(&mapping) {
            Ok(reservation) => {
                port = reservation.mapping.host_port;
                found.push(reservation);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                let no_ipv6 =
                    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|e| e.raw_os_error() == errno);
                if !(wanted.without_ipv6 && address.is_ipv6() && no_ipv6) {
                    return Err(Refusal::Failed(mapping, errno));
                }
            }
        }
    }
    Ok(found)
}

/// Whether both want the same packets.
fn meets(one: &PortMapping, other: &PortMapping) -> bool {
    let (a, b) = (one.host_address, other.host_address);
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && a.is_ipv4() == b.is_ipv4()
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(protocol: Protocol, first: u16, last: u16) -> Wanted {
        Wanted {
            protocol,
            addresses: vec!["127.0.0.1".parse().unwrap()],
            without_ipv6: false,
            first,
            last,
            container_port: 80,
            forward: None,
            forward4: None,
        }
    }

    fn ask(held: &mut Held, owner: &str, wanted: &[Wanted]) -> Result<Vec<PortMapping>, Refusal> {
        reserve(owner, wanted, held, &mut Forwarder::default())
    }

    #[test]
    fn keeps_the_port_until_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mut held = Held::new();
            let port = ask(&mut held, "a", &[loopback(protocol, 0, 0)]).unwrap()[0].host_port;
            assert_ne!(port, 0);
            let again = [loopback(protocol, port, port)];
            assert!(matches!(ask(&mut held, "b", &again), Err(Refusal::Taken(_))), "{protocol}");
            if protocol != Protocol::Sctp {
                let elsewhere = ask(&mut Held::new(), "b", &again);
                assert!(matches!(elsewhere, Err(Refusal::Failed(_, EADDRINUSE))), "{protocol}");
            }
            held.clear();
            ask(&mut held, "b", &again).unwrap();
        }
    }

    #[test]
    fn what_is_wanted_again_stays_and_the_rest_goes() {
        let mut held = Held::new();
        let first =
            ask(&mut held, "a", &[loopback(Protocol::Tcp, 0, 0), loopback(Protocol::Udp, 0, 0)]).unwrap();
        let exact = |mapping: &PortMapping| Wanted::exactly(mapping, None);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = ask(&mut held, "a", &[exact(&first[0]), loopback(Protocol::Tcp, port, port)]);
        assert!(matches!(refused, Err(Refusal::Failed(..))));
        assert_eq!(held["a"].len(), 2, "as before");
        let next = ask(&mut held, "a", &[loopback(Protocol::Udp, 0, 0), exact(&first[0])]).unwrap();
        assert_eq!((next.len(), &next[1]), (2, &first[0]));
        assert!(ask(&mut held, "a", &[]).unwrap().is_empty() && held.is_empty());
    }

    #[test]
    fn what_the_firewall_does_not_translate_is_carried() {
        use std::io::{Read, Write};
        let server = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let address = server.local_addr().unwrap();
        let wanted = Wanted {
            container_port: address.port(),
            forward4: Some(address.ip()),
            ..loopback(Protocol::Tcp, 0, 0)
        };
        let (mut held, mut forwarder) = (Held::new(), Forwarder::default());
        let port = reserve("a", &[wanted], &mut held, &mut forwarder).unwrap()[0].host_port;
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"asked").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        served.write_all(b"answered").unwrap();
        drop(served);
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "askedanswered");
    }

    #[test]
    fn ranges_are_taken_from_the_beginning_and_the_same_on_all_addresses() {
        let mut held = Held::new();
        let addresses = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().unwrap()).to_vec();
        let free = ask(&mut held, "probe", &[loopback(Protocol::Tcp, 0, 0)]).unwrap()[0].host_port;
        let (first, last) = (free.min(65_000), free.min(65_000) + 20);
        let wanted = Wanted { addresses, ..loopback(Protocol::Tcp, first, last) };
        let one = ask(&mut held, "one", std::slice::from_ref(&wanted)).unwrap();
        let two = ask(&mut held, "two", &[wanted]).unwrap();
        assert!(one[0].host_port == one[1].host_port && one[0].host_port > first);
        assert!(two[0].host_port > one[0].host_port);
    }
}
