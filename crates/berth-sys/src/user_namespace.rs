//! User namespaces without anybody in them: what idmapped mounts take their mapping from (mount_setattr(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

/// Handlers of signals are the caller's, and would act on what is the caller's (linux/sched.h).
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Makes a user namespace with these mappings, in the form of `/proc/PID/uid_map`: lines of ID in the namespace, ID
/// outside, and count. For an idmapped mount these are the ID on the disk and the ID that is seen.
///
/// # Errors
/// Mappings that the kernel refuses; `EPERM` and `ENOSPC` where no user namespaces can be made.
pub fn user_namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    // The fields of `struct clone_args` up to `exit_signal`.
    let args: [u64; 8] = [
        libc::CLONE_NEWUSER as u64 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        std::ptr::from_mut(&mut pidfd) as u64,
        0,
        0,
        libc::SIGCHLD as u64,
        0,
        0,
        0,
    ];
    // SAFETY: without CLONE_VM the child has its own copy of the memory and goes on with the caller's stack. The caller may
    // have other threads, whose locks stay locked in the child: the child makes system calls only and never returns.
    // `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => loop {
            // SAFETY: both are plain system calls. The child must not outlive the thread that waits for it.
            unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
            }
        },
        _ => {}
    }
    // SAFETY: the kernel stored a new descriptor, owned by nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    let made = write("uid_map", uids).and_then(|()| write("gid_map", gids)).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())?)
    });
    // The descriptor keeps the namespace.
    pidfd_send_signal(&pidfd, Signal::KILL)?;
    // Whoever reaps all children may have been faster.
    let _ = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_mappings_or_is_none() {
        // Elsewhere than in a container, and as root, there are user namespaces.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        user_namespace("1000 0 1\n", "1000 0 1\n5 5 2\n").unwrap();
        assert_eq!(user_namespace("nonsense", "0 0 1").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
