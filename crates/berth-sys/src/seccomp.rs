//! Loading a seccomp filter into the calling thread: seccomp(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{sock_filter, sock_fprog};

/// Hand the filter to all threads of the process, or fail.
pub const TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
/// Log every action but `ALLOW` that the administrator's `actions_logged` names.
pub const LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// Leave speculative store bypass as it is.
pub const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
/// Return a descriptor that receives the notifications of `NOTIFY` actions.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// A notified thread waits so that only fatal signals interrupt it (Linux 5.19).
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Installs `filter` for the calling thread (for all threads with [`TSYNC`]), for good.
///
/// The caller needs `no_new_privs` or `CAP_SYS_ADMIN`. With [`NEW_LISTENER`] the notification descriptor
/// (close-on-exec) is returned.
///
/// # Errors
/// `EINVAL` for a malformed filter or an unknown flag, `EACCES` without the privilege, `ENOMEM` for a filter
/// that is too long; `E2BIG` here for more instructions than a filter can have (4,096).
pub fn load(filter: &[sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` and the instructions outlive the call, and the kernel only reads them, though the
    // field's type is a mutable pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::c_ulong::from(flags),
            &raw const program,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if result > 0 && flags & TSYNC != 0 && flags & NEW_LISTENER == 0 {
        // With TSYNC a positive result is the id of a thread that could not follow.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor that nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_filter_is_refused() {
        // Without a final return the kernel's checker says EINVAL, after the privilege check.
        let load_arch = sock_filter { code: 0x20, jt: 0, jf: 0, k: 4 };
        let error = load(&[load_arch], 0).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES)), "{error}");
    }

    #[test]
    fn an_overlong_filter_is_refused_before_the_call() {
        let filler = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
        assert_eq!(load(&vec![filler; 70_000], 0).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn a_loaded_filter_decides() {
        // In a thread of its own, since a filter cannot be removed.
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let getppid = libc::SYS_getppid as u32;
            let filter = [
                sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
                sock_filter { code: 0x15, jt: 0, jf: 1, k: getppid },
                sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::ENOTTY as u32 },
                sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 },
            ];
            assert!(load(&filter, 0).unwrap().is_none());
            // SAFETY: getppid has no arguments and no effects.
            let result = unsafe { libc::syscall(libc::SYS_getppid) };
            assert_eq!(result, -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOTTY));
        })
        .join()
        .unwrap();
    }
}
