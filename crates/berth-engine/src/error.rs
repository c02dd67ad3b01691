//! What an operation can fail with, in the words that Docker's clients match on.

use crate::create::mounts::MountPlan;

/// How an error is to be answered; `berth-server` maps each kind to one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object does not exist (404).
    NotFound,
    /// The request makes no sense (400).
    InvalidParameter,
    /// The object's state or another object is in the way (409).
    Conflict,
    /// What was asked for is so already (304).
    NotModified,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// The operation is not allowed (403).
    Forbidden,
    /// Something needed is not there now; a later attempt may succeed (503).
    Unavailable,
    /// Nothing here can do that (501).
    NotImplemented,
    /// The engine, the kernel or the disk failed (500).
    System,
}

/// An operation of the engine that failed. The text is Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this name or ID.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// Several containers' IDs begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// No image has this name or ID.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A container has no such file.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchFile {
        /// The path that was asked for.
        path: String,
        /// The container, as it was asked for.
        container: String,
    },
    /// A container's files are not as the request has them, in the words of Docker's daemon.
    #[error("{0}")]
    Files(String),
    /// No exec instance has this ID.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No network has this name or ID.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// Two mounts are to be at the same place of a container.
    #[error("Duplicate mount point: {destination}")]
    DuplicateMount {
        /// The place.
        destination: String,
        /// What was asked for before the second of the two, the first among them.
        earlier: Vec<MountPlan>,
    },
    /// A volume was to be made by a driver that is not there.
    #[error("create {name}: error looking up volume plugin {driver}: {reason}")]
    NoSuchVolumeDriver {
        /// The volume.
        name: String,
        /// The driver.
        driver: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// A path within a volume or an image is not there.
    #[error("{0}")]
    NoSuchSubpath(String),
    /// A volume could not be mounted.
    #[error("{0}")]
    Volume(String),
    /// A container is to leave a network that it is not on.
    #[error("container {container} is not connected to {}", named(network))]
    NotConnected {
        /// The container's ID.
        container: String,
        /// The network, with an article if the container does not run.
        network: String,
    },
    /// Something else is not there, in these words.
    #[error("{0}")]
    NotFound(String),
    /// The name does not follow the rules for names.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The name without its slash.
        name: String,
        /// The ID of its owner.
        id: String,
    },
    /// A container cannot have the name that it was to be given.
    #[error("Error when allocating new name: {0}")]
    NewName(#[source] Box<Error>),
    /// The operation needs a running container.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The operation does not work on a paused container; the text says which.
    #[error("{0}")]
    Paused(String),
    /// The container's state is in the way.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense.
    #[error("{0}")]
    InvalidParameter(String),
    /// What was asked for is so already.
    #[error("{0}")]
    NotModified(String),
    /// A registry does not take the credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Nothing here can do that.
    #[error("{0} is not supported")]
    NotImplemented(String),
    /// The container's log is kept nowhere that it could be read from.
    #[error("configured logging driver does not support reading")]
    UnreadableLog,
    /// A container's log could not be begun.
    #[error("failed to create task for container: failed to initialize logging driver: {0}")]
    LogDriver(String),
    /// A container asks for a runtime that is not Berth's own.
    #[error("failed to create task for container: {0}")]
    Runtime(String),
    /// The engine is ending, or a part of it is being started again.
    #[error("{0}")]
    Unavailable(String),
    /// A plugin that keeps networks or addresses refused, or is away.
    #[error(transparent)]
    NetworkPlugin(crate::plugin::PluginError),
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried on which object.
        operation: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A record of the engine's own could not be read.
    #[error("{what}: {source}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A container did not start.
    #[error("{}", .0.docker_message())]
    Start(#[from] berth_runtime::launch::StartError),
    /// The data root could not be read or written.
    #[error("{}", chain(.0))]
    Storage(#[from] berth_storage::Error),
    /// A container's files could not be read.
    #[error("{}", chain(.0))]
    Archive(#[from] berth_archive::Error),
    /// The host's side of a network failed.
    #[error(transparent)]
    Network(#[from] berth_network::Error),
    /// A container's network could not be set up.
    #[error("failed to set up container networking: {0}")]
    Connect(#[source] Box<Error>),
    /// What a container has a link to cannot be reached by it.
    #[error("{0}")]
    Link(String),
    /// The PID namespace of another container could not be joined; what is wrong is not the request to start.
    #[error("failed to join PID namespace: {0}")]
    JoinPid(#[source] Box<Error>),
    /// A cgroup could not be changed or read.
    #[error(transparent)]
    Cgroup(#[from] berth_runtime::cgroup::Error),
    /// No shim could be started.
    #[error(transparent)]
    Spawner(#[from] berth_shim::spawner::SpawnerError),
    /// A shim did not answer, or refused.
    #[error("container's shim: {}", chain(.0))]
    Shim(#[from] berth_shim::client::ClientError),
    /// An image could not be found, read or changed.
    #[error(transparent)]
    Image(#[from] berth_image::Error),
    /// A Dockerfile makes no sense.
    #[error(transparent)]
    Build(#[from] berth_build::Error),
    /// A program of a build failed.
    #[error("{message}")]
    Step {
        /// In Docker's words.
        message: String,
        /// Its exit code.
        code: i32,
    },
    /// A container could not be given other limits.
    #[error("Cannot update container {id}: {source}")]
    Update {
        /// Its ID.
        id: String,
        /// Why.
        source: Box<Error>,
    },
    /// A step failed, and so did some of what was to undo the steps before it.
    #[error("{first}; while undoing it: {}", .undo.join("; "))]
    Unwound {
        /// The first failure.
        first: Box<Error>,
        /// What failed on the way back.
        undo: Vec<String>,
    },
}

impl Error {
    /// The container is between two runs of its restart policy.
    pub(crate) fn restarting(id: &str) -> Error {
        Error::Conflict(format!("Container {id} is restarting, wait until the container is running"))
    }

    /// How the error is to be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoSuchContainer(_)
            | Error::NoSuchImage(_)
            | Error::NoSuchFile { .. }
            | Error::NoSuchExec(_)
            | Error::NoSuchVolume(_)
            | Error::NoSuchVolumeDriver { .. }
            | Error::NoSuchSubpath(_)
            | Error::NoSuchNetwork(_)
            | Error::NotFound(_) => ErrorKind::NotFound,
            Error::AmbiguousId(_)
            | Error::InvalidName(_)
            | Error::InvalidParameter(_)
            | Error::DuplicateMount { .. }
            | Error::Build(_) => ErrorKind::InvalidParameter,
            Error::NameInUse { .. } | Error::NotRunning(_) | Error::Paused(_) | Error::Conflict(_) => {
                ErrorKind::Conflict
            }
            Error::NotModified(_) => ErrorKind::NotModified,
            Error::Unauthorized(_) => ErrorKind::Unauthorized,
            Error::Forbidden(_) => ErrorKind::Forbidden,
            Error::NotImplemented(_) | Error::UnreadableLog => ErrorKind::NotImplemented,
            Error::Unavailable(_) => ErrorKind::Unavailable,
            Error::Image(error) => match error.kind() {
                berth_image::ErrorKind::NotFound | berth_image::ErrorKind::Denied => ErrorKind::NotFound,
                berth_image::ErrorKind::Invalid => ErrorKind::InvalidParameter,
                berth_image::ErrorKind::Conflict => ErrorKind::Conflict,
                berth_image::ErrorKind::System => ErrorKind::System,
            },
            Error::Cgroup(error) if error.is_about_a_value() => ErrorKind::InvalidParameter,
            // Docker blames the request for a program that is not there or cannot be executed.
            Error::Start(error) if error.exit_code() != 125 => ErrorKind::InvalidParameter,
            Error::Storage(berth_storage::Error::RootInUse { .. }) => ErrorKind::Unavailable,
            Error::Start(_)
            | Error::Storage(_)
            | Error::Archive(_)
            | Error::Files(_)
            | Error::Volume(_)
            | Error::Network(_)
            | Error::NetworkPlugin(_)
            | Error::NotConnected { .. }
            | Error::JoinPid(_)
            | Error::Link(_)
            | Error::Cgroup(_)
            | Error::Spawner(_)
            | Error::Shim(_)
            | Error::Io { .. }
            | Error::LogDriver(_)
            | Error::Step { .. }
            | Error::Runtime(_)
            | Error::Record { .. } => ErrorKind::System,
            // Docker blames the engine for what may be there later, such as a port.
            Error::Connect(error) => match error.kind() {
                ErrorKind::Unavailable => ErrorKind::System,
                kind => kind,
            },
            Error::Update { source, .. } => source.kind(),
            Error::Unwound { first: error, .. } | Error::NewName(error) => error.kind(),
        }
    }
}

/// A network's name as Docker's two sentences have it.
fn named(network: &str) -> String {
    if network.starts_with("the network ") { network.to_owned() } else { format!("network {network}") }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
