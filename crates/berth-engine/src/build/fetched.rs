//! What an address gives, as it comes.

use std::io::{self, Read};

use berth_registry::BlobStream;
use futures_util::StreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::executor::Worker;

/// Reads it as long as somebody wants the build: however slow the server is, the end of the build is not.
pub(super) fn reader(worker: &Worker, parts: BlobStream) -> impl Read + use<> {
    let bytes = parts.map(|part| part.map_err(io::Error::other));
    let bytes = bytes.take_until(worker.cancelled.clone().cancelled_owned());
    let reader = StreamReader::new(Box::pin(bytes));
    worker.cancelling(SyncIoBridge::new_with_handle(reader, worker.handle.clone()))
}
