//! Attaching clients to a container's streams.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use berth_shim::protocol::{Framing, Target};
use berth_shim::spawner::Attach;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::container::state::State;
use crate::container::{Container, Expected};
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::{Engine, Error, op};

/// `ctrl-p,ctrl-q`, Docker's default.
const DETACH_KEYS: [u8; 2] = [16, 17];
/// How long starts wait for a client that is sent what was logged before.
const REPLAY_PATIENCE: Duration = Duration::from_secs(1);

/// An attachment that was checked but has no connection yet, so that an answer can be sent on it first.
pub struct PendingAttach {
    /// Whether the streams are raw (a terminal) instead of framed.
    pub tty: bool,
    parts: Arc<Parts>,
    container: Arc<Container>,
    op: op::Attach,
    keys: Vec<u8>,
    /// A start waits while this is held.
    expected: Expected,
}

impl PendingAttach {
    /// Gives the connection away: the shim talks on it from now on. `read` is what was read from it already
    /// beyond the request.
    pub async fn connect(self, connection: OwnedFd, read: Vec<u8>) -> Result<(), Error> {
        let mut expected = Some(self.expected);
        let raw = self.tty || self.op.raw;
        if self.op.logs {
            let mut replay = pin!(replay(&self.parts, &self.container, &self.op, raw, &connection));
            let replayed = match tokio::time::timeout(REPLAY_PATIENCE, &mut replay).await {
                Ok(outcome) => outcome,
                // A client that does not read is no reason to hold up starts.
                Err(_) => {
                    drop(expected.take());
                    replay.await
                }
            };
            replayed?;
        }
        self.parts.events.publish(self.container.event(ContainerEvent::Attach));
        if !self.op.stream {
            drop(expected);
            return hung_up(connection)
                .await
                .map_err(|source| Error::Io { operation: "wait for a client to hang up".into(), source });
        }
        let config = &self.container.definition.config;
        let attach = Attach {
            connection,
            prefix: read,
            stdin: self.op.stdin && config.open_stdin,
            stdout: self.op.stdout,
            stderr: self.op.stderr,
            framing: framing(raw),
            detach_keys: if self.tty { self.keys } else { Vec::new() },
        };
        let now = self.container.attach_or_wait(attach)?;
        drop(expected);
        if let Some((shim, attach)) = now {
            shim.attach(Target::Init, attach).await?;
        }
        Ok(())
    }
}

/// Writes what was logged so far.
async fn replay(
    parts: &Parts,
    container: &Arc<Container>,
    op: &op::Attach,
    raw: bool,
    connection: &OwnedFd,
) -> Result<(), Error> {
    let op = op::Logs { stdout: op.stdout, stderr: op.stderr, ..op::Logs::default() };
    let mut log = super::logs::open(parts, container, op, raw).await?;
    while let Some(piece) = log.pieces.recv().await {
        let sent = send_all(connection, &piece?).await;
        sent.map_err(|source| Error::Io { operation: "write to a client".into(), source })?;
    }
    Ok(())
}

