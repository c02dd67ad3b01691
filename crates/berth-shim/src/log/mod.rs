//! The log of one container, which the shim writes and the daemon reads: a directory of segments (the driver `local`), or
//! a file of JSON lines (`json-file`, see [`json`]).
//!
//! Each segment is named by the sequence number of its first record. Records carry their length at both ends, so
//! that a reader walks forwards (`logs`) and backwards (`--tail`), and their sequence number, so that a torn tail is
//! recognised without reading the whole segment. Nothing here syncs: a crash of the machine may lose the last moments.

mod background;
mod follow;
mod json;
mod plan;
mod query;
mod reader;
mod record;
pub mod remote;
mod segment;
mod sink;
mod split;
mod writer;

pub use follow::{Follow, Progress};
pub use json::JsonWriter;
pub use plan::{Endpoint, FilePlan, Plan, RemotePlan, TlsPlan};
pub use query::Query;
pub use reader::{Reader, Records};
pub use record::{Entry, Record, Stream};
pub(crate) use sink::Sink;
pub(crate) use split::Splitter;
pub use writer::{LogSettings, Writer};

use std::path::PathBuf;

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A system call on a file of the log failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "open".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A segment holds bytes that no writer of this format wrote; the rest of that segment is skipped.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
    },
}

/// What stands in a log where some of it is missing.
pub fn lost_text(records: u64, bytes: u64) -> String {
    format!("[berth: {records} log records ({bytes} bytes) could not be written]")
}

impl LogError {
    fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }
}
