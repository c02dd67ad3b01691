//! All name servers of the net process: one table, one cache, and the sockets of each container.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use super::attachment::{Attachment, Sockets, permitted};
use super::cache::Cache;
use super::connection::{Connection, Wish};
use super::flight::{Flight, Source};
use super::forward::limit;
use super::random::Random;
use super::table::{Table, View};
use super::wire::{Query, Refusal};
use super::{Change, Config, Holdings, Refused, Slots, Token, Upstream, VERSION, answer};
use crate::net::poller::{Interest, Kind, Poller};

/// Datagrams that are answered before another container's turn.
const BURST: usize = 32;
/// Connections of one container, and of all.
const MAX_CONNECTIONS_PER_CONTAINER: usize = 128;
const MAX_CONNECTIONS: usize = 4096;
/// Lists of the host's upstreams that have a number: there is one as a rule.
const MAX_SCOPES: usize = 64;
/// Longest message.
const MAX_MESSAGE: usize = 65535;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Flight(Token),
    Connection(Token),
}

/// The time; every timer and lifetime is counted by it.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The name servers of all containers, driven by the net process's loop.
pub(crate) struct Server {
    pub(super) poller: Rc<Poller>,
    /// The host's network namespace, in which this process lives.
    pub(super) home: OwnedFd,
    pub(super) table: Table,
    pub(super) cache: Cache,
    pub(super) attachments: Slots<Attachment>,
    owners: HashMap<String, Token>,
    scopes: HashMap<Rc<[Upstream]>, u32>,
    next_scope: u32,
    pub(super) flights: Slots<Flight>,
    pub(super) by_key: HashMap<Box<[u8]>, Token>,
    pub(super) connections: Slots<Connection>,
    pub(super) timers: BTreeSet<(Instant, Timer)>,
    pub(super) random: Random,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
}

impl Server {
    /// Nothing is served yet. The calling thread's network namespace is the host's.
    pub(crate) fn new(poller: Rc<Poller>) -> io::Result<Server> {
        Ok(Server {
            poller,
            home: berth_sys::netns::current()?,
            table: Table::default(),
            cache: Cache::default(),
            attachments: Slots::default(),
            owners: HashMap::new(),
            scopes: HashMap::new(),
            next_scope: 0,
            flights: Slots::default(),
            by_key: HashMap::new(),
            connections: Slots::default(),
            timers: BTreeSet::new(),
            random: Random::new(),
            input: vec![0; MAX_MESSAGE],
            output: Vec::new(),
        })
    }

    /// Whether no container is served.
    pub(crate) fn is_idle(&self) -> bool {
        self.owners.is_empty()
    }

