//! Network namespaces of single threads (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

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

/// A TCP socket in another network namespace, not blocking and not connected yet; `v6` for IPv6.
///
/// A socket stays in the namespace in which it was made. `EPERM` without `CAP_SYS_ADMIN` over the namespace.
pub fn tcp_socket(namespace: impl AsFd, v6: bool) -> io::Result<OwnedFd> {
    within(namespace, move || {
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
    })
}

/// Does something in another network namespace: what it opens, and `/proc/sys/net`, are those of the namespace.
///
/// A thread of its own goes there and ends, so that no thread of the caller ever changes its namespace. `EPERM` without
/// `CAP_SYS_ADMIN` over the namespace. Blocks as long as `work` does.
pub fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = namespace.as_fd();
    let enter_and_work = move || {
        crate::process::setns(namespace, crate::process::flags::NEWNET)?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, enter_and_work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in another namespace panicked")))
    })
}

/// Runs `work` in another network namespace, and comes back to `home`: for processes of one thread that make sockets in
/// many namespaces.
///
/// Only the calling thread changes its namespace. If it cannot come back the process ends: whatever it did next would happen in
/// the wrong namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over the namespace; otherwise what `work` says.
pub fn visit<T>(
    home: impl AsFd,
    namespace: impl AsFd,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    crate::process::setns(namespace, crate::process::flags::NEWNET)?;
    let result = work();
    if crate::process::setns(home, crate::process::flags::NEWNET).is_err() {
        std::process::abort();
    }
    result
}
