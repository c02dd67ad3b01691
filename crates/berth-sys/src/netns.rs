//! Network namespaces of single threads (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Moves the calling thread, alone, into a new network namespace and returns a descriptor of it.
///
/// Links, sockets and `/proc/sys/net` of the thread are those of the new namespace from here on; the namespace
/// goes with its last thread, descriptor and mount.
pub fn unshare() -> io::Result<OwnedFd> {
    // SAFETY: CLONE_NEWNET changes what the thread's later system calls see of the network. It shares and
    // frees no memory and closes no descriptor.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    current()
}

/// A descriptor of the calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}
