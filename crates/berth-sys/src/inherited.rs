//! Descriptors that the process was started with, named by number.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes ownership of the descriptor `number`, which whoever started the process left open for it.
///
/// The three standard streams are refused (`EINVAL`), and so is a descriptor that is close-on-exec (`EBUSY`): it
/// was not inherited but opened here, and belongs to somebody. The descriptor becomes close-on-exec.
/// A number that is not open fails with `EBADF`.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: borrowed for two fcntl calls only, which fail with EBADF if the number is not open; no other code
    // of this process can own it, or the check below refuses it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BUSY.into());
    }
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, and has no other owner: all code of this project opens descriptors
    // close-on-exec, so one without the flag was inherited; the flag is set now, so that a second call fails.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn only_inherited_descriptors_are_taken_and_only_once() {
        let (end, _other) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        assert_eq!(take(end.as_raw_fd()).unwrap_err().raw_os_error(), Some(libc::EBUSY));

        fcntl_setfd(&end, FdFlags::empty()).unwrap();
        let number = end.into_raw_fd();
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(take(number).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn streams_and_closed_numbers_are_refused() {
        assert_eq!(take(1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(take(i32::MAX).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
