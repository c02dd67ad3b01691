//! Datagrams that are carried: a socket to the container for each client, while either of them says something.

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

/// All ports of datagrams and their clients.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    ports: BTreeMap<u64, (OwnedFd, SocketAddr)>,
    flows: BTreeMap<u64, Flow>,
    by_key: BTreeMap<Key, u64>,
    next: u64,
}

impl Datagrams {
    /// Carries what arrives at a socket to `target`.
    pub(super) fn add(&mut self, id: u64, socket: OwnedFd, target: SocketAddr) {
        self.ports.insert(id, (socket, target));
    }

    /// Carries nothing more of a port, whose socket comes back.
    pub(super) fn remove(&mut self, id: u64) -> Option<OwnedFd> {
        let (socket, _) = self.ports.remove(&id)?;
        self.flows.retain(|_, flow| flow.key.0 != id);
        self.by_key.retain(|key, _| key.0 != id);
        Some(socket)
    }

    /// Whether some may become idle.
    pub(super) fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Forgets clients that nobody has heard of for long.
    pub(super) fn drop_idle(&mut self) {
        let by_key = &mut self.by_key;
        self.flows.retain(|_, flow| {
            let used = flow.used.elapsed() < IDLE;
            if !used {
                by_key.remove(&flow.key);
            }
            used
        });
    }

    /// Takes clients' datagrams. What cannot be passed on is lost, as datagrams may be.
    pub(super) fn on_port(&mut self, poll: &OwnedFd, id: u64, buffer: &mut [u8]) {
        for _ in 0..ROUNDS {
            let Some((socket, target)) = self.ports.get(&id) else { return };
            let Ok(arrived) = datagram::receive(socket, buffer) else { return };
            let key = (id, arrived.from, arrived.to);
            let target = *target;
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
        if self.flows.len() >= MOST_FLOWS {
            return None;
        }
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::DGRAM, flags, None).ok()?;
        connect(&socket, &target).ok()?;
        self.next += 1;
        epoll::add(poll, &socket, token(self.next, Role::Flow), EventFlags::IN).ok()?;
        self.flows.insert(self.next, Flow { key, socket, used: Instant::now() });
        self.by_key.insert(key, self.next);
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
            if let Some((socket, _)) = self.ports.get(&port) {
                let _ = datagram::send(socket, &buffer[..length], client, asked);
            }
        }
    }
}
