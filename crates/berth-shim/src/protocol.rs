//! What daemon and shim say to each other, version 1.
//!
//! Requests and replies are JSON, one per message, over `SOCK_SEQPACKET`. A shim lives as long as its container, so a
//! newer daemon meets older shims: what a shim does not know it answers with [`FaultKind::UnknownRequest`], what a daemon
//! does not know of a newer shim's events it ignores, and unknown fields are ignored on both sides.

use std::path::PathBuf;

use berth_runtime::launch::{ExecLaunch, Launch, Release, StartError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::log::Plan;

/// The newest version that this code speaks.
pub const VERSION: u32 = 1;

/// A file below the exec directory of a container: where its shim listens.
pub const SOCKET: &str = "shim.sock";
/// A file below the exec directory of a container: its [`ExitStatus`], until a daemon has recorded it.
pub const EXIT: &str = "exit";

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Process ID of the container's init, in the host's PID namespace.
    pub pid: i32,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// When it ended.
    pub at: Timestamp,
    /// What went wrong beside, such as the shim's death.
    pub error: Option<String>,
}

/// Which process of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The first process.
    Init,
    /// A process that was added, by the ID of its [`ExecBody`].
    Exec(String),
}

/// How output is put on an attached connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// As it is.
    Raw,
    /// In Docker's frames: stream, three zero bytes, length as big-endian `u32`.
    Multiplexed,
}

/// What an attached connection is for; the connection itself travels beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOptions {
    /// Input that was read from the connection already.
    pub prefix: Vec<u8>,
    /// What comes in goes to the process's standard input.
    pub stdin: bool,
    /// Standard output goes out.
    pub stdout: bool,
    /// Standard error goes out.
    pub stderr: bool,
    /// How output is framed.
    pub framing: Framing,
    /// With a terminal, this sequence in the input ends the connection; none if empty.
    pub detach_keys: Vec<u8>,
}

/// A process to add to a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecBody {
    /// Unique among the container's execs.
    pub id: String,
    /// The process.
    pub launch: ExecLaunch,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is a pipe even if nobody is attached to it.
    pub stdin_open: bool,
    /// With a connection beside it, how that is attached.
    pub attach: Option<AttachOptions>,
    /// It is killed when that connection is gone.
    #[serde(default)]
    pub ends_with_client: bool,
}

/// Everything a new shim is told, in a sealed memfd.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchBody {
    pub(crate) launch: Launch,
    pub(crate) exec_dir: PathBuf,
    pub(crate) log: Plan,
    /// Descriptors for the log, which come after the attached connections.
    pub(crate) log_fds: usize,
    pub(crate) stdin_open: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) attach: Vec<AttachOptions>,
}

/// What the spawner reads; beside it come the memfd of a [`LaunchBody`], the shim's first connection, the attached
/// connections and the descriptors of the launch, in as many messages as needed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchHeader {
    pub(crate) version: u32,
    /// Which launch the message belongs to.
    pub(crate) launch: u64,
    /// Descriptors in all messages of this launch.
    pub(crate) descriptors: usize,
}

/// One request of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Agree on a version: the client's newest.
    Hello {
        /// The newest version that the client speaks.
        version: u32,
    },
    /// Send events on this connection from now on, after those that tell the present state.
    Subscribe,
    /// Let the container's init go on.
    Release(Release),
    /// The exit status is recorded; the shim may leave.
    Recorded,
    /// Attach the connection beside this message.
    Attach {
        /// To which process.
        target: Target,
        /// How.
        options: AttachOptions,
    },
    /// Start another process. Its end is told on this connection as well.
    Exec(Box<ExecBody>),
    /// Set a terminal's size.
    Resize {
        /// Of which process.
        target: Target,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Send a signal.
    Kill {
        /// To which process.
        target: Target,
        /// Which signal, by number.
        signal: i32,
    },
}

