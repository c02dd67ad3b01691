//! Signals by number, the real-time ones included, which rustix names only in part.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends signal number `signal` (0 only checks) to the process that `pidfd` refers to (`pidfd_send_signal(2)`).
pub fn send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no signal information is passed, no memory is touched; the kernel checks the number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_real_time_signal_arrives() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        send(&pidfd, 0).unwrap();
        assert_eq!(send(&pidfd, 999).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        send(&pidfd, 40).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(40));
    }
}
