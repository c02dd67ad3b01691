//! Notices what others do to rules: nftables tells of every change in the network namespace.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use netlink_sys::Socket;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::legacy;
use super::message::{self, Message};
use crate::Error;

/// Changes come in bursts: how long it must be quiet, and how long is waited for that at most.
const QUIET: Duration = Duration::from_millis(50);
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// How often the tables of the older `iptables`, which are silent, are looked at, where there are any.
const LOOK: Duration = Duration::from_secs(10);
/// Restoring again within this time of the last is a quarrel with someone.
const QUARREL: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Largest datagram that tells of changes, in bytes.
const DATAGRAM: usize = 64 << 10;
const KIND_NEW_GENERATION: u16 = 15;
const GENERATION_PROCESS: u16 = 2;
const OUR_FAMILIES: [u8; 2] = [message::FAMILY_INET, message::FAMILY_BRIDGE];
const ENOBUFS: i32 = 105;

/// What others have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Our own table.
    pub own_table: bool,
    /// Other tables, or perhaps anything.
    pub others: bool,
}

/// Who is watched over.
pub(super) trait Watched: Send + Sync + 'static {
    /// Whether a process changed rules for us.
    fn is_ours(&self, process: u32) -> bool;
    /// Whether a table of this name is our own.
    fn is_own_table(&self, name: &str) -> bool;
    /// Puts back what others have taken away; true if there was something.
    fn restore(&self, seen: Seen) -> Result<bool, Error>;
}

/// Starts the watch on a thread of its own, which ends with what it watches. False, with a word in the log, if it cannot.
pub(super) fn start<W: Watched>(watched: Arc<W>) -> bool {
    let weak = Arc::downgrade(&watched);
    let started = message::open_for_notifications().and_then(|socket| {
        thread::Builder::new().name("firewall-watch".into()).spawn(move || watch(&socket, &weak))
    });
    started.map_err(|error| tracing::warn!(%error, "nobody watches over the firewall's rules")).is_ok()
}

fn watch<W: Watched>(socket: &Socket, watched: &Weak<W>) {
    let mut last: Option<Instant> = None;
    let mut pause = QUIET;
    loop {
        let seen = match wait(socket, watched) {
            Ok(Some(seen)) => seen,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "nobody watches over the firewall's rules any more");
                return;
            }
        };
        let Some(watched) = watched.upgrade() else { return };
        let restored = watched.restore(seen);
        drop(watched);
        if let Err(error) = &restored {
            tracing::warn!(%error, "firewall rules that others changed could not be put back");
        }
        if !matches!(restored, Ok(false)) {
            // Two that each restore their own would go on for ever: ever more slowly then.
            let quarrel = last.is_some_and(|last| last.elapsed() < QUARREL + pause);
            pause = if quarrel { (pause * 2).min(LONGEST_PAUSE) } else { QUIET };
            last = Some(Instant::now());
            if quarrel {
                thread::sleep(pause);
            }
        }
    }
}

/// Waits for a change by others, and for the end of the burst; `None` once nobody needs it any more.
fn wait<W: Watched>(socket: &Socket, watched: &Weak<W>) -> io::Result<Option<Seen>> {
    let mut seen = Seen::default();
    let mut batch = Seen::default();
    let mut began: Option<Instant> = None;
    loop {
        let patience = if began.is_some() { QUIET } else { LOOK };
        set_socket_timeout(socket, Timeout::Recv, Some(patience))?;
        match receive(socket) {
            Ok(data) => {
                for message in message::messages(&data) {
                    note(&message, &mut batch, &mut seen, watched);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if began.is_some() {
                    return Ok(Some(seen));
                }
                if watched.strong_count() == 0 {
                    return Ok(None);
                }
                if legacy::is_used() {
                    return Ok(Some(Seen { own_table: false, others: true }));
                }
            }
            // More happened than could be told.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                seen = Seen { own_table: true, others: true };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if seen != Seen::default() {
            let began = *began.get_or_insert_with(Instant::now);
            if began.elapsed() > LONGEST_BURST {
                return Ok(Some(seen));
            }
        }
    }
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    socket.recv(&mut buffer, 0)?;
    Ok(buffer)
}

/// Takes a message into account: a transaction's messages come before the one that says whose it was.
fn note<W: Watched>(message: &Message, batch: &mut Seen, seen: &mut Seen, watched: &Weak<W>) {
    let Some(kind) = message.nftables_kind() else { return };
    if message::is_ours(message.sequence) {
        return;
    }
    if kind != KIND_NEW_GENERATION {
        let table = message.attribute(1).map(message::text).unwrap_or_default();
        let own = OUR_FAMILIES.contains(&message.family)
            && watched.upgrade().is_some_and(|watched| watched.is_own_table(table));
        match own {
            true => batch.own_table = true,
            false => batch.others = true,
        }
        return;
    }
    let process = message.attribute(GENERATION_PROCESS).and_then(|id| id.try_into().ok());
    let process = process.map_or(0, u32::from_be_bytes);
    let batch = std::mem::take(batch);
    if !watched.upgrade().is_some_and(|watched| watched.is_ours(process)) {
        seen.own_table |= batch.own_table;
        seen.others |= batch.others;
    }
}
