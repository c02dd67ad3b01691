//! The sockets on which the API is answered: made, taken over, and removed at the end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketType};

use crate::host::{Host, Passed, is_loopback};
use crate::options::SocketGroup;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// Of the unix kind; it goes away with the value if it was made here.
    Unix(UnixListener, Option<SocketFile>),
    /// Of the TCP kind.
    Tcp(TcpListener),
}

impl Listener {
    /// The address, if it is of the TCP kind and the kernel tells.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers on the path.
    #[error("{path} is in use by another daemon (pid {pid}): is one running already?")]
    InUse {
        /// The socket's path.
        path: PathBuf,
        /// Who made that socket; zero if the kernel does not say.
        pid: i32,
    },
    /// The path is taken by something that is not a socket.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The group does not exist.
    #[error("group {0} not found")]
    NoGroup(String),
    /// No socket was passed in.
    #[error("no sockets found via socket activation: make sure the service was started by systemd")]
    NothingPassed,
    /// A passed-in descriptor is not a listening stream socket of a known family.
    #[error("descriptor {0} is not a listening unix or TCP socket")]
    NotAListener(i32),
    /// A passed-in TCP socket without the user's insistence.
    #[error(
        "refusing the passed-in TCP socket {0} without TLS: whoever can connect becomes root; add --tls=false to insist"
    )]
    InsecureTcp(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on which object.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ListenError {
    let what = what.into();
    move |source| ListenError::Io { what, source }
}

/// Opens everything in `hosts`. The umask must deny writing to others already.
pub fn open_all(
    hosts: &[Host],
    group: &SocketGroup,
    insecure_tcp: bool,
) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::with_capacity(hosts.len());
    for host in hosts {
        match host {
            Host::Unix(path) => {
                let gid = find_group(group)?;
                listeners.push(open_unix(path, gid)?);
            }
            Host::Tcp(addresses) => {
                for address in addresses {
                    let listener =
                        TcpListener::bind(address).map_err(failed(format!("listen on tcp://{address}")))?;
                    listeners.push(Listener::Tcp(listener));
                }
            }
            Host::Passed(Passed::Number(number)) => listeners.push(take(*number, insecure_tcp)?),
            Host::Passed(Passed::All) => {
                for number in announced()? {
                    listeners.push(take(number, insecure_tcp)?);
                }
            }
        }
    }
    for listener in &listeners {
        let result = match listener {
            Listener::Unix(listener, _) => listener.set_nonblocking(true),
            Listener::Tcp(listener) => listener.set_nonblocking(true),
        };
        result.map_err(failed("make a listening socket non-blocking"))?;
    }
    Ok(listeners)
}

/// The descriptors announced by `LISTEN_FDS`, as `sd_listen_fds(3)` defines it.
fn announced() -> Result<std::ops::Range<i32>, ListenError> {
    const FIRST: i32 = 3;
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count))
            if u32::try_from(pid) == Ok(std::process::id()) && (1..=1024).contains(&count) =>
        {
            Ok(FIRST..FIRST + count)
        }
        _ => Err(ListenError::NothingPassed),
    }
}

/// Takes over a passed-in listening socket.
fn take(number: i32, insecure_tcp: bool) -> Result<Listener, ListenError> {
    let socket =
        berth_sys::inherited::take(number).map_err(failed(format!("take over descriptor {number}")))?;
    adopt(socket, number, insecure_tcp)
}

fn adopt(socket: OwnedFd, number: i32, insecure_tcp: bool) -> Result<Listener, ListenError> {
    let not_a_listener = |_| ListenError::NotAListener(number);
    let listens = rustix::net::sockopt::socket_acceptconn(&socket).map_err(not_a_listener)?;
    let kind = rustix::net::sockopt::socket_type(&socket).map_err(not_a_listener)?;
    if !listens || kind != SocketType::STREAM {
        return Err(ListenError::NotAListener(number));
    }
    let family = rustix::net::sockopt::socket_domain(&socket).map_err(not_a_listener)?;
    match family {
        AddressFamily::UNIX => Ok(Listener::Unix(socket.into(), None)),
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = TcpListener::from(socket);
            let address = listener.local_addr().map_err(failed(format!("look at descriptor {number}")))?;
            if insecure_tcp || is_loopback(address.ip()) {
                Ok(Listener::Tcp(listener))
            } else {
                Err(ListenError::InsecureTcp(address.to_string()))
            }
        }
        _ => Err(ListenError::NotAListener(number)),
    }
}

