//! Datagrams that are carried: a socket to the container for each client, while either of them says something.
//!
//! Their number is bounded. A port may have as many as there is room for still; a client that is more takes the place of the
//! one that was silent longest.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_sys::datagram;
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::forward::{Role, token};

/// Clients that are served at the same time.
const MOST_FLOWS: usize = 1024;
/// As Docker's proxy has it.
const IDLE: Duration = Duration::from_secs(90);
/// Datagrams before others have their turn.
const ROUNDS: usize = 32;

/// Who asks whom: the port, the client, and the address that it asked at.
type Key = (u64, SocketAddr, IpAddr);

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: OwnedFd,
    used: Instant,
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    target: SocketAddr,
    /// How many it has at the time.
    flows: usize,
}

/// All ports of datagrams and their clients.
#[derive(Debug)]
pub(super) struct Datagrams {
    /// Clients at a time.
    most: usize,
    ports: BTreeMap<u64, Port>,
    flows: BTreeMap<u64, Flow>,
    by_key: BTreeMap<Key, u64>,
    next: u64,
}

impl Default for Datagrams {
    fn default() -> Self {
        let (ports, flows, by_key) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Datagrams { most: MOST_FLOWS, ports, flows, by_key, next: 0 }
    }
}

impl Datagrams {
    /// Carries what arrives at a socket to `target`.
    pub(super) fn add(&mut self, id: u64, socket: OwnedFd, target: SocketAddr) {
        self.ports.insert(id, Port { socket, target, flows: 0 });
    }

    /// Carries nothing more of a port, whose socket comes back.
    pub(super) fn remove(&mut self, id: u64) -> Option<OwnedFd> {
        let port = self.ports.remove(&id)?;
        if port.flows > 0 {
            self.flows.retain(|_, flow| flow.key.0 != id);
            self.by_key.retain(|key, _| key.0 != id);
        }
        Some(port.socket)
    }

    /// Whether some may become idle.
    pub(super) fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Forgets clients that nobody has heard of for long.
    pub(super) fn drop_idle(&mut self) {
        let idle = self.flows.iter().filter(|(_, flow)| flow.used.elapsed() >= IDLE);
        for id in idle.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(flow) = self.flows.remove(&id) else { return };
        self.by_key.remove(&flow.key);
        if let Some(port) = self.ports.get_mut(&flow.key.0) {
            port.flows -= 1;
        }
    }

    /// Makes room for one more of a port: at the expense of its own, if it has its share.
    fn make_room(&mut self, id: u64) {
        let own = self.ports.get(&id).map_or(0, |port| port.flows);
        if own < self.most.saturating_sub(self.flows.len()) {
            return;
        }
        let of_share = self.flows.iter().filter(|(_, flow)| own == 0 || flow.key.0 == id);
        if let Some(oldest) = of_share.min_by_key(|(_, flow)| flow.used).map(|(id, _)| *id) {
            self.forget(oldest);
        }
    }

    /// Takes clients' datagrams. What cannot be passed on is lost, as datagrams may be.
    pub(super) fn on_port(&mut self, poll: &OwnedFd, id: u64, buffer: &mut [u8]) {
        for _ in 0..ROUNDS {
            let Some(port) = self.ports.get(&id) else { return };
            let Ok(arrived) = datagram::receive(&port.socket, buffer) else { return };
            let key = (id, arrived.from, arrived.to);
            let target = port.target;
            let flow = match self.by_key.get(&key) {
                Some(flow) => Some(*flow),
                None => self.open(poll, key, target),
            };
            if let Some(flow) = flow.and_then(|flow| self.flows.get_mut(&flow)) {
                flow.used = Instant::now();
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                let _ = send(&flow.socket, &buffer[..arrived.length], flags);
            }
        }
    }

    fn open(&mut self, poll: &OwnedFd, key: Key, target: SocketAddr) -> Option<u64> {
        self.make_room(key.0);
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::DGRAM, flags, None).ok()?;
        connect(&socket, &target).ok()?;
        self.next += 1;
        epoll::add(poll, &socket, token(self.next, Role::Flow), EventFlags::IN).ok()?;
        self.flows.insert(self.next, Flow { key, socket, used: Instant::now() });
        self.by_key.insert(key, self.next);
        self.ports.get_mut(&key.0)?.flows += 1;
        Some(self.next)
    }

    /// Takes a container's answers to their client.
    pub(super) fn on_flow(&mut self, id: u64, buffer: &mut [u8]) {
        for _ in 0..ROUNDS {
            let Some(flow) = self.flows.get_mut(&id) else { return };
            // An error is that nobody listened in the container; the client asks again.
            let Ok((length, _)) = recv(&flow.socket, &mut *buffer, RecvFlags::DONTWAIT) else { return };
            flow.used = Instant::now();
            let (port, client, asked) = flow.key;
            if let Some(port) = self.ports.get(&port) {
                let _ = datagram::send(&port.socket, &buffer[..length], client, asked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn one_ports_clients_take_each_others_places() {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut all = Datagrams { most: 8, ..Datagrams::default() };
        let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
        for port in [1, 2, 3] {
            all.add(port, UdpSocket::bind("127.0.0.1:0").unwrap().into(), target);
        }
        let key = |port: u64, client: u16| (port, SocketAddr::new(target.ip(), client), target.ip());
        let open = |all: &mut Datagrams, port, clients: std::ops::Range<u16>| {
            clients.for_each(|client| assert!(all.open(&poll, key(port, client), target).is_some()));
        };
        let clients = |all: &Datagrams, port: u64| {
            let of_port = all.by_key.keys().filter(|key| key.0 == port).map(|key| key.1.port());
            of_port.collect::<Vec<u16>>()
        };
        open(&mut all, 1, 1..11);
        assert_eq!(clients(&all, 1), [7, 8, 9, 10], "half of all, and the last ones");
        open(&mut all, 2, 1..6);
        assert_eq!((clients(&all, 2), clients(&all, 1).len()), (vec![4, 5], 4), "half of what is left");
        open(&mut all, 3, 1..3);
        assert_eq!(clients(&all, 3), [2]);
        all.remove(1);
        assert_eq!((all.flows.len(), all.by_key.len()), (3, 3));
        open(&mut all, 3, 3..5);
        assert_eq!(clients(&all, 3), [2, 3, 4]);
        // Where there is no room at all, a port without a client gets the oldest's place.
        all.most = all.flows.len();
        all.add(1, UdpSocket::bind("127.0.0.1:0").unwrap().into(), target);
        open(&mut all, 1, 1..2);
        assert_eq!((clients(&all, 1), clients(&all, 2)), (vec![1], vec![5]));
    }
}
