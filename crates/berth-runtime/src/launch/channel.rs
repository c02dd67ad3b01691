//! What init and its parent say to each other, over a pair of message sockets.
//!
//! Both ends are close-on-exec: the end of the conversation after [`Report::Ready`] is the success of `execve`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::socket;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Stage, StartError};
use super::types::Release;

/// Longest message, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// From init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It gives up.
    Failed(StartError),
    /// The namespaces exist: the hooks of the runtime's own namespaces are due. Answered by [`Order::Continue`].
    HooksDue,
    /// Only the execution of the program is left. Carries the master of the terminal, if there is one.
    Ready,
}

/// To init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The links are there, or are not wanted.
    Release(Release),
    /// The hooks have succeeded.
    Continue,
    /// The user namespace has its mappings.
    Mapped,
}

pub(crate) fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    socket::send(socket, &bytes, fds)
}

/// The next message, or `None` at the end of the conversation.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let message = socket::receive(socket, MAX_BYTES)?;
    if message.bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&message.bytes)?, message.fds)))
}

/// Init's side: waits for an order. The end of the conversation means that the parent has gone: so does init.
pub(crate) fn await_order(socket: impl AsFd) -> Result<Order, StartError> {
    match receive(socket) {
        Ok(Some((order, _))) => Ok(order),
        Ok(None) => Err(StartError::new(Stage::Protocol, "the parent of init has gone")),
        Err(error) => Err(StartError::io(Stage::Protocol, "wait for the parent of init", &error)),
    }
}