/// What a shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Subscribe`].
    Subscribed {
        /// The processes that were added and still run, with their process IDs.
        execs: Vec<(String, i32)>,
    },
    /// To [`Request::Exec`]: the process runs.
    ExecStarted {
        /// Its process ID, in the host's PID namespace.
        pid: i32,
    },
    /// To [`Request::Exec`]: the process could not be started.
    ExecFailed(StartError),
    /// It is not done.
    Fault(Fault),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that both speak.
    pub version: u32,
    /// The container's ID.
    pub id: String,
    /// The shim's process ID, in the host's PID namespace.
    pub pid: i32,
}

/// Why a shim did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// What happened to which object.
    pub message: String,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// This shim does not know the request (it is older), or cannot read it.
    UnknownRequest,
    /// No such process, or it has ended.
    NotFound,
    /// The container is not in the state for it: not started yet, started already, or ended.
    WrongState,
    /// A system call failed.
    System,
    /// A kind that only newer shims know.
    #[serde(other)]
    Other,
}

/// What a shim tells its subscribers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The container's namespaces exist; beside it come its init's pidfd and network namespace.
    Cloned {
        /// Process ID of init, in the host's PID namespace.
        pid: i32,
    },
    /// The container's program runs; beside it comes its init's pidfd.
    Started {
        /// Process ID of init, in the host's PID namespace.
        pid: i32,
        /// Since when.
        at: Timestamp,
    },
    /// The container could not be started; the shim leaves.
    Failed(StartError),
    /// The container has ended, and its log is complete.
    Exited(ExitStatus),
    /// Log messages found no room, where the container does not wait for it.
    LogLost {
        /// So many since the container started.
        messages: u64,
    },
    /// An added process has ended.
    ExecExited {
        /// Its ID.
        exec: String,
        /// Its exit code; 128 + n after signal n.
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

/// A request with the number by which its reply is known.
#[derive(Debug, Serialize)]
pub(crate) struct Numbered<'a> {
    pub(crate) number: u64,
    pub(crate) request: &'a Request,
}

/// A request as received: the number is understood even if the request is not.
#[derive(Debug, Deserialize)]
pub(crate) struct NumberedRaw<'a> {
    pub(crate) number: u64,
    #[serde(borrow)]
    pub(crate) request: &'a RawValue,
}

/// What a shim sends.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outgoing<'a> {
    Reply { number: u64, reply: &'a Reply },
    Event(&'a Event),
}

/// What a daemon understands of it.
#[derive(Debug)]
pub(crate) enum Incoming {
    Reply {
        number: u64,
        reply: Reply,
    },
    Event(Event),
    /// A newer shim's.
    Unknown,
}

impl Incoming {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Owned {
            Reply { number: u64, reply: Reply },
            Event(Event),
        }
        match serde_json::from_slice(bytes) {
            Ok(Owned::Reply { number, reply }) => Self::Reply { number, reply },
            Ok(Owned::Event(event)) => Self::Event(event),
            Err(_) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_newer_shims_are_ignored() {
        assert!(matches!(Incoming::parse(br#"{"event":{"migrated":{"to":"x"}}}"#), Incoming::Unknown));
        let known = br#"{"event":{"exec_exited":{"exec":"a","code":1,"new":true}}}"#;
        let Incoming::Event(Event::ExecExited { exec, code: 1 }) = Incoming::parse(known) else {
            panic!("known event with an unknown field")
        };
        assert_eq!(exec, "a");
    }

    #[test]
    fn unknown_fault_kinds_are_kept_as_other() {
        let fault: Fault = serde_json::from_str(r#"{"kind":"moon_phase","message":"m"}"#).unwrap();
        assert_eq!(fault.kind, FaultKind::Other);
    }

    #[test]
    fn the_number_of_an_unknown_request_is_understood() {
        let raw: NumberedRaw<'_> = serde_json::from_str(r#"{"number":4,"request":{"fly":{}}}"#).unwrap();
        assert_eq!(raw.number, 4);
        assert!(serde_json::from_str::<Request>(raw.request.get()).is_err());
    }
}
