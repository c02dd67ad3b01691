//! The per-container process: parent of the container's init, holder of its streams, writer of its log.
//!
//! It has one thread, is forked (not executed) by the spawner, and outlives spawner and daemon. It blocks in three
//! places only: in `epoll_wait`, and while the kernel starts init or an added process.

mod attachment;
mod connection;
mod delivery;
mod detach;
mod exec;
mod life;
mod memory;
mod poller;
mod process;
mod requests;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_runtime::launch::{self, Init, NetworkMode, Release, Stage, StartError};
use berth_sys::process::flags;

use crate::channel;
use crate::log::Sink;
use crate::protocol::{AttachOptions, Event, ExitStatus, LaunchBody, SOCKET};
use connection::Connection;
use delivery::Delivery;
use exec::Exec;
use memory::Memory;
use poller::{Interest, Poller, Token, Watched};
use streams::{Ends, Streams};

/// Output and input pass through a buffer of this size, which an idle shim does not have.
const CHUNK: usize = 32 * 1024;
/// How long a shim that may leave waits for those whom it tells the container's end.
const LINGER: Duration = Duration::from_secs(30);
/// How long attached connections wait for the daemon to record the container's end.
const RECORDING: Duration = Duration::from_secs(2);
/// How often it is told that log messages were lost.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// What the shim must know for its whole life.
#[derive(Debug)]
struct Settings {
    id: String,
    exec_dir: PathBuf,
    cgroup: Option<PathBuf>,
    /// The container has no PID namespace of its own: its other processes do not end with init.
    shares_pids: bool,
}

/// Where the container is in its life.
#[derive(Debug)]
enum Phase {
    /// Init waits to be released.
    Cloned(Init),
    /// The program runs.
    Running { pid: i32, at: jiff::Timestamp, process: Watched },
    /// Init has ended; its streams are held by others still.
    Draining { status: ExitStatus, until: Instant },
    /// All is written down and waits for a daemon to record it; attached connections wait for that until then.
    Exited { status: ExitStatus, until: Instant },
    /// The shim goes as soon as its clients have the last output.
    Leaving { until: Instant },
}

/// See the module.
#[derive(Debug)]
struct Shim {
    settings: Settings,
    poller: Poller,
    phase: Phase,
    /// Attached before the program exists.
    waiting: Vec<(OwnedFd, AttachOptions)>,
    streams: Streams,
    /// Lost log messages that were told of, and when.
    told_lost: (u64, Option<Instant>),
    memory: Option<Memory>,
    execs: BTreeMap<u32, Exec>,
    next_exec: u32,
    /// The last exits of added processes, told again to each new subscriber.
    exec_exits: VecDeque<(String, i32)>,
    listener: Option<Watched>,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    buffer: Vec<u8>,
}

/// Runs the shim in a process freshly forked by the spawner. `fds` are what the daemon sent: the memfd of the launch, the
/// first connection, attached connections, and the launch's own descriptors.
pub(crate) fn main(mut fds: Vec<OwnedFd>) -> u8 {
    if fds.len() < 2 {
        return 1;
    }
    let (memfd, control) = (fds.remove(0), fds.remove(0));
    match Shim::start(memfd, &control, fds) {
        Ok((mut shim, release)) => {
            shim.connect(control, true);
            if release {
                shim.release(Release::default());
            }
            shim.run();
            0
        }
        Err(error) => {
            let event = Event::Failed(error);
            let message = crate::protocol::Outgoing::Event(&event);
            // Nobody is left to be told if this fails.
            let _ = channel::Packed::new(&message, Vec::new()).and_then(|packed| packed.send(&control));
            1
        }
    }
}

/// A failure of the shim itself, in the words of a failed start.
fn failed(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::io(Stage::Protocol, what, &error)
}

fn listen(poller: &Poller, directory: &std::path::Path) -> io::Result<Watched> {
    let socket = berth_sys::socket::listen(&directory.join(SOCKET), BACKLOG)?;
    let mut listener = poller.adopt(socket, Token::Listener)?;
    listener.set(Some(Interest::IN))?;
    Ok(listener)
}

impl Shim {
    /// Clones init. The daemon learns of it at once, so that it can prepare the network while the shim sets up the rest.
    /// True if init may go on at once.
    fn start(memfd: OwnedFd, control: &OwnedFd, mut fds: Vec<OwnedFd>) -> Result<(Self, bool), StartError> {
        process::become_shim().map_err(failed("set up the shim"))?;
        let bytes = channel::read_memfd(memfd).map_err(failed("read the launch"))?;
        let mut body: LaunchBody = serde_json::from_slice(&bytes)
            .map_err(|error| StartError::new(Stage::Configuration, format!("read the launch: {error}")))?;
        drop(bytes);
        body.launch.die_with_parent = true;
        if fds.len() < body.attach.len() + body.log_fds {
            return Err(StartError::new(Stage::Protocol, "attached connections are missing"));
        }
        let attached = fds.drain(..body.attach.len()).collect::<Vec<_>>();
        let log_fds = fds.drain(..body.log_fds).collect::<Vec<_>>();
        let (stdio, ends) =
            process::streams(body.tty, body.stdin_open).map_err(failed("make the streams"))?;
        let init = launch::clone(&body.launch, fds, stdio)?;
        let pidfd = init.pidfd.try_clone().map_err(failed("copy a descriptor"))?;
        Self::set_up(body, init, control, (attached, log_fds), ends)
            .inspect_err(|_| process::kill_and_reap(&pidfd))
    }

