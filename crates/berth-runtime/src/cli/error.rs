//! What the command line can fail with.

use std::io;
use std::path::{Path, PathBuf};

use super::state::Status;
use crate::launch::StartError;
use crate::{cgroup, hooks};

/// Why a command failed; the text is what its caller reads, and partly looks for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{command} failed: unable to start container process: {source}")]
    Start { command: &'static str, source: StartError },
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    #[error("container {0:?} does not exist")]
    NotFound(String),
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    #[error("invalid container ID {0:?}: letters, digits and the characters _ + - . are allowed")]
    InvalidId(String),
    #[error("cannot {action} container {id:?}: it is {status}")]
    Status { action: &'static str, id: String, status: Status },
    // Callers look for these words.
    #[error("container not running")]
    NotRunning,
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The exit code of the command line.
    pub fn exit_code(&self) -> u8 {
        match self {
            // As runc: the codes below belong to programs.
            Error::Start { command: "exec", .. } => 255,
            _ => 1,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Says what was tried.
pub(super) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;

    fn at(self, action: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.context(|| format!("{action} {}", path.display()))
    }
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { what: what(), source: error.into() })
    }
}
