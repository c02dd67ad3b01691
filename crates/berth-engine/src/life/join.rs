//! What a container takes from others: their namespaces, their shared memory, their name.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_sys::mount::{self, TMPFS_MAGIC};
use berth_sys::process::enter_mount_namespace;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::owner::Owner;
use super::shm;
use crate::Error;
use crate::container::Container;
use crate::container::state::State;
use crate::create::{Definition, NetworkPlan};
use crate::engine::Parts;
use crate::spec::Joined;

/// Whose shared memory is mounted at `/dev/shm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shm {
    /// The host's.
    Host,
    /// That of the container with this init.
    Of(i32),
    /// Its own, mounted at a path of the host so that others may join it.
    Shareable {
        /// Where.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

impl Shm {
    /// A detached copy of the mount, which is made first if it is the container's own. Blocks.
    pub fn open(self) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Io { operation: "open the shared memory of another".into(), source };
        match self {
            Shm::Host => mount::clone_at(CWD, Path::new("/dev/shm"), false).map_err(failed),
            Shm::Shareable { path, bytes } => shm::make(&path, bytes),
            Shm::Of(pid) => {
                // A thread that changes its mount namespace is of no use to anyone else afterwards.
                let opened = std::thread::spawn(move || shm_inside(pid)).join();
                opened
                    .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended early")))
                    .map_err(failed)
            }
        }
    }
}

/// Enters the mount namespace of `pid` with the calling thread and copies what is mounted at `/dev/shm` there.
fn shm_inside(pid: i32) -> std::io::Result<OwnedFd> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    enter_mount_namespace(&namespace)?;
    // The container may have put anything in the way: nothing but a tmpfs right there will do.
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(CWD, "/dev/shm", flags, Mode::empty(), resolve)?;
    mount::verify_magic(&found, TMPFS_MAGIC)?;
    mount::clone_tree(&found, false)
}

impl Parts {
    /// A container as its namespaces make it: one that shares another's network has the other's name.
    pub(crate) fn effective<'a>(&self, definition: &'a Definition) -> Cow<'a, Definition> {
        let NetworkPlan::Container(name) = &definition.network else { return Cow::Borrowed(definition) };
        let Ok(other) = self.containers.find(name) else { return Cow::Borrowed(definition) };
        let mut definition = definition.clone();
        definition.config.hostname.clone_from(&other.definition.config.hostname);
        definition.config.domainname.clone_from(&other.definition.config.domainname);
        Cow::Owned(definition)
    }
}

impl Owner {
    /// The namespaces of other containers that it joins, and whose shared memory it gets.
    pub(super) fn joined(&self) -> Result<(Joined, Option<Shm>), Error> {
        let definition = &self.container.definition;
        let mut joined = Joined::default();
        if let NetworkPlan::Container(name) = &definition.network {
            let other = self.other(name, "network namespace")?;
            let State::Running(running) = other.state() else {
                return Err(Error::Conflict(format!(
                    "cannot join network namespace of a non running container: container {} is {}",
                    other.name(),
                    other.state().status().as_str()
                )));
            };
            joined.network = Some(namespace(running.pid, "net"));
        }
        if let Some(name) = definition.host.pid_mode.strip_prefix("container:") {
            let other = self.other(name, "PID namespace").map_err(|error| Error::JoinPid(Box::new(error)))?;
            let pid = running(&other, name).map_err(|error| Error::JoinPid(Box::new(error)))?;
            joined.pid = Some(namespace(pid, "pid"));
        }
        let shm = match definition.host.ipc_mode.as_str() {
            "host" => Some(Shm::Host),
            "shareable" => Some(Shm::Shareable {
                path: self.parts.shm_path(self.container.id()),
                bytes: u64::try_from(definition.host.shm_size).unwrap_or(berth_runtime::defaults::SHM_BYTES),
            }),
            mode => match mode.strip_prefix("container:") {
                Some(name) => {
                    let pid = self
                        .ipc_donor(name)
                        .map_err(|error| wrapped("failed to join IPC namespace", &error))?;
                    joined.ipc = Some(namespace(pid, "ipc"));
                    Some(Shm::Of(pid))
                }
                None => None,
            },
        };
        Ok((joined, shm))
    }

    fn ipc_donor(&self, name: &str) -> Result<i32, Error> {
        let other = self.other(name, "IPC namespace")?;
        let pid = running(&other, name)?;
        let mode = other.definition.host.ipc_mode.as_str();
        if matches!(mode, "shareable" | "host") || mode.starts_with("container:") {
            return Ok(pid);
        }
        Err(Error::InvalidParameter(format!(
            "container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )))
    }

    fn other(&self, name: &str, what: &str) -> Result<Arc<Container>, Error> {
        let other = self.parts.containers.find(name)?;
        if other.id() == self.container.id() {
            return Err(Error::InvalidParameter(format!("cannot join own {what}")));
        }
        Ok(other)
    }
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// The init of a container, called `name` by the user, that must run.
fn running(container: &Container, name: &str) -> Result<i32, Error> {
    match container.state() {
        State::Running(running) => Ok(running.pid),
        State::Restarting(_) => Err(Error::restarting(name)),
        _ => Err(Error::Conflict(format!("container {name} is not running"))),
    }
}

/// As Docker says it: a missing or stopped container is the request's mistake, not the absence of what was asked for.
fn wrapped(what: &str, error: &Error) -> Error {
    let text = format!("{what}: {error}");
    match error {
        Error::Conflict(_) => Error::Conflict(text),
        _ => Error::InvalidParameter(text),
    }
}