    /// Everything that can wait until init is busy with its own set-up.
    fn set_up(
        body: LaunchBody,
        init: Init,
        control: &OwnedFd,
        (attached, log_fds): (Vec<OwnedFd>, Vec<OwnedFd>),
        ends: Ends,
    ) -> Result<(Self, bool), StartError> {
        let shares_pids = process::shares_pids(&body.launch.spec);
        let log = life::tell_cloned(control, &init).and_then(|()| {
            // It may have a process of its own, which is not to be one of the container's.
            Sink::open(&body.log)
                .map_err(|error| StartError::new(Stage::Protocol, format!("open the log: {error}")))
        });
        let joined = log.and_then(|log| {
            // Added processes are then born in the container's PID namespace, with the shim as parent.
            if shares_pids {
                return Ok(log);
            }
            match berth_sys::process::setns(&init.pidfd, flags::NEWPID) {
                // It has ended already: no process will be added.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(log),
                joined => joined.map(|()| log).map_err(failed("join the PID namespace")),
            }
        });
        let log = match joined {
            Ok(log) => log,
            // An init that has failed by now is the reason for that, and knows its own.
            Err(error) => return Err(init.abandon().unwrap_or(error)),
        };
        process::prepare_directory(&body.exec_dir).map_err(failed("make the shim's directory"))?;
        let poller = Poller::new().map_err(failed("make the poller"))?;
        let listener = listen(&poller, &body.exec_dir).map_err(failed("listen on the shim's socket"))?;
        let mut streams = Streams::new(0, &poller, body.stdin_once, Some(log));
        if let Some(remote) = body.log.remote {
            let delivery =
                Delivery::new(&poller, remote, log_fds).map_err(failed("begin to send the log"))?;
            streams.deliver(delivery);
        }
        streams.connect(ends).map_err(failed("connect the streams"))?;
        streams.hold();
        let linux = body.launch.spec.linux().as_ref();
        let shim = Self {
            settings: Settings {
                cgroup: linux.and_then(|linux| linux.cgroups_path().clone()),
                id: body.launch.id,
                exec_dir: body.exec_dir,
                shares_pids,
            },
            poller,
            phase: Phase::Cloned(init),
            waiting: attached.into_iter().zip(body.attach).collect(),
            streams,
            told_lost: (0, None),
            memory: None,
            execs: BTreeMap::new(),
            next_exec: 1,
            exec_exits: VecDeque::new(),
            listener: Some(listener),
            connections: BTreeMap::new(),
            next_connection: 0,
            buffer: Vec::new(),
        };
        Ok((shim, body.launch.network == NetworkMode::FromSpec))
    }

    fn connect(&mut self, socket: OwnedFd, subscribed: bool) -> u32 {
        let id = self.next_connection;
        self.next_connection = self.next_connection.wrapping_add(1);
        if let Ok(connection) = Connection::new(&self.poller, socket, id, subscribed)
            && connection.is_permitted()
        {
            self.connections.insert(id, connection);
        }
        id
    }

    fn run(&mut self) {
        while !self.is_finished() {
            let Ok(events) = self.poller.wait(self.timeout()) else { return };
            let idle = events.is_empty();
            for (token, flags) in events {
                self.dispatch(token, flags);
                self.tell_detached();
            }
            self.connections.retain(|_, connection| !connection.is_broken());
            self.expire();
            self.abandon_if_alone();
            if idle {
                self.buffer = Vec::new();
            }
        }
    }

    fn dispatch(&mut self, token: Token, flags: Interest) {
        if self.buffer.is_empty()
            && !matches!(token, Token::Listener | Token::Connection(_) | Token::Delivery | Token::Memory)
        {
            self.buffer = vec![0; CHUNK];
        }
        match token {
            Token::Listener => self.accept(),
            Token::Connection(id) => self.serve(id, flags),
            Token::Process(0) => self.on_init_ended(),
            Token::Process(exec) => self.on_exec_ended(exec),
            Token::Output(process, index) => {
                self.with_streams(process, |streams, buffer| streams.on_output(index, buffer));
                self.on_outputs_ended(process);
            }
            Token::Delivery => self.with_streams(0, |streams, _| streams.on_delivery(flags)),
            Token::Memory => self.on_memory(),
            Token::Input(process) => self.with_streams(process, |streams, _| streams.on_input()),
            Token::Attachment(process, id) => {
                self.with_streams(process, |streams, buffer| streams.on_attachment(id, flags, buffer));
                self.end_if_left(process);
                self.on_outputs_ended(process);
            }
        }
    }

    /// Runs `work` on the streams of a process. A stream that the poller refuses is closed: the container goes on.
    fn with_streams(&mut self, process: u32, work: impl FnOnce(&mut Streams, &mut [u8]) -> io::Result<()>) {
        let streams = match process {
            0 => Some(&mut self.streams),
            exec => self.execs.get_mut(&exec).map(|exec| &mut exec.streams),
        };
        if let Some(streams) = streams
            && work(streams, &mut self.buffer).is_err()
        {
            let _ = streams.end_outputs();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(socket) = berth_sys::socket::accept(listener) {
            self.connect(socket, false);
        }
    }

    /// The soonest moment at which something is to be done without an event.
    fn timeout(&self) -> Option<Duration> {
        let phase = match &self.phase {
            Phase::Draining { until, .. } => Some(*until),
            // Once past, only connections that are attached still keep the shim.
            Phase::Leaving { until } => Some(*until).filter(|until| *until > Instant::now()),
            Phase::Exited { until, .. } => Some(*until).filter(|_| self.streams.is_held()),
            Phase::Cloned(_) | Phase::Running { .. } => None,
        };
        let execs = self.execs.values().filter_map(Exec::deadline);
        let soonest = execs.chain(phase).chain(self.streams.deadline()).min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }
}
