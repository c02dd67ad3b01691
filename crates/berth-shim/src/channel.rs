//! Messages of any size over a message socket.
//!
//! A short one travels as it is. A long one (an OCI configuration with its seccomp profile passes 200 KB) is put in a
//! sealed memfd, which travels as the first descriptor beside a one-byte message.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use berth_sys::socket::{self, Message};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;

/// Longer messages travel in a memfd.
const INLINE: usize = 4 * 1024;
/// The first byte of a JSON document is never this.
const IN_MEMFD: &[u8] = b"@";
/// No message is longer.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A message ready to be sent.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Packed {
    /// Encodes `value`, with `fds` beside it.
    pub(crate) fn new(value: &impl Serialize, mut fds: Vec<OwnedFd>) -> io::Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        if bytes.len() <= INLINE {
            return Ok(Self { bytes, fds });
        }
        fds.insert(0, sealed_memfd(&bytes)?);
        Ok(Self { bytes: IN_MEMFD.to_vec(), fds })
    }

    /// Sends it; `WouldBlock` when a non-blocking socket is full.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        socket::send(socket, &self.bytes, &fds)
    }
}

/// Receives a message; `None` at the end of the connection.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut message = socket::receive(socket, INLINE)?;
    if message.bytes.is_empty() && message.fds.is_empty() {
        return Ok(None);
    }
    if message.bytes == IN_MEMFD && !message.fds.is_empty() {
        let memfd = message.fds.remove(0);
        message.bytes = read_memfd(memfd)?;
    }
    Ok(Some(message))
}

/// A memfd that holds `bytes` and that nobody can change any more.
pub(crate) fn sealed_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("message", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("message", flags)?,
        other => other?,
    };
    let file = File::from(memfd);
    file.write_all_at(bytes, 0)?;
    rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file.into())
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// The bytes of a memfd that its sender has sealed.
pub(crate) fn read_memfd(memfd: OwnedFd) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(&memfd)?.contains(SEALS) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message came in an unsealed memfd"));
    }
    let file = File::from(memfd);
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (left, right) = socket::pair().unwrap();
        for length in [3, INLINE - 2, INLINE, 700_000] {
            let text = "x".repeat(length);
            let fd = File::open("/dev/null").unwrap().into();
            Packed::new(&text, vec![fd]).unwrap().send(&left).unwrap();
            let message = receive(&right).unwrap().unwrap();
            assert_eq!(serde_json::from_slice::<String>(&message.bytes).unwrap(), text);
            assert_eq!(message.fds.len(), 1);
        }
        drop(left);
        assert!(receive(&right).unwrap().is_none());
    }

    #[test]
    fn an_unsealed_memfd_is_refused() {
        let memfd =
            rustix::fs::memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(read_memfd(memfd).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