    /// Makes changes in order, up to the first that cannot be made. Descriptors belong to the attachments, in order.
    pub(crate) fn apply(
        &mut self,
        version: u32,
        changes: Vec<Change>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Refused> {
        if version != VERSION {
            return Err(Refused { operation: format!("understand version {version}"), errno: 0 });
        }
        let mut fds = fds.into_iter();
        for change in changes {
            match change {
                Change::Attach { owner, config, life } => {
                    let namespace = fds.next();
                    let life = if life { fds.next() } else { None };
                    self.attach(owner, config, namespace, life)?;
                }
                Change::Configure { owner, config } => self.configure(&owner, config)?,
                Change::Detach { owner } => self.detach(&owner),
                Change::Join { network, network_name, member } => {
                    self.table.join(&network, &network_name, member);
                }
                Change::Leave { network, owner } => self.table.leave(&network, &owner),
                Change::Retain { owners } => self.retain(&owners),
            }
        }
        Ok(())
    }

    /// What is held, for a daemon that has just started.
    pub(crate) fn holdings(&self) -> Holdings {
        let attached = self.attachments.iter().map(|(_, a)| (a.owner.clone(), a.config.clone()));
        let mut attached: Vec<(String, Config)> = attached.collect();
        attached.sort_by(|a, b| a.0.cmp(&b.0));
        Holdings { attached, members: self.table.members() }
    }

    fn attach(
        &mut self,
        owner: String,
        config: Config,
        namespace: Option<OwnedFd>,
        life: Option<OwnedFd>,
    ) -> Result<(), Refused> {
        let operation = format!("attach {owner}");
        let Some(namespace) = namespace else { return Err(Refused { operation, errno: 0 }) };
        let failed = |error: io::Error| Refused {
            operation: operation.clone(),
            errno: error.raw_os_error().unwrap_or_default(),
        };
        if let Some(token) = self.owners.get(&owner).copied() {
            let old = self.attachments.get_mut(token);
            if let Some(old) = old.filter(|old| is_same(&old.namespace, &namespace)) {
                if let Some(life) = life {
                    self.poller.add(life.as_fd(), Kind::Life, token, Interest::READ).map_err(failed)?;
                    if let Some(before) = old.life.replace(life) {
                        self.poller.remove(before.as_fd());
                    }
                }
                return self.configure(&owner, config);
            }
            self.end(token);
        }
        let sockets =
            berth_sys::netns::visit(&self.home, &namespace, || Sockets::open(&owner)).map_err(failed)?;
        let upstreams = permitted(&config);
        let attachment = Attachment {
            owner: owner.clone(),
            view: View::new(&config),
            scope: self.scope(&upstreams),
            config,
            upstreams,
            namespace,
            life,
            sockets,
            waiting: 0,
            connections: 0,
        };
        let token = self.attachments.insert(attachment);
        self.owners.insert(owner, token);
        self.poll_attachment(token).map_err(|error| {
            self.end(token);
            failed(error)
        })
    }

    fn poll_attachment(&self, token: Token) -> io::Result<()> {
        let Some(attachment) = self.attachments.get(token) else { return Ok(()) };
        self.poller.add(attachment.sockets.udp.as_fd(), Kind::Datagrams, token, Interest::READ)?;
        self.poller.add(attachment.sockets.tcp.as_fd(), Kind::Listener, token, Interest::READ)?;
        if let Some(life) = &attachment.life {
            self.poller.add(life.as_fd(), Kind::Life, token, Interest::READ)?;
        }
        Ok(())
    }

    fn configure(&mut self, owner: &str, config: Config) -> Result<(), Refused> {
        let missing = || Refused {
            operation: format!("configure {owner}"),
            errno: rustix::io::Errno::NOENT.raw_os_error(),
        };
        let token = self.owners.get(owner).copied().ok_or_else(missing)?;
        let upstreams = permitted(&config);
        let same = self.attachments.get(token).is_some_and(|a| a.upstreams == upstreams);
        let scope = if same { None } else { Some(self.scope(&upstreams)) };
        let attachment = self.attachments.get_mut(token).ok_or_else(missing)?;
        attachment.view = View::new(&config);
        attachment.config = config;
        attachment.upstreams = upstreams;
        attachment.scope = scope.unwrap_or(attachment.scope);
        Ok(())
    }

    /// The number of a container's part of the cache. Who asks the same servers from the host's namespace shares one; what a
    /// server says to a container in its own namespace is for that container.
    fn scope(&mut self, upstreams: &Rc<[Upstream]>) -> u32 {
        if let Some(scope) = self.scopes.get(upstreams) {
            return *scope;
        }
        self.next_scope = self.next_scope.wrapping_add(1);
        if upstreams.iter().all(|upstream| upstream.from_host) {
            if self.scopes.len() >= MAX_SCOPES {
                self.scopes.clear();
            }
            self.scopes.insert(upstreams.clone(), self.next_scope);
        }
        self.next_scope
    }

    fn detach(&mut self, owner: &str) {
        self.table.forget(owner);
        if let Some(token) = self.owners.get(owner).copied() {
            self.end(token);
        }
    }

    fn retain(&mut self, owners: &[String]) {
        let keep: std::collections::HashSet<&str> = owners.iter().map(String::as_str).collect();
        self.table.retain(|owner| keep.contains(owner));
        let gone = self.owners.iter().filter(|(owner, _)| !keep.contains(owner.as_str()));
        let gone: Vec<Token> = gone.map(|(_, token)| *token).collect();
        gone.into_iter().for_each(|token| self.end(token));
    }

    /// Closes what serves a container.
    fn end(&mut self, token: Token) {
        let Some(attachment) = self.attachments.remove(token) else { return };
        self.owners.remove(&attachment.owner);
        if let Some(life) = &attachment.life {
            self.poller.remove(life.as_fd());
        }
        self.ground(token);
        let of_it = self.connections.iter().filter(|(_, c)| c.attachment == token);
        let connections: Vec<Token> = of_it.map(|(token, _)| token).collect();
        connections.into_iter().for_each(|token| self.close(token));
    }

    /// Something happened at one of the sockets that this server had polled.
    pub(crate) fn ready(&mut self, kind: Kind, token: Token) {
        match kind {
            Kind::Datagrams => self.read_datagrams(token),
            Kind::Listener => self.accept(token),
            Kind::Connection => self.read_connection(token),
            Kind::Attempt(number) => self.attempt_ready(token, usize::from(number)),
            Kind::Life => {
                if let Some(owner) = self.attachments.get(token).map(|a| a.owner.clone()) {
                    self.detach(&owner);
                }
            }
            Kind::Control | Kind::Request => {}
        }
    }

    /// When [`Server::expire`] is to be called although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(when, _)| *when)
    }

