//! Connections to endpoints, made without waiting.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::log::Endpoint;

/// A connection.
#[derive(Debug)]
pub(super) enum Connected {
    /// It stands.
    Now(OwnedFd),
    /// It is writable when it stands, or has failed.
    Soon(OwnedFd),
}

pub(super) fn is_unix(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Unix { .. })
}

pub(super) fn has_datagrams(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Udp(_) | Endpoint::Unix { datagrams: true, .. })
}

/// Begins a connection; of several addresses each attempt takes the next.
pub(super) fn connect(
    endpoint: &Endpoint,
    directory: Option<&OwnedFd>,
    attempt: u32,
) -> io::Result<Connected> {
    match endpoint {
        Endpoint::Tcp(addresses) => internet(SocketType::STREAM, addresses, attempt),
        Endpoint::Udp(addresses) => internet(SocketType::DGRAM, addresses, attempt),
        Endpoint::Unix { name, datagrams } => {
            let directory = directory.ok_or(io::ErrorKind::NotFound)?;
            let kind = if *datagrams { SocketType::DGRAM } else { SocketType::STREAM };
            let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
            let socket = make(AddressFamily::UNIX, kind)?;
            finish(rustix::net::connect(&socket, &SocketAddrUnix::new(path)?), socket)
        }
    }
}

fn internet(kind: SocketType, addresses: &[SocketAddr], attempt: u32) -> io::Result<Connected> {
    let index = attempt as usize % addresses.len().max(1);
    let address = addresses.get(index).ok_or(io::ErrorKind::NotFound)?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = make(family, kind)?;
    finish(rustix::net::connect(&socket, address), socket)
}

fn make(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

fn finish(result: rustix::io::Result<()>, socket: OwnedFd) -> io::Result<Connected> {
    match result {
        Ok(()) => Ok(Connected::Now(socket)),
        Err(Errno::INPROGRESS) => Ok(Connected::Soon(socket)),
        Err(error) => Err(error.into()),
    }
}

/// What became of a connection that was to come soon.
pub(super) fn outcome(socket: impl AsFd) -> io::Result<()> {
    sockopt::socket_error(socket)??;
    Ok(())
}
