//! Message sockets between Berth's own processes: `SOCK_SEQPACKET` with descriptors and peer credentials (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

/// Most descriptors that one message carries (`SCM_MAX_FD` of the kernel).
pub const MAX_FDS: usize = 253;

/// One message as received.
#[derive(Debug, Default)]
pub struct Message {
    /// The bytes; none at the end of the connection.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// The process at the other end of a connection, as of `connect` or `socketpair`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process ID, in the caller's PID namespace; 0 if it is not visible there.
    pub pid: i32,
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
}

/// A connected pair of close-on-exec message sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with at most [`MAX_FDS`] descriptors.
///
/// A message is whole or not sent. A closed peer gives `EPIPE`, never a signal. `EMSGSIZE` says that the message is
/// larger than the socket's send buffer (about 200 KiB by default).
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let size = SendAncillaryMessage::ScmRights(fds).size();
    let mut few = [MaybeUninit::uninit(); 64];
    let mut many = Vec::new();
    let space = if size <= few.len() {
        &mut few[..]
    } else {
        many.resize(size, MaybeUninit::uninit());
        &mut many[..]
    };
    let mut control = SendAncillaryBuffer::new(space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for the descriptors of a message"));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent != bytes.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "message sent in part"));
    }
    Ok(())
}

/// Receives one message of at most `max_bytes`; an empty one without descriptors is the end of the connection.
///
/// A longer message, or one whose descriptors did not fit the process's limit, is an `InvalidData` error: nothing is
/// ever silently cut. Blocks unless the socket is non-blocking.
///
/// A peer that closes without having read everything resets the connection, which the kernel tells before it gives out
/// what that peer had sent; here those messages come first, and then the end.
pub fn receive(socket: impl AsFd, max_bytes: usize) -> io::Result<Message> {
    let mut bytes = vec![0; max_bytes];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut next = || {
        rustix::io::retry_on_intr(|| {
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match next() {
        // It is told once.
        Err(rustix::io::Errno::CONNRESET) => next()?,
        received => received?,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let cut = ReturnFlags::from_bits_retain((libc::MSG_TRUNC | libc::MSG_CTRUNC) as _);
    if received.flags.intersects(cut) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message or its descriptors were cut"));
    }
    bytes.truncate(received.bytes);
    Ok(Message { bytes, fds })
}

/// Who is at the other end (`SO_PEERCRED`).
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option's value is a ucred, and `length` is its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid })
}

/// Binds a new close-on-exec message socket to `path`, with mode 0600, and listens.
///
/// Paths of any length work: a long one is reached through a descriptor of its directory. An existing file there is
/// `EADDRINUSE`.
pub fn listen(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    bind(&socket, path)?;
    rustix::fs::chmod(path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Binds a unix socket of any type to a path of any length. The file has mode 0777 less the umask.
pub fn bind(socket: impl AsFd, path: &Path) -> io::Result<()> {
    with_address(path, |address| Ok(rustix::net::bind(&socket, address)?))
}

/// Connects a new close-on-exec, blocking message socket to `path`, of any length.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = message_socket()?;
    connect_with(&socket, path)?;
    Ok(socket)
}

/// Connects a unix socket of any type to a path of any length.
pub fn connect_with(socket: impl AsFd, path: &Path) -> io::Result<()> {
    with_address(path, |address| Ok(rustix::net::connect(&socket, address)?))
}

/// Accepts one connection, close-on-exec and blocking.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::retry_on_intr(|| rustix::net::accept_with(&listener, SocketFlags::CLOEXEC))?)
}

/// Binds a new close-on-exec, blocking message socket to an abstract name (unix(7)) of the network namespace, and listens.
/// [`close`] ends an [`accept`] of it.
pub fn listen_abstract(name: &[u8], backlog: i32) -> io::Result<OwnedFd> {
    let socket = message_socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects a new close-on-exec message socket to an abstract name. Neither this nor what is done with the socket takes longer
/// than `patience`, until [`wait_for`] says otherwise.
pub fn connect_abstract(name: &[u8], patience: Duration) -> io::Result<OwnedFd> {
    let socket = message_socket()?;
    wait_for(&socket, Some(patience))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// How long to wait for the other end at most, in each call; without end if this is none (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
pub fn wait_for(socket: impl AsFd, patience: Option<Duration>) -> io::Result<()> {
    for direction in [Timeout::Recv, Timeout::Send] {
        rustix::net::sockopt::set_socket_timeout(&socket, direction, patience)?;
    }
    Ok(())
}

/// Ends what a socket is used for, whoever waits for it (shutdown(2)).
pub fn close(socket: impl AsFd) {
    // One that is not connected any more has ended.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

fn message_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Longest path that fits a `sockaddr_un` with its final NUL.
const MAX_PATH: usize = 107;

fn with_address<T>(path: &Path, act: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_PATH {
        return act(&SocketAddrUnix::new(path)?);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "socket path without a file name"));
    };
    let directory = rustix::fs::open(
        directory,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    act(&SocketAddrUnix::new(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (left, right) = pair().unwrap();
        let fds: Vec<OwnedFd> =
            (0..MAX_FDS).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send(&left, b"hello", &borrowed).unwrap();
        let message = receive(&right, 16).unwrap();
        assert_eq!(message.bytes, b"hello");
        assert_eq!(message.fds.len(), MAX_FDS);
        for fd in &message.fds {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        drop(left);
        let end = receive(&right, 16).unwrap();
        assert!(end.bytes.is_empty() && end.fds.is_empty());
    }

    #[test]
    fn cut_messages_are_errors() {
        let (left, right) = pair().unwrap();
        send(&left, b"0123456789", &[]).unwrap();
        assert_eq!(receive(&right, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_a_peer_said_before_it_closed_is_not_lost() {
        let (left, right) = pair().unwrap();
        send(&left, b"last words", &[]).unwrap();
        send(&right, b"never read", &[]).unwrap();
        drop(left);
        assert_eq!(receive(&right, 64).unwrap().bytes, b"last words");
        assert_eq!(receive(&right, 64).unwrap().bytes, b"");
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (left, _right) = pair().unwrap();
        let fds = vec![left.as_fd(); MAX_FDS + 1];
        assert_eq!(send(&left, b"", &fds).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_closed_peer_is_an_error_and_no_signal() {
        let (left, right) = pair().unwrap();
        drop(right);
        assert_eq!(send(&left, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn abstract_names_are_connected_and_closed() {
        let name = format!("berth-test-{}", std::process::id());
        let patience = Duration::from_millis(50);
        assert!(connect_abstract(name.as_bytes(), patience).is_err());
        let listener = listen_abstract(name.as_bytes(), 1).unwrap();
        let client = connect_abstract(name.as_bytes(), patience).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(receive(&client, 8).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&server, b"late", &[]).unwrap();
        assert_eq!(receive(&client, 8).unwrap().bytes, b"late");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| accept(&listener));
            close(&listener);
            assert!(waiting.join().unwrap().is_err());
        });
        wait_for(&client, None).unwrap();
        close(&server);
        assert_eq!(receive(&client, 8).unwrap().bytes, b"");
    }

    #[test]
    fn long_paths_bind_and_connect() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let listener = listen(&path, 4).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap();
        send(&client, b"ping", &[]).unwrap();
        assert_eq!(receive(&server, 8).unwrap().bytes, b"ping");
        assert_eq!(peer(&server).unwrap().pid, std::process::id() as i32);
        assert_eq!(peer(&server).unwrap().uid, rustix::process::geteuid().as_raw());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
