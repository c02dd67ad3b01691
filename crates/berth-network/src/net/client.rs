//! The daemon's side of the net process.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{Answer, MESSAGE_LIMIT, Request, SOCKET};
use crate::{Error, PortMapping, Wanted};

const EADDRINUSE: i32 = 98;
const EADDRNOTAVAIL: i32 = 99;
/// A net process that answers nothing for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// Talks to the net process of one exec root and starts it when it is first needed, or needed again.
///
/// Calls block for a round trip (0.1 ms), or for the start of the process: async callers use a blocking task.
pub struct NetClient {
    exec_root: PathBuf,
    program: Vec<OsString>,
    child: Mutex<Option<Child>>,
}

impl NetClient {
    /// A client; nothing is started yet. `program` is what to execute, with its first arguments, to reach
    /// [`super::main`]: normally `/proc/self/exe __net`.
    pub fn new(exec_root: &Path, program: Vec<OsString>) -> NetClient {
        NetClient { exec_root: exec_root.into(), program, child: Mutex::new(None) }
    }

    /// Lets a container hold these ports and no others, and returns them with the host's ports settled: all, or what it
    /// held before. What it holds already is kept without a gap.
    pub fn reserve(&self, owner: &str, wanted: &[Wanted]) -> Result<Vec<PortMapping>, Error> {
        let request = Request::Reserve { owner: owner.into(), wanted: wanted.to_vec() };
        match self.ask_or_start(&request)? {
            Answer::Reserved(settled) => Ok(settled),
            Answer::Taken { port } => {
                Err(Error::PortInUse { address: port.host_address, port: port.host_port })
            }
            Answer::Refused { port, errno } => Err(Error::PortRefused {
                protocol: port.protocol,
                address: SocketAddr::new(port.host_address, port.host_port),
                why: match errno {
                    EADDRINUSE => "address already in use".into(),
                    EADDRNOTAVAIL => "cannot assign requested address".into(),
                    errno => io::Error::from_raw_os_error(errno).to_string(),
                },
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives back what a container holds; without a net process there is nothing to give back.
    pub fn release(&self, owner: &str) -> Result<(), Error> {
        match self.ask(&Request::Release { owner: owner.into() }) {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(source) => Err(Error::NetProcess { operation: "release ports", source }),
        }
    }

    /// Who holds which ports; empty without a net process.
    pub fn list(&self) -> Result<Vec<(String, Vec<PortMapping>)>, Error> {
        match self.ask(&Request::List) {
            Ok(Answer::Held(list)) => Ok(list),
            Ok(other) => Err(unexpected(&other)),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(source) => Err(Error::NetProcess { operation: "list ports", source }),
        }
    }

    /// Whether a net process answers.
    pub fn is_running(&self) -> bool {
        self.ask(&Request::List).is_ok()
    }

    /// A pidfd of the net process, which becomes readable when it ends.
    pub fn process(&self) -> io::Result<OwnedFd> {
        let connection = self.connect()?;
        // Of a connection, the credentials are those of the process that listens (unix(7)).
        let peer = rustix::net::sockopt::socket_peercred(&connection)?;
        Ok(rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::NONBLOCK)?)
    }

    /// Ends the net process if it holds nothing.
    pub fn stop_if_idle(&self) {
        // Whether it was there at all does not matter.
        let _ = self.ask(&Request::Stop);
    }

    fn ask_or_start(&self, request: &Request) -> Result<Answer, Error> {
        let absent = || Error::NetProcess { operation: "start", source: io::ErrorKind::NotConnected.into() };
        self.exchange(request, &[], true)?.ok_or_else(absent)
    }

    /// Asks, with descriptors. Without a net process one is started first, or else there is no answer.
    pub(crate) fn exchange(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        start: bool,
    ) -> Result<Option<Answer>, Error> {
        match self.ask_with(request, fds) {
            Err(error) if is_absent(&error) && !start => return Ok(None),
            Err(error) if is_absent(&error) => {}
            other => return other.map(Some).map_err(|source| Error::NetProcess { operation: "ask", source }),
        }
        self.start().map_err(|source| Error::NetProcess { operation: "start", source })?;
        let answer = self.ask_with(request, fds);
        answer.map(Some).map_err(|source| Error::NetProcess { operation: "ask after the start", source })
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let directory = rustix::fs::open(
            &self.exec_root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
    }

    fn ask(&self, request: &Request) -> io::Result<Answer> {
        self.ask_with(request, &[])
    }

    fn ask_with(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let mut connection = self.connect()?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        let body = serde_json::to_vec(request)?;
        let sent = send_with(&connection, &body, fds)?;
        connection.write_all(body.get(sent..).unwrap_or_default())?;
        connection.shutdown(Shutdown::Write)?;
        let mut body = Vec::new();
        connection.take(MESSAGE_LIMIT).read_to_end(&mut body)?;
        if body.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Executes the process and waits until its socket is there.
    fn start(&self) -> io::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = child.as_mut() {
            old.try_wait()?; // Reaps one that died.
        }
        let ready = Watch::new(&self.exec_root)?;
        let (program, arguments) = self.program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.exec_root).arg0("berth").env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        *child = Some(command.spawn()?);
        drop(child);
        ready.wait(|| self.is_running())
    }
}

/// Sends the beginning of a message with descriptors; returns how much of it.
fn send_with(connection: &UnixStream, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.is_empty() {
        return Ok(0);
    }
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::net::sendmsg(connection, &[IoSlice::new(body)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Wakes when something appears in a directory.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn new(directory: &Path) -> io::Result<Watch> {
        use rustix::fs::inotify;
        fs::create_dir_all(directory)?;
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB)?;
        Ok(Watch(watch))
    }

    fn wait(&self, done: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Between bind and listen no event comes: look again soon.
            let step = left.min(Duration::from_millis(2));
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(step.subsec_nanos()) };
            let mut interest = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut interest, Some(&timeout))?;
            let mut buffer = [0u8; 4096];
            while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
        }
        Ok(())
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

pub(crate) fn unexpected(answer: &Answer) -> Error {
    let source = io::Error::other(format!("unexpected answer {answer:?}"));
    Error::NetProcess { operation: "ask", source }
}
