//! The operations that clients can ask for, as validated values.
//!
//! Wire types end here: [`CreateContainer::parse`] and its like turn them into closed values once, and refuse what makes no
//! sense in Docker's words.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::container::{Config, HostConfig, UpdateRequest};
use berth_api::filter::Filters;
use berth_api::network::EndpointSettings;
use berth_oci::{Platform, Reference};
use jiff::Timestamp;

use crate::Error;
use crate::build::LentMount;

/// A container to create.
#[derive(Debug, Clone)]
pub struct CreateContainer {
    /// The name without a slash; `None` for a random one.
    pub name: Option<String>,
    /// The platform asked for, such as `linux/amd64`.
    pub platform: Option<String>,
    /// What the process is.
    pub config: Config,
    /// What the host gives it.
    pub host_config: HostConfig,
    /// What it is to have on networks, by what the user called them.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Whether what is mounted below a read-only bind stays writable, as clients before 1.44 expect.
    pub read_only_top: bool,
    /// What is mounted for its one run by whoever creates it, and kept on no record.
    pub lent: Vec<LentMount>,
}

/// Stops a container: its stop signal, then SIGKILL.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Instead of the container's own stop signal, by name or number.
    pub signal: Option<String>,
    /// How long to wait before SIGKILL: `None` for the container's own (10 s), negative for ever, in seconds.
    pub timeout: Option<i64>,
}

/// Removes a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Remove {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// What [`Engine::wait`](crate::Engine::wait) waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// The container does not run, now or later.
    #[default]
    NotRunning,
    /// The container exits after now, even if it was not started yet.
    NextExit,
    /// The container is removed.
    Removed,
}

impl WaitCondition {
    /// Reads the query parameter; empty is the default.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "not-running" => Ok(WaitCondition::NotRunning),
            "next-exit" => Ok(WaitCondition::NextExit),
            "removed" => Ok(WaitCondition::Removed),
            other => Err(Error::InvalidParameter(format!("invalid condition: \"{other}\""))),
        }
    }
}

/// Attaches a connection to a container's streams.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    /// Replay what was logged so far first.
    pub logs: bool,
    /// Stay attached to the running streams.
    pub stream: bool,
    /// The connection's input goes to the process.
    pub stdin: bool,
    /// The process's output comes to the connection.
    pub stdout: bool,
    /// The process's error output comes to the connection.
    pub stderr: bool,
    /// Keys that detach, in Docker's notation (`ctrl-p,ctrl-q`); `None` for the default.
    pub detach_keys: Option<String>,
    /// The streams come as they are, without frames that tell them apart, as those of a terminal do anyway.
    pub raw: bool,
}

/// Reads a container's log.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// Stay until the container ends.
    pub follow: bool,
    /// Include the output.
    pub stdout: bool,
    /// Include the error output.
    pub stderr: bool,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
    /// Nothing younger than this.
    pub until: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Put the attributes that the log driver was asked for before each line.
    pub details: bool,
    /// Only so many lines of the end; `None` for all.
    pub tail: Option<u64>,
}

/// Which containers [`Engine::list`](crate::Engine::list) shows.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Also those that do not run.
    pub all: bool,
    /// The last created so many, running or not.
    pub limit: Option<usize>,
    /// Include sizes of the writable layer.
    pub size: bool,
    /// What must hold.
    pub filters: Filters,
}

/// Which kinds of objects [`Engine::disk_usage`](crate::Engine::disk_usage) measures.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskUsage {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
    /// What builders keep.
    pub build_cache: bool,
}

/// What is removed of what builders keep.
#[derive(Debug, Clone, Default)]
pub struct CachePrune {
    /// Also compressed layers, and steps whose images are more than cache.
    pub all: bool,
    /// How much stays.
    pub bounds: CacheBounds,
    /// Which.
    pub filters: Filters,
}

