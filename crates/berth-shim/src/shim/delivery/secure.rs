//! TLS on a connection that is never waited for.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::ClientConnection;

use crate::log::TlsPlan;

/// Bytes that may wait to be encrypted and sent.
const BUFFER: usize = 64 << 10;

/// One side of a TLS connection, beside its socket.
#[derive(Debug)]
pub(super) struct Session(ClientConnection);

impl Session {
    pub(super) fn new(plan: &TlsPlan) -> io::Result<Self> {
        let (config, name) = plan.client()?;
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(BUFFER));
        Ok(Self(connection))
    }

    /// The two sides have not agreed yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Encrypts as much as has room, and sends what the socket takes. `WouldBlock` if nothing had room.
    pub(super) fn write(&mut self, socket: impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(&socket)?;
        let count = self.0.writer().write_vectored(parts)?;
        self.flush(socket)?;
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Sends what is encrypted; false if some of it stays.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(socket.as_fd())) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more comes; [`Session::flush`] sends it.
    pub(super) fn close(&mut self) {
        self.0.send_close_notify();
    }

    /// Takes what has come; 0 is the end of the connection, `WouldBlock` that nothing came for us.
    pub(super) fn read(&mut self, socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let ended = match self.0.read_tls(&mut Socket(socket.as_fd())) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        self.0.process_new_packets().map_err(io::Error::other)?;
        match self.0.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ended => Ok(0),
            other => other,
        }
    }
}

/// A socket as rustls reads and writes it.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(self.0, &mut *buffer))?)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(self.0, buffer))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