/// Listens on a unix socket at `path`, mode 0660. A socket file that nobody answers on is replaced.
///
/// Two daemons that start at the same moment must not both find a stale file and take the path from each other,
/// so the directory is locked from the probe until the new socket listens.
fn open_unix(path: &Path, gid: Option<u32>) -> Result<Listener, ListenError> {
    let show = path.display();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ListenError::NotASocket(path.to_owned()));
    };
    fs::create_dir_all(parent).map_err(failed(format!("create {}", parent.display())))?;
    let directory = File::open(parent).map_err(failed(format!("open {}", parent.display())))?;
    flock(&directory, FlockOperation::LockExclusive)
        .map_err(|error| failed(format!("lock {}", parent.display()))(error.into()))?;
    // The address of a unix socket holds 107 bytes; the way by the descriptor is short whatever the path.
    let address = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);

    remove_stale(path, &address)?;
    // With the daemon's umask nobody but root can connect until the mode is widened, last of all.
    let listener = UnixListener::bind(&address).map_err(failed(format!("listen on unix://{show}")))?;
    let file = SocketFile::of(path).map_err(failed(format!("look at {show}")))?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))
            .map_err(failed(format!("give {show} to group {gid}")))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o660))
        .map_err(failed(format!("set the mode of {show}")))?;
    Ok(Listener::Unix(listener, Some(file)))
}

/// Removes the socket at `path` if nobody answers on it; `address` is the way to connect to it.
fn remove_stale(path: &Path, address: &Path) -> Result<(), ListenError> {
    let show = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("look at {show}"))(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(address) {
        Ok(stream) => {
            let pid = rustix::net::sockopt::socket_peercred(stream.as_fd())
                .map_or(0, |credentials| credentials.pid.as_raw_nonzero().get());
            Err(ListenError::InUse { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed(format!("remove the stale socket {show}")))
        }
        // Anything else, a full queue for one, may well be a living daemon.
        Err(error) => Err(failed(format!("probe {show}"))(error)),
    }
}

/// A socket file made here. Dropping it removes the file, unless the path is another's by now.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}

/// The number of the sockets' group; none to leave them root's.
fn find_group(group: &SocketGroup) -> Result<Option<u32>, ListenError> {
    /// Larger than any sane `/etc/group`.
    const CAP: u64 = 4 << 20;
    let mut text = String::new();
    let read = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open("/etc/group")
        .and_then(|file| file.take(CAP).read_to_string(&mut text));
    if let Err(error) = read
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed("read /etc/group")(error));
    }
    match group {
        SocketGroup::Named(name) => match lookup(&text, name).or_else(|| name.parse().ok()) {
            Some(gid) => Ok(Some(gid)),
            None => Err(ListenError::NoGroup(name.clone())),
        },
        SocketGroup::FirstOf(names) => Ok(names.iter().find_map(|name| lookup(&text, name))),
    }
}

/// Finds a group's number in the text of `/etc/group`.
fn lookup(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_GROUP: SocketGroup = SocketGroup::FirstOf(&[]);

    fn open(path: &Path) -> Result<Vec<Listener>, ListenError> {
        open_all(&[Host::Unix(path.to_owned())], &NO_GROUP, false)
    }

    #[test]
    fn a_live_socket_is_never_stolen_and_its_owner_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(&error, ListenError::InUse { pid, .. } if *pid == std::process::id().cast_signed()));
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        assert!(!path.exists(), "the socket file goes with its listener");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listeners = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        drop(listeners);

        fs::write(&path, "precious").unwrap();
        assert!(matches!(open(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_file_of_another_daemon_is_left_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let first = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = open(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn paths_may_be_longer_than_a_socket_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d".repeat(120)).join("api.sock");
        let _listeners = open(&path).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        assert!(matches!(open(&path), Err(ListenError::InUse { .. })));
    }

    #[test]
    fn tcp_on_both_families() {
        let hosts: Vec<Host> = ["tcp://127.0.0.1:0", "tcp://[::1]:0"]
            .iter()
            .map(|host| Host::parse(host, Path::new("/")).unwrap())
            .collect();
        assert_eq!(open_all(&hosts, &NO_GROUP, true).unwrap().len(), 2);
    }

    #[test]
    fn passed_in_sockets_are_checked() {
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(adopt(local.into(), 3, false), Ok(Listener::Tcp(_))));
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let refused = adopt(tcp.try_clone().unwrap().into(), 3, false);
        assert!(matches!(refused, Err(ListenError::InsecureTcp(_))));
        assert!(matches!(adopt(tcp.into(), 3, true), Ok(Listener::Tcp(_))));
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(adopt(file.into(), 7, true), Err(ListenError::NotAListener(7))));
        let (stream, _peer) = UnixStream::pair().unwrap();
        assert!(matches!(adopt(stream.into(), 7, true), Err(ListenError::NotAListener(7))));
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        assert_eq!(lookup("root:x:0:\ndocker:x:998:joe,ann\n", "docker"), Some(998));
        assert_eq!(lookup("root:x:0:\nbroken\ndocker\n", "docker"), None);
        assert_eq!(find_group(&SocketGroup::Named("4711".into())).unwrap(), Some(4711));
        let error = find_group(&SocketGroup::Named("no-such-group".into())).unwrap_err();
        assert_eq!(error.to_string(), "group no-such-group not found");
        assert_eq!(find_group(&NO_GROUP).unwrap(), None);
    }
}
