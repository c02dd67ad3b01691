//! Where the bytes of a layer come from, and how they are sent.

use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use berth_archive::compress::gzip;
use berth_archive::spare::Spare;
use berth_oci::media_type::{DOCKER_LAYER, OCI_LAYER};
use berth_oci::{Descriptor, Digest};
use berth_registry::Feed;
use berth_storage::{Lease, Storage, read_once};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

use crate::progress::Reporter;
use crate::{Error, Result};

/// Bytes that are read at a time.
const PART: usize = 256 << 10;
/// Parts that wait for the network.
const QUEUE: usize = 4;

/// Where the bytes of a layer's blob are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// In the cache.
    Cached(Digest),
    /// The files of the layer with this chain ID, which make its tar again.
    Unpacked(Digest),
}

impl Content {
    /// Writes the bytes from `offset` on. Blocks.
    fn write(&self, storage: &Storage, offset: u64, out: &mut Parts) -> io::Result<()> {
        match self {
            Self::Cached(digest) => {
                let file = storage.blobs().open(digest).map_err(io::Error::other)?;
                let mut offset = offset;
                loop {
                    let mut buffer = out.spare.take(PART);
                    buffer.resize(PART, 0);
                    let count = read_once(&file, &mut buffer, offset)?;
                    if count == 0 {
                        return Ok(());
                    }
                    buffer.truncate(count);
                    offset += count as u64;
                    out.send(buffer)?;
                }
            }
            Self::Unpacked(chain) => {
                out.skip = offset;
                let mut out = BufWriter::with_capacity(PART, out);
                rebuild(storage, chain, &mut out).map_err(io::Error::other)?;
                out.flush()
            }
        }
    }

    /// The bytes as an upload takes them, counted for `reporter`.
    pub fn feed(self, storage: Arc<Storage>, total: u64, reporter: Reporter) -> Box<Feed> {
        Box::new(move |offset| {
            let (sender, parts) = mpsc::channel(QUEUE);
            let (content, storage) = (self.clone(), Arc::clone(&storage));
            tokio::task::spawn_blocking(move || {
                let mut out = Parts { sender, skip: 0, spare: Arc::default() };
                if let Err(error) = content.write(&storage, offset, &mut out) {
                    // Nobody listens when the upload has ended: that is then the error.
                    let _ = out.sender.blocking_send(Err(error));
                }
            });
            let counted = unfold(
                (parts, reporter.clone(), offset),
                move |(mut parts, mut reporter, sent)| async move {
                    let part = parts.recv().await?;
                    let sent = sent + part.as_ref().map_or(0, |bytes: &Bytes| bytes.len() as u64);
                    reporter.count("Pushing", sent, total);
                    Some((part, (parts, reporter, sent)))
                },
            );
            counted.boxed()
        })
    }
}

/// Sends what is written as parts, but for its beginning.
struct Parts {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// Bytes that are not sent.
    skip: u64,
    /// Buffers of parts that were sent.
    spare: Arc<Spare>,
}

impl Parts {
    fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        let part = Bytes::from_owner(Part { bytes, spare: Arc::clone(&self.spare) });
        self.sender.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A part that is on its way; its buffer is used again.
struct Part {
    bytes: Vec<u8>,
    spare: Arc<Spare>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        if skipped < bytes.len() {
            let mut part = self.spare.take(PART);
            part.extend_from_slice(&bytes[skipped..]);
            self.send(part)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rebuild(storage: &Storage, chain: &Digest, out: &mut impl Write) -> Result<()> {
    let layers = storage.layers();
    let (mut meta, directory) = (layers.open_meta(chain)?, layers.open(chain)?);
    berth_archive::meta::rebuild(&mut meta, directory.as_fd(), storage.root(), out)
        .map_err(|source| Error::Pack { layer: chain.short().to_owned(), source })
}

/// Compresses a layer anew into the cache; the same layer gives the same bytes. The descriptor is of the family of
/// `like`. Blocks.
pub(super) fn compress(
    storage: &Storage,
    chain: &Digest,
    like: Option<&Descriptor>,
    reporter: &Reporter,
    lease: &mut Lease,
) -> Result<Descriptor> {
    storage.check_space()?;
    let total = crate::made::tar_size(storage, chain)?;
    let mut draft = storage.blobs().draft()?;
    let failed = |source| Error::Pack { layer: chain.short().to_owned(), source };
    gzip(&mut draft, |blocks| {
        let mut out = Counted { out: blocks, count: 0, total, reporter: reporter.clone() };
        rebuild(storage, chain, &mut out)
    })
    .map_err(failed)??;
    let info = draft.commit(lease)?;
    let is_oci = like.is_some_and(|like| like.media_type.starts_with(OCI_LAYER));
    let kind = if is_oci { format!("{OCI_LAYER}+gzip") } else { DOCKER_LAYER.to_owned() };
    let mut descriptor = Descriptor::new(&kind, info.digest, info.size);
    if let Some(like) = like {
        descriptor.annotations.clone_from(&like.annotations);
    }
    Ok(descriptor)
}

/// Counts what passes.
struct Counted<W> {
    out: W,
    count: u64,
    total: u64,
    reporter: Reporter,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        self.reporter.count("Compressing", self.count, self.total);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
