//! Making a container, and joining one: what the shim and the OCI command line call.
//!
//! Everything that can be computed or opened is, before the clone: the child shares the parent's memory until it
//! writes to it. The calling process must have one thread only.

mod error;
mod types;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

pub use error::{Stage, StartError};
pub use types::{
    ExecLaunch, GeneratedFile, Launch, NetworkMode, Release, ReleaseMode, Rootfs, Stdio, USER_ANNOTATION,
};

/// A container's first process, cloned and busy with its set-up.
#[derive(Debug)]
pub struct Init {
    /// Process ID, in the caller's PID namespace.
    pub pid: i32,
    /// Descriptor of the process.
    pub pidfd: OwnedFd,
    sync: OwnedFd,
}

/// The container's program runs, or (with [`ReleaseMode::ExecFifo`]) waits only for [`start`].
#[derive(Debug)]
pub struct Started {
    /// Master of the pseudo-terminal, if the configuration asked for one.
    pub console: Option<OwnedFd>,
}

/// A process that joined a container runs its program.
#[derive(Debug)]
pub struct ExecStarted {
    /// Process ID, in the caller's PID namespace.
    pub pid: i32,
    /// Descriptor of the process.
    pub pidfd: OwnedFd,
    /// Master of the pseudo-terminal, if asked for.
    pub console: Option<OwnedFd>,
}

/// Clones a container's init, which sets itself up at once.
///
/// Makes the cgroup of `linux.cgroupsPath` with the configuration's resources first, if it does not exist; on failure it is removed
/// again. `fds` are the detached mounts that [`Launch::mount_fds`] counts. The caller is the parent: it must
/// wait for the process, also after an error of [`Init::release`]. Fails with `EBUSY` in a process with several threads.
pub fn clone(launch: &Launch, fds: Vec<OwnedFd>, stdio: Stdio) -> Result<Init, StartError> {
    let _ = (launch, fds, stdio);
    unimplemented!()
}

impl Init {
    /// The network namespace of the container.
    pub fn netns(&self) -> Result<OwnedFd, StartError> {
        unimplemented!()
    }

    /// A descriptor that becomes readable when init has failed, started its program, or is ready for [`start`]:
    /// then [`Init::release`] does not block (with [`NetworkMode::FromSpec`]).
    pub fn progress(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.sync)
    }

    /// Lets init go on, and blocks until its program runs, or has failed to.
    ///
    /// With [`NetworkMode::Await`], init waits for this and configures the links; otherwise `links` is empty.
    /// After an error the process has ended or is about to; reap it.
    pub fn release(self, release: Release) -> Result<Started, StartError> {
        let _ = release;
        unimplemented!()
    }
}

/// Lets a container that waits behind the FIFO of [`ReleaseMode::ExecFifo`] execute its program.
pub fn start(fifo: &Path) -> Result<(), StartError> {
    let _ = fifo;
    unimplemented!()
}

/// Starts another process in the container whose init `init_pidfd` refers to.
///
/// Blocks until its program runs or has failed to. The caller is the parent and must wait for the process; after an
/// error it has been reaped already.
pub fn exec(
    launch: &ExecLaunch,
    init_pidfd: BorrowedFd<'_>,
    stdio: Stdio,
) -> Result<ExecStarted, StartError> {
    let _ = (launch, init_pidfd, stdio);
    unimplemented!()
}
