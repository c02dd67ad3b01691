//! Descriptors in the daemon's event loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers `descriptor`, which must be non-blocking, with the current runtime.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(deprecated, reason = "the unsafe successor is for types that might lie about their descriptor")]
    AsyncFd::new(descriptor)
}
