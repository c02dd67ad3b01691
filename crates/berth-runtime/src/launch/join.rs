//! A first process in a user namespace that exists: that of a container whose other namespaces it shares.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::process::{self, Fork, flags};
use berth_sys::socket;
use rustix::process::{WaitId, WaitIdOptions};

use super::channel;
use super::error::{Context, Stage, StartError};
use super::plan::Namespaces;

/// Clones a process that is born in the user namespace `user`, and in new namespaces that belong to it.
///
/// There is no way back from a user namespace, so a process between joins it and clones a child, whose parent is the
/// calling process nevertheless.
pub(super) fn fork_into(
    user: BorrowedFd<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork, StartError> {
    let what = || "clone in the user namespace";
    let (ours, theirs) = socket::pair().context(Stage::Protocol, || "make a socket pair")?;
    let between = match process::fork().context(Stage::Namespaces, what)? {
        Fork::Parent { pidfd, .. } => pidfd,
        Fork::Child => {
            drop(ours);
            match between(user, pid_namespace, namespaces, cgroup) {
                Ok(Fork::Child) => return Ok(Fork::Child),
                Ok(Fork::Parent { pid, pidfd }) => {
                    // The other end waits for it.
                    let _ = channel::send(&theirs, &Ok::<i32, StartError>(pid), &[pidfd.as_fd()]);
                }
                Err(error) => {
                    let _ = channel::send(&theirs, &Err::<i32, StartError>(error), &[]);
                }
            }
            process::exit_now(0)
        }
    };
    drop(theirs);
    let told = channel::receive::<Result<i32, StartError>>(&ours).context(Stage::Protocol, what);
    let ended = || rustix::process::waitid(WaitId::PidFd(between.as_fd()), WaitIdOptions::EXITED);
    let _ = rustix::io::retry_on_intr(ended);
    let lost = || StartError::new(Stage::Protocol, "the process that joins a user namespace was killed");
    let (pid, fds) = told?.ok_or_else(lost)?;
    let pid = pid?;
    let pidfd: OwnedFd = fds.into_iter().next().ok_or_else(lost)?;
    Ok(Fork::Parent { pid, pidfd })
}

fn between(
    user: BorrowedFd<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork, StartError> {
    process::setns(user, flags::NEWUSER).context(Stage::Namespaces, || "join the user namespace")?;
    if let Some(target) = pid_namespace {
        process::setns(target, flags::NEWPID).context(Stage::Namespaces, || "join the PID namespace")?;
    }
    process::clone3(namespaces.new | flags::PARENT, cgroup).context(Stage::Namespaces, || "clone")
}
