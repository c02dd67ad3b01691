//! The process that forks shims, and the daemon's handle of it.
//!
//! Forking a threaded process is slow and unsafe, so the daemon never does. It executes a sealed copy of its own binary
//! (CVE-2019-5736) as a spawner, which has one thread, a minimal mount namespace, and only forks. The spawner
//! ends with its daemon; shims do not. Killed, it is executed again by the next launch.

mod handle;
mod namespace;
mod process;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_runtime::launch::Launch;
use serde::{Deserialize, Serialize};

pub use handle::{Spawner, SpawnerError};
pub use process::main;

use crate::log::Plan;
use crate::protocol::{AttachOptions, Framing};

/// The argument by which the binary knows that it is to be the spawner.
pub const ARGUMENT: &str = "__spawner";

/// A connection to attach to a process: what comes in is its input, its output goes out.
#[derive(Debug)]
pub struct Attach {
    /// A stream socket, given away.
    pub connection: OwnedFd,
    /// Input that was read from it already.
    pub prefix: Vec<u8>,
    /// Input goes to the process.
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

impl Attach {
    pub(crate) fn split(self) -> (OwnedFd, AttachOptions) {
        let Self { connection, prefix, stdin, stdout, stderr, framing, detach_keys } = self;
        (connection, AttachOptions { prefix, stdin, stdout, stderr, framing, detach_keys })
    }
}

/// A container to launch.
#[derive(Debug)]
pub struct LaunchRequest {
    /// What the runtime makes.
    pub launch: Launch,
    /// The launch's own descriptors (see [`Launch::mount_fds`]).
    pub fds: Vec<OwnedFd>,
    /// The shim's directory; made (0700) if it is missing.
    pub exec_dir: PathBuf,
    /// Where the container's output is kept.
    pub log: Plan,
    /// What the log's plan announces beside it.
    pub log_fds: Vec<OwnedFd>,
    /// Standard input is a pipe, not `/dev/null`.
    pub stdin_open: bool,
    /// The first client that ends its input closes the container's.
    pub stdin_once: bool,
    /// The container has a terminal.
    pub tty: bool,
    /// Connections that are attached before the first byte.
    pub attach: Vec<Attach>,
}

/// What the spawner is told first.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Setup {
    /// Directories that shims and containers need by name.
    directories: Vec<PathBuf>,
    /// A cgroup, absolute below each hierarchy, to move to: out of the daemon's own, which may be killed as a whole.
    cgroup: Option<String>,
}
