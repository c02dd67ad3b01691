//! Why a container or a process in one did not start.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The configuration contradicts itself or asks for what does not exist.
    Configuration,
    /// Making or joining the cgroup.
    Cgroup,
    /// Cloning, and making or joining namespaces.
    Namespaces,
    /// The root file system.
    Rootfs,
    /// A mount, masked or read-only path.
    Mount,
    /// A device node.
    Device,
    /// The pseudo-terminal.
    Console,
    /// A kernel parameter.
    Sysctl,
    /// Links and addresses.
    Network,
    /// A hook of the configuration.
    Hook,
    /// The user and its groups.
    User,
    /// The working directory.
    WorkingDirectory,
    /// Resource limits, scheduling, out-of-memory score.
    Limits,
    /// Capabilities, labels, the seccomp filter.
    Privileges,
    /// Finding or executing the program.
    Program,
    /// The conversation between parent and child.
    Protocol,
}

/// Whether a container was being made or joined; it decides the words around the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Occasion {
    #[default]
    Create,
    Exec,
}

/// Why a container or a process in one did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartError {
    /// The step that failed.
    pub stage: Stage,
    /// The kernel's error, if there was one.
    pub errno: Option<i32>,
    /// What was tried on which object, and the error in words.
    pub message: String,
    #[serde(default)]
    pub(crate) occasion: Occasion,
}

impl StartError {
    /// An error that is not the kernel's.
    pub fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, errno: None, message: message.into(), occasion: Occasion::Create }
    }

    /// A failed call: `what` is the operation and its object.
    pub fn io(stage: Stage, what: impl fmt::Display, error: &io::Error) -> Self {
        let message = format!("{what}: {}", describe(error));
        Self { stage, errno: error.raw_os_error(), message, occasion: Occasion::Create }
    }

    /// The exit code that `docker run` and `docker exec` give for it: 127 for a program or directory that does not
    /// exist, and for a file over a directory; 126 for one that cannot be executed or entered, else 125.
    pub fn exit_code(&self) -> i32 {
        if self.is_about_kind() {
            return 127;
        }
        if !matches!(self.stage, Stage::Program | Stage::WorkingDirectory) {
            return 125;
        }
        match self.errno {
            Some(libc::ENOENT | libc::ENOTDIR) => 127,
            Some(
                libc::EACCES | libc::EPERM | libc::EISDIR | libc::ENOEXEC | libc::ELIBBAD | libc::ETXTBSY,
            ) => 126,
            _ => 125,
        }
    }

    /// The message in the words that Docker's clients know.
    pub fn docker_message(&self) -> String {
        // Docker resolves the user in the daemon, before its runtime is involved.
        if self.stage == Stage::User {
            return self.message.clone();
        }
        match self.occasion {
            Occasion::Create => {
                let hint = if self.is_about_kind() { WRONG_KIND } else { "" };
                format!(
                    "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                     berth: unable to start container process: error during container init: {}: unknown{hint}",
                    self.message
                )
            }
            Occasion::Exec => format!(
                "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
                self.message
            ),
        }
    }

    /// Whether a file was to be mounted over a directory, or a directory over a file.
    fn is_about_kind(&self) -> bool {
        self.stage == Stage::Mount && self.message.ends_with("not a directory")
    }

    pub(crate) fn during_exec(mut self) -> Self {
        self.occasion = Occasion::Exec;
        self
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// The error in the kernel's lower-case words, as Go and C programs print them, without Rust's `(os error N)`.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => {
            let mut characters = words.chars();
            match characters.next() {
                Some(first) if !words.starts_with("I/O") => first.to_lowercase().chain(characters).collect(),
                _ => words.to_owned(),
            }
        }
        None => text,
    }
}

/// Attaches stage and object to an [`io::Error`].
pub(crate) trait Context<T> {
    /// `what` is made only on failure.
    fn context<D: fmt::Display>(self, stage: Stage, what: impl FnOnce() -> D) -> Result<T, StartError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context<D: fmt::Display>(self, stage: Stage, what: impl FnOnce() -> D) -> Result<T, StartError> {
        self.map_err(|error| StartError::io(stage, what(), &error.into()))
    }
}

/// Docker's hint.
const WRONG_KIND: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host \
                          path exists and is the expected type";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_a_directory_gets_dockers_hint() {
        let error = io::Error::from_raw_os_error(libc::ENOTDIR);
        let error = StartError::io(Stage::Mount, "mount a file", &error);
        assert_eq!(error.exit_code(), 127);
        assert!(error.docker_message().ends_with("and is the expected type"), "{}", error.docker_message());
    }

    #[test]
    fn messages_read_as_dockers() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let error = StartError::io(Stage::Program, "exec: \"/x\": stat /x", &error);
        assert_eq!(error.message, "exec: \"/x\": stat /x: no such file or directory");
        assert_eq!(error.exit_code(), 127);
        assert!(error.docker_message().contains("OCI runtime create failed"));
        assert!(error.during_exec().docker_message().starts_with("OCI runtime exec failed: exec failed:"));
    }

    #[test]
    fn what_is_not_the_program_is_125() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(StartError::io(Stage::Mount, "mount x", &error).exit_code(), 125);
    }

    #[test]
    fn users_are_reported_plainly() {
        let error = StartError::new(Stage::User, "unable to find user x: no matching entries in passwd file");
        assert_eq!(error.docker_message(), error.message);
    }
}