    /// Does what is due.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((when, timer)) = self.timers.first().copied()
            && when <= now
        {
            self.timers.remove(&(when, timer));
            match timer {
                Timer::Flight(token) => self.advance(token, false),
                Timer::Connection(token) => match self.connections.get(token).map(|c| c.timer) {
                    Some(later) if later > now => drop(self.timers.insert((later, timer))),
                    _ => self.close(token),
                },
            }
        }
    }

    fn read_datagrams(&mut self, token: Token) {
        let mut buffer = std::mem::take(&mut self.input);
        for _ in 0..BURST {
            let Some(attachment) = self.attachments.get(token) else { break };
            // An error of an earlier answer, such as a client that is gone, says nothing about the next query.
            let (length, from) = match attachment.sockets.udp.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            self.query(token, Source::Udp(from), buffer.get(..length).unwrap_or_default());
        }
        self.input = buffer;
    }

    /// Answers a query now, or lets its client wait.
    fn query(&mut self, token: Token, source: Source, packet: &[u8]) {
        let query = match Query::read(packet) {
            Ok(query) => query,
            Err(Refusal::Silent) => return,
            Err(Refusal::Code(code)) => {
                answer::refusal(&mut self.output, packet, code);
                return self.send(token, source);
            }
        };
        let Some(attachment) = self.attachments.get(token) else { return };
        let (known, limit) = ((&self.table, &attachment.view), limit(source, &query));
        let asked = (&query, packet);
        if answer::local(&mut self.output, known, asked, limit, &mut self.random)
            || self.forward(token, source, query, packet)
        {
            self.send(token, source);
        }
    }

    /// Sends what is in `self.output`. A client that cannot take it asks again.
    pub(super) fn send(&mut self, attachment: Token, source: Source) {
        match source {
            Source::Udp(to) => {
                if let Some(attachment) = self.attachments.get(attachment) {
                    let _ = attachment.sockets.udp.send_to(&self.output, to);
                }
            }
            Source::Tcp(token) => {
                if let Some(connection) = self.connections.get_mut(token) {
                    connection.answer(&self.output);
                }
                self.flush(token);
            }
        }
    }

    fn accept(&mut self, token: Token) {
        let full = self.connections.len() >= MAX_CONNECTIONS;
        let Some(attachment) = self.attachments.get_mut(token) else { return };
        let Ok((stream, _)) = attachment.sockets.tcp.accept() else { return };
        if full
            || attachment.connections >= MAX_CONNECTIONS_PER_CONTAINER
            || stream.set_nonblocking(true).is_err()
        {
            return;
        }
        attachment.connections += 1;
        let connection = Connection::new(token, stream, now());
        let timer = connection.timer;
        let connection = self.connections.insert(connection);
        self.timers.insert((timer, Timer::Connection(connection)));
        let polled = self
            .connections
            .get(connection)
            .map(|c| self.poller.add(c.stream.as_fd(), Kind::Connection, connection, Interest::READ));
        if !matches!(polled, Some(Ok(()))) {
            self.close(connection);
        }
    }

    fn read_connection(&mut self, token: Token) {
        let mut buffer = std::mem::take(&mut self.input);
        let well = self.connections.get_mut(token).is_some_and(|c| c.read(&mut buffer, now()));
        self.input = buffer;
        if !well {
            return self.close(token);
        }
        while let Some(connection) = self.connections.get_mut(token)
            && let Some(packet) = connection.next_query()
        {
            let attachment = connection.attachment;
            self.query(attachment, Source::Tcp(token), &packet);
        }
        self.flush(token);
    }

    fn flush(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let polled = match connection.flush() {
            Wish::Close => false,
            Wish::Poll(read, write) => {
                let fd = connection.stream.as_fd();
                self.poller.change(fd, Kind::Connection, token, Interest { read, write }).is_ok()
            }
        };
        if !polled {
            self.close(token);
        }
    }

    fn close(&mut self, token: Token) {
        let Some(connection) = self.connections.remove(token) else { return };
        if let Some(attachment) = self.attachments.get_mut(connection.attachment) {
            attachment.connections = attachment.connections.saturating_sub(1);
        }
    }
}

/// Whether two descriptors are of the same namespace.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}
