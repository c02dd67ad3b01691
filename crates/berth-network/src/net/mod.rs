//! The net process: what must not stop with the daemon.
//!
//! It holds a bound socket for each published port, so that no other program can take a port that the firewall
//! translates, and that a port in use is noticed before a container starts. What the firewall cannot translate (`::1`, and
//! IPv6 to containers that have none) it carries itself. The name servers of containers run in it ([`crate::names`]).
//! It records nothing: its owner, the daemon, fills it again whenever it had to be started anew. It answers one
//! request for each connection on `net.sock` below the exec root, to root only.

mod client;
mod datagrams;
mod forward;
pub(crate) mod poller;
mod process;
mod request;
mod reservation;
mod streams;

use serde::{Deserialize, Serialize};

use crate::names::{Change, Holdings, Refused};
use crate::{PortMapping, Wanted};

pub use client::NetClient;
pub(crate) use client::unexpected;
pub use process::main;

/// Name of the socket below the exec root.
const SOCKET: &str = "net.sock";
/// Name of the lock that keeps a second net process away.
const LOCK: &str = "net.lock";
/// Longest request or answer in bytes: some ten thousand ports or containers.
const MESSAGE_LIMIT: u64 = 16 << 20;

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Let a container hold these ports and no others; if one cannot be had, those that it held before.
    Reserve { owner: String, wanted: Vec<Wanted> },
    /// Give back what a container holds.
    Release { owner: String },
    /// Change what the name servers answer; descriptors come with the message.
    Names { version: u32, changes: Vec<Change> },
    /// What do the name servers hold?
    NamesHeld,
    /// Who holds what?
    List,
    /// End, if nothing is held.
    Stop,
}

/// What the net process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The ports that are held now, with the host's ports settled.
    Reserved(Vec<PortMapping>),
    /// This port is another container's.
    Taken { port: PortMapping },
    /// This port could not be bound.
    Refused { port: PortMapping, errno: i32 },
    /// Owners and their ports.
    Held(Vec<(String, Vec<PortMapping>)>),
    /// A change of the name servers could not be made.
    NamesRefused(Refused),
    /// What the name servers hold.
    NamesHeld(Holdings),
    /// Done.
    Done,
    /// The request made no sense to this version.
    Unknown(String),
}
