//! What the firewall does not translate, carried by one thread: what goes to `::1`, IPv6 to containers that have none, and
//! everything where there are no rules.
//!
//! The thread starts with the first port that needs it, waits for all sockets at once, and holds a bounded number of
//! connections. A port may have as many as there is room for still, so that those of one never leave others without any;
//! what is more waits in its listener's queue.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::datagrams::Datagrams;
use super::streams::Connection;
use crate::Protocol;

/// Connections that are carried at the same time.
const MOST_CONNECTIONS: usize = 4096;
/// Connections that one listener may add before others have their turn.
const ACCEPTED_AT_ONCE: usize = 16;
/// How often flows of datagrams are looked at that may be over.
const IDLE_CHECK_SECONDS: i64 = 10;
const EVENTS_AT_ONCE: usize = 64;
/// How long the other thread waits until ports are let go of.
const PATIENCE: Duration = Duration::from_secs(2);
/// A pause where the machine has no room for another socket.
const WITHOUT_ROOM: Duration = Duration::from_millis(20);

/// What a socket is to the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Work has come from the other thread.
    Wake = 0,
    /// A published port of streams, or of datagrams.
    Port = 1,
    /// Who has connected.
    Client = 2,
    /// The connection to the container.
    Target = 3,
    /// The socket to the container for one client's datagrams.
    Flow = 4,
}

/// What epoll gives back for a socket: who it belongs to and as what.
pub(super) fn token(id: u64, role: Role) -> EventData {
    EventData::new_u64(id << 3 | role as u64)
}

enum Command {
    Add {
        id: u64,
        socket: OwnedFd,
        protocol: Protocol,
        target: SocketAddr,
    },
    Remove(u64),
    /// Answered when the thread has done what came before.
    Tell(SyncSender<()>),
}

/// The way to the thread. Commands are as many as ports are published.
#[derive(Debug)]
struct Control {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    /// The thread may not have let go of a port yet.
    removes: AtomicBool,
}

impl Control {
    fn send(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| io::ErrorKind::BrokenPipe)?;
        rustix::io::write(&*self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// Who carries; nothing is started before it is needed.
#[derive(Debug)]
pub(super) struct Forwarder {
    control: Option<Arc<Control>>,
    last: u64,
    /// Connections at a time.
    most: usize,
}

impl Default for Forwarder {
    fn default() -> Self {
        Forwarder { control: None, last: 0, most: MOST_CONNECTIONS }
    }
}

/// A port whose connections are carried while this value lives.
#[derive(Debug)]
pub(super) struct Forward {
    id: u64,
    target: IpAddr,
    control: Arc<Control>,
}

impl Forward {
    /// Where they are carried.
    pub(super) fn target(&self) -> IpAddr {
        self.target
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // The thread ends with the process only.
        let sent = self.control.send(Command::Remove(self.id));
        self.control.removes.fetch_or(sent.is_ok(), Ordering::Relaxed);
    }
}

impl Forwarder {
    /// Carries what arrives at `socket`, which is listening (or bound, for datagrams), to `target`; `v6` is the socket's family.
    pub(super) fn add(
        &mut self,
        socket: &OwnedFd,
        v6: bool,
        protocol: Protocol,
        target: SocketAddr,
    ) -> io::Result<Forward> {
        let socket = socket.try_clone()?;
        if protocol == Protocol::Udp {
            berth_sys::datagram::enable(&socket, v6)?;
        }
        let control = match &self.control {
            Some(control) => Arc::clone(control),
            None => Arc::clone(self.control.insert(Arc::new(start(self.most)?))),
        };
        self.last += 1;
        control.send(Command::Add { id: self.last, socket, protocol, target })?;
        Ok(Forward { id: self.last, target: target.ip(), control })
    }

    /// Waits until ports that are no longer carried are free for others: once, however many they are.
    pub(super) fn settle(&self) {
        let Some(control) = self.control.as_ref().filter(|it| it.removes.swap(false, Ordering::Relaxed))
        else {
            return;
        };
        let (done, wait) = sync_channel(1);
        if control.send(Command::Tell(done)).is_ok() {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

fn start(most: usize) -> io::Result<Control> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &*wake, token(0, Role::Wake), EventFlags::IN)?;
    let (commands, received) = channel();
    let carrier = Carrier {
        poll,
        wake: Arc::clone(&wake),
        commands: received,
        most,
        ports: BTreeMap::new(),
        full: BTreeSet::new(),
        connections: BTreeMap::new(),
        datagrams: Datagrams::default(),
        next: 0,
        buffer: vec![0; 65_536],
    };
    std::thread::Builder::new().name("forwards".into()).spawn(move || carrier.run())?;
    Ok(Control { commands, wake, removes: AtomicBool::new(false) })
}

/// A published port of streams.
struct Port {
    socket: OwnedFd,
    target: SocketAddr,
    /// How many it has at the time.
    connections: usize,
}

/// The thread's world.
struct Carrier {
    poll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    /// Connections at a time.
    most: usize,
    ports: BTreeMap<u64, Port>,
    /// Those that nobody listens at until there is more room.
    full: BTreeSet<u64>,
    /// Connections with the ports that they came by.
    connections: BTreeMap<u64, (u64, Connection)>,
    datagrams: Datagrams,
    /// The number of the next connection; numbers do not come again.
    next: u64,
    buffer: Vec<u8>,
}

impl Carrier {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            events.clear();
            let idle = Timespec { tv_sec: IDLE_CHECK_SECONDS, tv_nsec: 0 };
            let timeout = self.datagrams.has_flows().then_some(&idle);
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                // Nothing can be waited for any more: ports stay reserved, and nothing is carried.
                Err(_) => return,
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                self.on_event(data >> 3, data & 7, flags);
            }
            self.datagrams.drop_idle();
        }
    }

