//! The daemon's side of a shim's socket.
//!
//! A [`ShimControl`] is a subscribed connection: it hears what happens, releases the container, and records its end. A
//! [`ShimClient`] asks for single things; each request has a connection of its own, so that none waits for another.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::launch::{ExecLaunch, Release, StartError};
use berth_sys::socket::{self, Message};
use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::{self, Packed};
use crate::protocol::{
    Event, ExecBody, ExitStatus, Fault, Hello, Incoming, Numbered, Reply, Request, SOCKET, Target, VERSION,
};
use crate::readiness;
use crate::spawner::Attach;

/// Longest wait for an answer: a shim answers at once, but for the start of a process.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("connect to {}", path.display())]
    Connect {
        /// The shim's socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("exchange messages with the shim")]
    Exchange(#[source] io::Error),
    /// The shim went away before it answered.
    #[error("the shim has gone")]
    Gone,
    /// It did not answer in time.
    #[error("the shim does not answer")]
    Silent,
    /// It answered something else than what was asked.
    #[error("the shim's answer does not belong to the question")]
    Confused,
    /// It refused.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a process was not added.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The process could not be started.
    #[error(transparent)]
    Failed(#[from] StartError),
    /// The shim could not be asked.
    #[error(transparent)]
    Shim(#[from] ClientError),
}

/// What a shim tells.
#[derive(Debug)]
pub enum ShimEvent {
    /// The container's namespaces exist; init waits to be released if its network is awaited.
    Cloned {
        /// Process ID of init.
        pid: i32,
        /// Descriptor of init.
        pidfd: OwnedFd,
        /// The container's network namespace, if its network is awaited.
        netns: Option<OwnedFd>,
    },
    /// The container's program runs.
    Started {
        /// Process ID of init.
        pid: i32,
        /// Since when.
        at: Timestamp,
        /// Descriptor of init, if one came along.
        pidfd: Option<OwnedFd>,
    },
    /// The container could not be started; the shim has gone.
    Failed(StartError),
    /// The container has ended, and its log is complete.
    Exited(ExitStatus),
    /// Log messages were lost.
    LogLost {
        /// So many since the container started.
        messages: u64,
    },
    /// An added process has ended.
    ExecExited {
        /// Its ID.
        exec: String,
        /// Its exit code.
        code: i32,
    },
    /// A client left by the keys for that.
    Detached {
        /// The process that it was attached to.
        target: Target,
    },
    /// The kernel lacks memory that the container wants, and kills.
    OutOfMemory,
}

/// A process to add.
#[derive(Debug)]
pub struct ExecRequest {
    /// Unique among the container's execs.
    pub id: String,
    /// The process.
    pub launch: ExecLaunch,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is a pipe even if nobody is attached to it.
    pub stdin_open: bool,
    /// A connection for its streams.
    pub attach: Option<Attach>,
    /// It is killed, with its process group, when that connection is gone, for whatever reason.
    pub ends_with_client: bool,
}

/// A connection on which requests are numbered.
#[derive(Debug)]
struct Line {
    socket: AsyncFd<OwnedFd>,
    next: u64,
}

impl Line {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: readiness::register(socket)?, next: 1 })
    }

    fn connect(directory: &Path) -> Result<Self, ClientError> {
        let path = directory.join(SOCKET);
        let failed = |source| ClientError::Connect { path: path.clone(), source };
        Self::new(socket::connect(&path).map_err(failed)?).map_err(failed)
    }

    async fn send(&mut self, request: &Request, fds: Vec<OwnedFd>) -> Result<u64, ClientError> {
        let number = self.next;
        self.next += 1;
        let packed = Packed::new(&Numbered { number, request }, fds).map_err(ClientError::Exchange)?;
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| packed.send(socket)).await;
        sent.map_err(|error| if is_gone(&error) { ClientError::Gone } else { ClientError::Exchange(error) })?;
        Ok(number)
    }

    async fn receive(&mut self) -> Result<Message, ClientError> {
        match self.socket.async_io(Interest::READABLE, |socket| channel::receive(socket)).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(ClientError::Gone),
            Err(error) if is_gone(&error) => Err(ClientError::Gone),
            Err(error) => Err(ClientError::Exchange(error)),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Asks a shim for single things. It holds no connection.
#[derive(Debug, Clone)]
pub struct ShimClient {
    directory: PathBuf,
}

impl ShimClient {
    /// Finds the shim that serves `exec_dir`, and agrees on a version.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens there.
    pub async fn connect(exec_dir: &Path) -> Result<Self, ClientError> {
        let client = Self { directory: exec_dir.to_owned() };
        client.hello().await?;
        Ok(client)
    }

    /// Who the shim is.
    ///
    /// # Errors
    /// As for every request: no connection, no answer, or a refusal.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        match self.ask(&Request::Hello { version: VERSION }, Vec::new()).await? {
            Reply::Hello(hello) => Ok(hello),
            other => Err(unexpected(other)),
        }
    }

    /// Hears what happens from now on, after what tells the present state.
    ///
    /// # Errors
    /// As for every request.
    pub async fn subscribe(&self) -> Result<ShimControl, ClientError> {
        let line = Line::connect(&self.directory)?;
        let mut control = ShimControl { line, directory: self.directory.clone(), events: VecDeque::new() };
        match control.ask(&Request::Subscribe).await? {
            Reply::Subscribed { .. } => Ok(control),
            other => Err(unexpected(other)),
        }
    }

    /// Gives a connection to a process.
    ///
    /// # Errors
    /// A fault if the process has ended.
    pub async fn attach(&self, target: Target, attach: Attach) -> Result<(), ClientError> {
        let (connection, options) = attach.split();
        self.perform(&Request::Attach { target, options }, vec![connection]).await
    }

    /// Adds a process; returns its process ID once its program runs.
    ///
    /// # Errors
    /// [`ExecError::Failed`] if the process could not be started.
    pub async fn exec(&self, request: ExecRequest) -> Result<i32, ExecError> {
        let ExecRequest { id, launch, tty, stdin_open, attach, ends_with_client } = request;
        let (connection, attach) = attach.map(Attach::split).unzip();
        let body = Box::new(ExecBody { id, launch, tty, stdin_open, attach, ends_with_client });
        match self.ask(&Request::Exec(body), connection.into_iter().collect()).await? {
            Reply::ExecStarted { pid } => Ok(pid),
            Reply::ExecFailed(error) => Err(error.into()),
            other => Err(unexpected(other).into()),
        }
    }

    /// The exit code of an added process; `None` while it runs.
    ///
    /// # Errors
    /// As for every request.
    pub async fn exec_exit(&self, id: &str) -> Result<Option<i32>, ClientError> {
        let line = Line::connect(&self.directory)?;
        let mut control = ShimControl { line, directory: self.directory.clone(), events: VecDeque::new() };
        let ask = async {
            match control.ask(&Request::Subscribe).await? {
                Reply::Subscribed { execs } if execs.iter().any(|(running, _)| running == id) => {
                    return Ok(None);
                }
                Reply::Subscribed { .. } => {}
                other => return Err(unexpected(other)),
            }
            // What has ended is told first of all.
            while let Some(event) = control.next_event().await {
                if let ShimEvent::ExecExited { exec, code } = event
                    && exec == id
                {
                    return Ok(Some(code));
                }
            }
            Err(ClientError::Gone)
        };
        tokio::time::timeout(PATIENCE, ask).await.map_err(|_| ClientError::Silent)?
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// A fault without a terminal.
    pub async fn resize(&self, target: Target, rows: u16, columns: u16) -> Result<(), ClientError> {
        self.perform(&Request::Resize { target, rows, columns }, Vec::new()).await
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// A fault if it has ended.
    pub async fn kill(&self, target: Target, signal: i32) -> Result<(), ClientError> {
        self.perform(&Request::Kill { target, signal }, Vec::new()).await
    }

    async fn perform(&self, request: &Request, fds: Vec<OwnedFd>) -> Result<(), ClientError> {
        match self.ask(request, fds).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn ask(&self, request: &Request, fds: Vec<OwnedFd>) -> Result<Reply, ClientError> {
        let mut line = Line::connect(&self.directory)?;
        let exchange = async {
            let sent = line.send(request, fds).await?;
            loop {
                if let Incoming::Reply { number, reply } = Incoming::parse(&line.receive().await?.bytes)
                    && number == sent
                {
                    return Ok(reply);
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| ClientError::Silent)?
    }
}

fn unexpected(reply: Reply) -> ClientError {
    match reply {
        Reply::Fault(fault) => fault.into(),
        _ => ClientError::Confused,
    }
}

/// A subscribed connection to one shim.
#[derive(Debug)]
pub struct ShimControl {
    line: Line,
    directory: PathBuf,
    /// Events that came while an answer was awaited.
    events: VecDeque<ShimEvent>,
}

impl ShimControl {
    /// The daemon's end of the connection that a new shim is launched with.
    pub(crate) fn launched(socket: OwnedFd, directory: PathBuf) -> io::Result<Self> {
        Ok(Self { line: Line::new(socket)?, directory, events: VecDeque::new() })
    }

    /// Asks the same shim for single things.
    #[must_use]
    pub fn client(&self) -> ShimClient {
        ShimClient { directory: self.directory.clone() }
    }

    /// The next event; `None` when the shim has gone.
    ///
    /// Cancel safe: an event is either returned or still to come.
    pub async fn next_event(&mut self) -> Option<ShimEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let message = match self.line.receive().await {
                Ok(message) => message,
                Err(ClientError::Gone) => return None,
                Err(error) => {
                    tracing::warn!(shim = %self.directory.display(), %error, "a shim's message is lost");
                    return None;
                }
            };
            if let Incoming::Event(event) = Incoming::parse(&message.bytes) {
                self.events.extend(with_descriptors(event, message.fds));
            }
        }
    }

    /// Lets the container's init go on, with its links in place.
    ///
    /// # Errors
    /// A fault if it has been released already.
    pub async fn release(&mut self, release: Release) -> Result<(), ClientError> {
        self.perform(&Request::Release(release)).await
    }

    /// Tells that the exit status is recorded; the shim leaves.
    ///
    /// # Errors
    /// A fault if the container has not ended.
    pub async fn recorded(mut self) -> Result<(), ClientError> {
        self.perform(&Request::Recorded).await
    }

    async fn perform(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let sent = self.line.send(request, Vec::new()).await?;
        loop {
            let receive = tokio::time::timeout(PATIENCE, self.line.receive());
            let message = receive.await.map_err(|_| ClientError::Silent)??;
            match Incoming::parse(&message.bytes) {
                Incoming::Reply { number, reply } if number == sent => return Ok(reply),
                Incoming::Event(event) => self.events.extend(with_descriptors(event, message.fds)),
                Incoming::Reply { .. } | Incoming::Unknown => {}
            }
        }
    }
}

/// Puts an event together with the descriptors that came beside it; nothing if those that it needs are missing.
fn with_descriptors(event: Event, fds: Vec<OwnedFd>) -> Option<ShimEvent> {
    let mut fds = fds.into_iter();
    Some(match event {
        Event::Cloned { pid } => ShimEvent::Cloned { pid, pidfd: fds.next()?, netns: fds.next() },
        Event::Started { pid, at } => ShimEvent::Started { pid, at, pidfd: fds.next() },
        Event::Failed(error) => ShimEvent::Failed(error),
        Event::Exited(status) => ShimEvent::Exited(status),
        Event::LogLost { messages } => ShimEvent::LogLost { messages },
        Event::ExecExited { exec, code } => ShimEvent::ExecExited { exec, code },
        Event::Detached { target } => ShimEvent::Detached { target },
        Event::OutOfMemory => ShimEvent::OutOfMemory,
    })
}

impl AsFd for ShimControl {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.line.socket.get_ref().as_fd()
    }
}
