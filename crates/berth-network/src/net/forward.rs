//! What the firewall does not translate, carried by one thread: what goes to `::1`, IPv6 to containers that have none, and
//! everything where there are no rules.
//!
//! The thread starts with the first port that needs it, waits for all sockets at once, and holds a bounded number of
//! connections: while that is reached, others wait in their listeners' queues.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
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
const MOST_CONNECTIONS: usize = 2048;
/// Connections that one listener may add before others have their turn.
const ACCEPTED_AT_ONCE: usize = 16;
/// How often flows of datagrams are looked at that may be over.
const IDLE_CHECK_SECONDS: i64 = 10;
const EVENTS_AT_ONCE: usize = 64;
/// How long the other thread waits until a port is let go of.
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
    /// Answered when the thread has let go of the port.
    Remove(u64, SyncSender<()>),
}

/// The way to the thread. Commands are as many as ports are published.
#[derive(Debug)]
struct Control {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Control {
    fn send(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| io::ErrorKind::BrokenPipe)?;
        rustix::io::write(&*self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// Who carries; nothing is started before it is needed.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    control: Option<Arc<Control>>,
    last: u64,
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
        let (gone, wait) = sync_channel(1);
        // The thread ends with the process only. The port is free for others once it has let go of it.
        if self.control.send(Command::Remove(self.id, gone)).is_ok() {
            let _ = wait.recv_timeout(PATIENCE);
        }
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
            None => Arc::clone(self.control.insert(Arc::new(start()?))),
        };
        self.last += 1;
        control.send(Command::Add { id: self.last, socket, protocol, target })?;
        Ok(Forward { id: self.last, target: target.ip(), control })
    }
}

fn start() -> io::Result<Control> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &*wake, token(0, Role::Wake), EventFlags::IN)?;
    let (commands, received) = channel();
    let carrier = Carrier {
        poll,
        wake: Arc::clone(&wake),
        commands: received,
        ports: BTreeMap::new(),
        connections: BTreeMap::new(),
        datagrams: Datagrams::default(),
        next: 0,
        buffer: vec![0; 65_536],
    };
    std::thread::Builder::new().name("forwards".into()).spawn(move || carrier.run())?;
    Ok(Control { commands, wake })
}

/// A published port of streams.
struct Port {
    socket: OwnedFd,
    target: SocketAddr,
}

/// The thread's world.
struct Carrier {
    poll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    ports: BTreeMap<u64, Port>,
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
                    let interest = self.listening();
                    if epoll::add(&self.poll, &socket, token(id, Role::Port), interest).is_ok() {
                        self.ports.insert(id, Port { socket, target });
                    }
                }
                Command::Remove(id, gone) => {
                    self.remove(id);
                    // Who asked may have stopped waiting.
                    let _ = gone.try_send(());
                }
            }
        }
    }

    fn remove(&mut self, id: u64) {
        // The reservation has the same socket: closing this one does not take it out of the epoll instance.
        if let Some(port) = self.ports.remove(&id) {
            let _ = epoll::delete(&self.poll, &port.socket);
            let of_port = self.connections.iter().filter(|(_, (port, _))| *port == id).map(|(id, _)| *id);
            for connection in of_port.collect::<Vec<_>>() {
                self.end(connection);
            }
        }
        if let Some(socket) = self.datagrams.remove(id) {
            let _ = epoll::delete(&self.poll, &socket);
        }
    }

    fn listening(&self) -> EventFlags {
        if self.connections.len() < MOST_CONNECTIONS { EventFlags::IN } else { EventFlags::empty() }
    }

    /// Lets listeners wait, or be waited for.
    fn listen(&self) {
        for (id, port) in &self.ports {
            let _ = epoll::modify(&self.poll, &port.socket, token(*id, Role::Port), self.listening());
        }
    }

    fn accept(&mut self, id: u64) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let Some(port) = self.ports.get(&id) else { return };
            if self.connections.len() >= MOST_CONNECTIONS {
                return self.listen();
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
                self.connections.insert(self.next, (id, connection));
            }
        }
    }

    fn end(&mut self, id: u64) {
        let full = self.connections.len() >= MOST_CONNECTIONS;
        self.connections.remove(&id);
        if full {
            self.listen();
        }
    }
}
