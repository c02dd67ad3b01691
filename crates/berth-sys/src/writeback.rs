//! Writing back what is in the page cache before anybody waits for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Has the kernel begin to write what is dirty of a file to its disk. A later sync then has less to wait for; this
/// promises nothing itself, and waits only where the disk's queue is full.
///
/// # Errors
/// A file that has no pages, such as a pipe; an earlier failure to write.
pub fn begin(file: impl AsFd) -> io::Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: no memory is passed, and the descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::sync_file_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_have_pages_and_pipes_have_none() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        begin(&file).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(begin(&reader).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
    }
}
