//! The process itself: `berth __net <exec root>`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::forward::Forwarder;
use super::poller::{Interest, Kind, Poller};
use super::request::{Exchange, State};
use super::reservation::{self, Held, Refusal, Reservation};
use super::{Answer, LOCK, Request, SOCKET};
use crate::names::{self, Slots, Token};
use crate::{PortMapping, Wanted};

/// Descriptors that root lets this process have.
const DESCRIPTORS: u64 = 1 << 20;
/// Pause after a connection that could not be accepted.
const BREATH: Duration = Duration::from_millis(10);
/// Requests at a time.
const MAX_REQUESTS: usize = 256;

/// Runs the net process until it is told to stop. Arguments: program, `__net`, the exec root.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let Some(exec_root) = arguments.get(2).map(PathBuf::from) else {
        eprintln!("berth: the net process is started by the daemon, with its exec root");
        return ExitCode::from(2);
    };
    match serve(&exec_root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth: net process in {}: {error}", exec_root.display());
            ExitCode::FAILURE
        }
    }
}

fn serve(exec_root: &Path) -> io::Result<()> {
    // Its own session: a terminal's Ctrl-C is for others. Failure means that it leads one already.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    let lock =
        rustix::fs::open(exec_root.join(LOCK), OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(()); // Another one serves already.
    }
    raise_descriptors();
    let mut net = Net::new(exec_root)?;
    // What ran so far runs once; whatever does not work here costs memory only.
    let _ = berth_sys::memory::release_code();
    while !net.ended {
        net.turn()?;
    }
    let _ = fs::remove_file(exec_root.join(SOCKET));
    Ok(())
}

/// A name server has four descriptors, a published port one: as many as the kernel allows.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::Nofile);
    let maximum = old.maximum.map(|most| most.max(DESCRIPTORS));
    // Raising the maximum is root's privilege.
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum });
    }
}

/// Everything that the process holds.
struct Net {
    poller: Rc<Poller>,
    listener: UnixListener,
    requests: Slots<Exchange>,
    /// Reserved ports by container.
    ports: Held,
    /// Who carries what the firewall does not translate, once it is needed.
    forwarder: Forwarder,
    names: names::Server,
    ended: bool,
}

impl Net {
    fn new(exec_root: &Path) -> io::Result<Net> {
        let poller = Rc::new(Poller::new()?);
        let names = names::Server::new(poller.clone())?;
        let listener = listen(exec_root)?;
        poller.add(listener.as_fd(), Kind::Control, Token::from_bits(0), Interest::READ)?;
        let (requests, ports, forwarder) = (Slots::default(), Held::new(), Forwarder::default());
        Ok(Net { poller, listener, requests, ports, forwarder, names, ended: false })
    }

    /// Waits for something to happen and does what follows from it.
    fn turn(&mut self) -> io::Result<()> {
        let requests = self.requests.iter().map(|(_, request)| request.deadline).min();
        let deadline = requests.into_iter().chain(self.names.deadline()).min();
        for (kind, token) in self.poller.wait(deadline)? {
            match kind {
                Kind::Control => self.accept(),
                Kind::Request => self.progress(token),
                other => self.names.ready(other, token),
            }
        }
        let now = names::now();
        self.names.expire(now);
        let late = self.requests.iter().filter(|(_, request)| request.deadline <= now);
        let late: Vec<Token> = late.map(|(token, _)| token).collect();
        late.into_iter().for_each(|token| drop(self.requests.remove(token)));
        Ok(())
    }

    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if is_passing(&error) => return,
            // No memory or descriptor for it now; what is served goes on.
            Err(_) => return std::thread::sleep(BREATH),
        };
        if self.requests.len() >= MAX_REQUESTS {
            return;
        }
        let Ok(exchange) = Exchange::new(stream, names::now()) else { return };
        let token = self.requests.insert(exchange);
        let polled = |exchange: &Exchange| {
            self.poller.add(exchange.stream.as_fd(), Kind::Request, token, Interest::READ).is_ok()
        };
        if !self.requests.get(token).is_some_and(polled) {
            self.requests.remove(token);
        }
    }

    fn progress(&mut self, token: Token) {
        let Some(exchange) = self.requests.get_mut(token) else { return };
        let mut state = exchange.progress();
        if let State::Asked(body, fds) = state {
            let answer = match serde_json::from_slice(&body) {
                Ok(request) => self.handle(request, fds),
                Err(error) => Answer::Unknown(error.to_string()),
            };
            let answer = serde_json::to_vec(&answer).unwrap_or_default();
            let Some(exchange) = self.requests.get_mut(token) else { return };
            state = exchange.answer(answer);
            let wanted = Interest { read: false, write: true };
            if self.poller.change(exchange.stream.as_fd(), Kind::Request, token, wanted).is_err() {
                state = State::Over;
            }
        }
        if let State::Over = state {
            self.requests.remove(token);
        }
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Reserve { owner, wanted } => self.reserve(&owner, &wanted),
            Request::Release { owner } => {
                self.ports.remove(&owner);
                self.forwarder.settle();
                Answer::Done
            }
            Request::List => {
                let list = self.ports.iter().map(|(owner, all)| (owner.clone(), mappings(all))).collect();
                Answer::Held(list)
            }
            Request::Names { version, changes } => match self.names.apply(version, changes, fds) {
                Ok(()) => Answer::Done,
                Err(refused) => Answer::NamesRefused(refused),
            },
            Request::NamesHeld => Answer::NamesHeld(self.names.holdings()),
            Request::Stop => {
                self.ended = self.ports.is_empty() && self.names.is_idle();
                Answer::Done
            }
        }
    }

    fn reserve(&mut self, owner: &str, wanted: &[Wanted]) -> Answer {
        let outcome = reservation::reserve(owner, wanted, &mut self.ports, &mut self.forwarder);
        self.forwarder.settle();
        match outcome {
            Ok(settled) => Answer::Reserved(settled),
            Err(Refusal::Taken(port)) => Answer::Taken { port },
            Err(Refusal::Failed(port, errno)) => Answer::Refused { port, errno },
        }
    }
}

/// Whether an error of accept(2) is about one connection, or passes by itself.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
    )
}

fn listen(exec_root: &Path) -> io::Result<UnixListener> {
    let directory =
        rustix::fs::open(exec_root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // By way of the descriptor: an exec root may be longer than a socket's address (unix(7)).
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let old = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(old);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn mappings(reservations: &[Reservation]) -> Vec<PortMapping> {
    reservations.iter().map(|r| r.mapping.clone()).collect()
}