/// How much of what builders keep stays, in bytes, as BuildKit has it; all zero for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheBounds {
    /// So much stays in any case.
    pub reserved: u64,
    /// No more than this stays; zero for any amount.
    pub max_used: u64,
    /// No more stays than leaves so much of the file system free.
    pub min_free: u64,
}

/// Which images a list shows, and what of them.
#[derive(Debug, Clone, Default)]
pub struct ImageList {
    /// Also those without a name from which others were made.
    pub all: bool,
    /// Which.
    pub filters: Filters,
    /// How many bytes each shares with others.
    pub shared_size: bool,
    /// All that their names point to: platforms, and notes about them.
    pub manifests: bool,
}

/// How an image is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRemove {
    /// Also with several names, or used by containers that do not run.
    pub force: bool,
    /// Keep parents that have no name.
    pub keep_parents: bool,
}

/// A process to run in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecCreate {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Connect its input.
    pub stdin: bool,
    /// Connect its output.
    pub stdout: bool,
    /// Connect its error output.
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// The terminal's first size: rows, columns.
    pub size: Option<(u16, u16)>,
    /// Keys that detach.
    pub detach_keys: Option<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Instead of the container's working directory.
    pub working_dir: Option<String>,
    /// Instead of the container's user.
    pub user: Option<String>,
    /// All capabilities.
    pub privileged: bool,
}

/// How an exec instance is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    /// Connect nothing and return once it runs.
    pub detach: bool,
    /// Whether the client expects a terminal; it must match the instance's.
    pub tty: bool,
    /// The terminal's first size: rows, columns.
    pub size: Option<(u16, u16)>,
}

/// Gives a container other limits, or another restart policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// What is to change; zero, nothing and an empty name leave things as they are.
    pub changes: UpdateRequest,
}

impl Update {
    /// Reads a request. As in Docker, zero and everything below take a limit of processes away.
    pub fn parse(mut changes: UpdateRequest) -> Self {
        changes.pids_limit = changes.pids_limit.map(|limit| limit.max(0));
        Self { changes }
    }
}

/// Makes an image of a container.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The container.
    pub container: String,
    /// The name that the image gets, if any.
    pub name: Option<Reference>,
    /// For the image's history.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// What the image's containers are by default; what it leaves open is the container's.
    pub config: Option<Config>,
    /// Instructions that change this.
    pub changes: Vec<String>,
}

/// Unpacks an archive into a directory of a container.
#[derive(Debug, Clone, Default)]
pub struct Extract {
    /// The directory.
    pub path: String,
    /// Whether the files are to belong to the container's user, if it has one, instead of whom the archive names.
    pub own: bool,
    /// Whether a file may take the place of a directory, and a directory that of a file.
    pub replace: bool,
}

/// Makes an image of an archive of files.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The name that the image gets, if any.
    pub name: Option<Reference>,
    /// For the image's history.
    pub message: String,
    /// Instructions that say what its containers are by default.
    pub changes: Vec<String>,
    /// What it is made for; `None` for this machine.
    pub platform: Option<Platform>,
}

/// Reads the name of a new image from two query parameters; none if there is no repository.
pub fn new_image_name(repository: &str, tag: &str) -> Result<Option<Reference>, Error> {
    if repository.is_empty() {
        return Ok(None);
    }
    let invalid = |error: berth_oci::reference::ReferenceError| Error::InvalidParameter(error.to_string());
    let name: Reference = repository.parse().map_err(invalid)?;
    if name.digest().is_some() {
        return Err(Error::InvalidParameter("cannot import digest reference".into()));
    }
    let name = if tag.is_empty() { name.with_default_tag() } else { name.tagged(tag).map_err(invalid)? };
    Ok(Some(name))
}

/// Which events [`Engine::events`](crate::Engine::events) gives.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// Replay from then on, as far as the engine remembers.
    pub since: Option<Timestamp>,
    /// End then.
    pub until: Option<Timestamp>,
    /// What must hold.
    pub filters: Filters,
}

/// How long to wait for a container to stop, from seconds on the wire.
pub(crate) fn stop_timeout(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs)
}
