//! Small dealings with processes and descriptors.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use berth_runtime::launch::Stdio;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

use super::streams::Ends;
use crate::protocol::{EXIT, SOCKET};

/// Leaves the spawner's session and takes nothing of its state along.
pub(super) fn become_shim() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::thread::set_name(c"berth-shim")?;
    // A client that is gone is an error of the write, and so is a file that may not grow.
    berth_sys::process::block_signals(&[PIPE, FILE_SIZE])?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

const PIPE: i32 = 13;
const FILE_SIZE: i32 = 25;

/// The process's ends and the shim's. A terminal's master comes later; without one, all is `/dev/null` or a pipe.
pub(super) fn streams(terminal: bool, stdin_open: bool) -> io::Result<(Stdio, Ends)> {
    let mut stdio = Stdio::null()?;
    let mut ends = Ends::default();
    if terminal {
        return Ok((stdio, ends));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    if stdin_open {
        let (read, write) = pipe()?;
        (stdio.stdin, ends.stdin) = (read, Some(write));
    }
    let (read, write) = pipe()?;
    (ends.stdout, stdio.stdout) = (Some(read), write);
    let (read, write) = pipe()?;
    (ends.stderr, stdio.stderr) = (Some(read), write);
    Ok((stdio, ends))
}

/// True if the container uses a PID namespace that others use as well.
pub(super) fn shares_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let own = namespaces.is_some_and(|namespaces| {
        namespaces
            .iter()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
    });
    !own
}

/// Makes the shim's directory, and removes what an earlier shim of the container left there.
pub(super) fn prepare_directory(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for name in [SOCKET, EXIT] {
        remove(&directory.join(name))?;
    }
    Ok(())
}

/// Removes a file that may be missing.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Exit code and signal of a child that has ended; `None` if it has not.
pub(super) fn reap(pidfd: impl AsFd) -> Option<(i32, Option<i32>)> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => Some(code(&status)),
        Ok(None) => None,
        // Somebody else has reaped it: there is no status to be had.
        Err(_) => Some((255, None)),
    }
}

fn code(status: &WaitIdStatus) -> (i32, Option<i32>) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}

/// Kills a child and waits for its end.
pub(super) fn kill_and_reap(pidfd: &OwnedFd) {
    let _ = berth_sys::signal::send(pidfd, KILL);
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// `SIGKILL`.
pub(super) const KILL: i32 = 9;
