//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this module: what was tried on which file, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the cgroup file system could not be used.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried: "create", "open", "read", "remove".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value was refused.
    #[error("write {value:?} to {}: {source}", path.display())]
    Write {
        /// The file written to.
        path: PathBuf,
        /// The value refused.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of the kernel has content that this module does not understand.
    #[error("unexpected content of {}: {content:?}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The start of the content.
        content: String,
    },
    /// No cgroup hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// The path has components that would leave the hierarchy.
    #[error("invalid cgroup path {0:?}")]
    InvalidPath(String),
    /// A resource was set whose controller is missing on this host.
    #[error("{setting} needs the cgroup controller {controller:?}, which this system does not have")]
    NoController {
        /// The controller's name as in cgroups(7).
        controller: &'static str,
        /// The file that would have been written.
        setting: String,
    },
    /// A resource has a value that this cgroup version cannot express.
    #[error("{0}")]
    Unsupported(String),
    /// A device program could not be loaded, attached or replaced.
    #[error("{action} the device filter of {}: {source}", path.display())]
    DeviceFilter {
        /// What was tried.
        action: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The cgroup still has processes or children after everything was tried.
    #[error("cgroup {} is still in use", .0.display())]
    Busy(PathBuf),
    /// There is no such cgroup.
    #[error("cgroup {0} does not exist")]
    NotFound(String),
}

impl Error {
    /// Whether a value makes no sense to the kernel, rather than that something failed.
    pub fn is_about_a_value(&self) -> bool {
        match self {
            Error::Write { source, .. } => {
                let [invalid, range] = [rustix::io::Errno::INVAL, rustix::io::Errno::RANGE];
                matches!(source.raw_os_error(), Some(code) if [invalid, range].map(rustix::io::Errno::raw_os_error).contains(&code))
            }
            Error::Unsupported(_) => true,
            _ => false,
        }
    }
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::File { action, path: path.to_path_buf(), source }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::File { source, .. } | Error::Write { source, .. } | Error::DeviceFilter { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}