/// Ends what is sent, and waits until the client has hung up. A connection that was closed with something unread
/// in it would be reset, and what was sent last could be lost on the way.
async fn hung_up(connection: OwnedFd) -> std::io::Result<()> {
    use rustix::net::{RecvFlags, Shutdown};
    rustix::io::ioctl_fionbio(&connection, true)?;
    match rustix::net::shutdown(&connection, Shutdown::Write) {
        Err(rustix::io::Errno::NOTCONN) => return Ok(()),
        outcome => outcome?,
    }
    let connection = registered(connection, Interest::READABLE)?;
    let mut unread = [0; 1024];
    loop {
        let mut readable = connection.readable().await?;
        let received = readable.try_io(|connection| {
            Ok(rustix::net::recv(connection.get_ref(), &mut unread, RecvFlags::empty())?.0)
        });
        match received {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// How output is put on a connection.
pub(super) fn framing(raw: bool) -> Framing {
    if raw { Framing::Raw } else { Framing::Multiplexed }
}

/// Writes everything to a connection, whose client is waited for.
pub(super) async fn send_all(connection: &OwnedFd, mut bytes: &[u8]) -> std::io::Result<()> {
    use rustix::net::SendFlags;
    let connection = registered(connection.as_fd(), Interest::WRITABLE)?;
    while !bytes.is_empty() {
        let mut writable = connection.writable().await?;
        let sent = writable.try_io(|connection| {
            // Sent, not written: a peer that went away is an error and no signal.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(rustix::net::send(connection.get_ref(), bytes, flags)?)
        });
        match sent {
            Ok(Ok(sent)) => bytes = &bytes[sent..],
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            // It was not ready after all.
            Err(_) => {}
        }
    }
    Ok(())
}

/// A connection whose readiness is waited for.
#[expect(deprecated, reason = "the unsafe successor is for types that might lie about their descriptor")]
fn registered<T: AsRawFd>(connection: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(connection, interest)
}

impl Engine {
    /// Checks an attachment; send the answer's head, then [`PendingAttach::connect`].
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn attach(&self, name: &str, op: op::Attach) -> Result<PendingAttach, Error> {
        let keys = detach_keys(op.detach_keys.as_deref())?;
        let container = self.parts.containers.find(name)?;
        let id = container.id();
        match container.state() {
            State::Running(running) if running.paused => {
                return Err(Error::Paused(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            State::Restarting(_) => return Err(Error::restarting(id)),
            State::Removing => return Err(Error::NoSuchContainer(name.to_owned())),
            State::Running(_) | State::Created { .. } | State::Starting { .. } | State::Exited(_) => {}
        }
        Ok(PendingAttach {
            tty: container.definition.config.tty,
            parts: Arc::clone(&self.parts),
            expected: container.expect_attachment(),
            container,
            op,
            keys,
        })
    }
}

/// Reads keys in Docker's notation: single characters and `ctrl-` with one, separated by commas.
pub(super) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DETACH_KEYS.into());
    };
    let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
        (None, [one]) => Some(*one),
        (Some(with), _) => match with.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'@'),
            _ => None,
        },
        _ => None,
    };
    text.split(',')
        .map(key)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::InvalidParameter(format!("Invalid detach keys ({text}) provided")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read() {
        for (text, keys) in [
            (None, vec![16, 17]),
            (Some(""), vec![16, 17]),
            (Some("ctrl-a"), vec![1]),
            (Some("a,ctrl-z,b"), vec![b'a', 26, b'b']),
            (Some("ctrl-@,ctrl-["), vec![0, 27]),
        ] {
            assert_eq!(detach_keys(text).unwrap(), keys);
        }
        for bad in ["ab", "ctrl-", "ctrl-aa", "ctrl-A", ",", "a,,b", "é"] {
            assert!(detach_keys(Some(bad)).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_stream_ends_and_lasts_until_the_client_hangs_up() {
        use std::io::{Read, Write};
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        send_all(&ours.try_clone().unwrap().into(), b"logged").await.unwrap();
        theirs.write_all(b"never read by a container").unwrap();
        let waiting = tokio::spawn(hung_up(ours.into()));
        let (theirs, text) = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            theirs.read_to_string(&mut text).map(|_| (theirs, text))
        })
        .await
        .unwrap()
        .unwrap();
        assert_eq!(text, "logged");
        assert!(!waiting.is_finished());
        drop(theirs);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_full_connection_is_waited_for() {
        use std::io::Read;
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let sent = vec![7u8; 4 << 20];
        let expected = sent.len();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            received.len()
        });
        let ours = OwnedFd::from(ours);
        send_all(&ours, &sent).await.unwrap();
        drop(ours);
        assert_eq!(reader.join().unwrap(), expected);
    }
}