    fn on_event(&mut self, id: u64, role: u64, flags: EventFlags) {
        match role {
            role if role == Role::Wake as u64 => self.on_wake(),
            role if role == Role::Port as u64 => match self.ports.contains_key(&id) {
                true => self.accept(id),
                false => self.datagrams.on_port(&self.poll, id, &mut self.buffer),
            },
            role if role == Role::Flow as u64 => self.datagrams.on_flow(id, &mut self.buffer),
            role => {
                let Some((_, connection)) = self.connections.get_mut(&id) else { return };
                let at_target = role == Role::Target as u64;
                let goes_on = connection.step(&self.poll, at_target, flags, &mut self.buffer);
                if !goes_on.unwrap_or(false) {
                    self.end(id);
                }
            }
        }
    }

    fn on_wake(&mut self) {
        let mut count = [0; 8];
        // Only its being readable matters.
        let _ = rustix::io::read(&*self.wake, &mut count);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add { id, socket, protocol: Protocol::Udp, target } => {
                    if epoll::add(&self.poll, &socket, token(id, Role::Port), EventFlags::IN).is_ok() {
                        self.datagrams.add(id, socket, target);
                    }
                }
                Command::Add { id, socket, target, .. } => {
                    if epoll::add(&self.poll, &socket, token(id, Role::Port), EventFlags::IN).is_ok() {
                        self.ports.insert(id, Port { socket, target, connections: 0 });
                    }
                }
                Command::Remove(id) => self.remove(id),
                Command::Tell(done) => {
                    // Who asked may have stopped waiting.
                    let _ = done.try_send(());
                }
            }
        }
    }

    fn remove(&mut self, id: u64) {
        // The reservation has the same socket: closing this one does not take it out of the epoll instance.
        if let Some(port) = self.ports.remove(&id) {
            let _ = epoll::delete(&self.poll, &port.socket);
            self.full.remove(&id);
            if port.connections > 0 {
                self.connections.retain(|_, (of, _)| *of != id);
                self.listen_again();
            }
        }
        if let Some(socket) = self.datagrams.remove(id) {
            let _ = epoll::delete(&self.poll, &socket);
        }
    }

    /// How many connections may still come.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.connections.len())
    }

    /// Listens at ports that may have more connections now.
    fn listen_again(&mut self) {
        let room = self.room();
        self.full.retain(|id| {
            let Some(port) = self.ports.get(id).filter(|port| port.connections < room) else { return true };
            epoll::modify(&self.poll, &port.socket, token(*id, Role::Port), EventFlags::IN).is_err()
        });
    }

    fn accept(&mut self, id: u64) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let room = self.room();
            let Some(port) = self.ports.get_mut(&id) else { return };
            if port.connections >= room {
                let _ = epoll::modify(&self.poll, &port.socket, token(id, Role::Port), EventFlags::empty());
                self.full.insert(id);
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client = match acceptfrom_with(port.socket.as_fd(), flags) {
                Ok((client, _)) => client,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // The connection still waits, and would be told of again at once.
                    return std::thread::sleep(WITHOUT_ROOM);
                }
                Err(_) => return,
            };
            self.next += 1;
            // A container that refuses is told to the client by the end of its connection.
            if let Ok(connection) = Connection::open(&self.poll, self.next, client, port.target) {
                port.connections += 1;
                self.connections.insert(self.next, (id, connection));
            }
        }
    }

    fn end(&mut self, id: u64) {
        let Some((port, _)) = self.connections.remove(&id) else { return };
        if let Some(port) = self.ports.get_mut(&port) {
            port.connections -= 1;
        }
        self.listen_again();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Whether a client's byte has come back.
    fn is_answered(client: &mut TcpStream, patience: Duration) -> bool {
        client.set_read_timeout(Some(patience)).unwrap();
        client.read_exact(&mut [0]).is_ok()
    }

    fn asking(port: &TcpListener) -> TcpStream {
        let mut client = TcpStream::connect(port.local_addr().unwrap()).unwrap();
        client.write_all(b"?").unwrap();
        client
    }

    #[test]
    fn one_ports_connections_leave_room_for_others() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut connection, _)) = server.accept() {
                let echo = move || {
                    let mut byte = [0];
                    while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
                };
                std::thread::spawn(echo);
            }
        });
        let mut forwarder = Forwarder { most: 8, ..Forwarder::default() };
        let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut carry = |port: &TcpListener| {
            port.set_nonblocking(true).unwrap();
            let socket = OwnedFd::from(port.try_clone().unwrap());
            forwarder.add(&socket, false, Protocol::Tcp, target).unwrap()
        };
        let (first, _second) = (carry(&one), carry(&other));
        let mut clients: Vec<TcpStream> = (0..4).map(|_| asking(&one)).collect();
        assert!(clients.iter_mut().all(|client| is_answered(client, LONG)));
        let mut fifth = asking(&one);
        assert!(!is_answered(&mut fifth, Duration::from_millis(200)), "half of all is one port's");
        let mut others: Vec<TcpStream> = (0..2).map(|_| asking(&other)).collect();
        assert!(others.iter_mut().all(|client| is_answered(client, LONG)));
        clients.truncate(1);
        assert!(is_answered(&mut fifth, LONG), "when there is room, who waited is served");
        drop(first);
        forwarder.settle();
        assert!(!is_answered(&mut fifth, LONG), "ended with its port");
    }
}
