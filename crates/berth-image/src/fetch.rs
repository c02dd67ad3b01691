//! A compressed layer as it is: from a registry into the cache.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use berth_oci::digest::Hasher;
use berth_oci::{Descriptor, Digest, Reference};
use berth_registry::Client;
use berth_storage::{BlobKind, BlobWriter, Expected, Lease, Storage};
use futures_util::StreamExt as _;

use crate::progress::Reporter;
use crate::turn::{Turn, blocking};
use crate::{Inner, Result};

/// Whether the cache has all of a blob; `lease` holds it then.
pub(crate) async fn cached(inner: &Arc<Inner>, blob: &Descriptor, lease: &mut Lease) -> Result<bool> {
    let (inner, wanted) = (Arc::clone(inner), blob.clone());
    let mut held = inner.storage.lease();
    let found = blocking(move || {
        let blobs = inner.storage.blobs();
        if !blobs.hold(&wanted.digest, &mut held)? {
            return Ok(None);
        }
        // The cache is not synced: a power cut may have left less of a blob than its row says.
        let is_whole = blobs
            .open(&wanted.digest)
            .ok()
            .and_then(|file| file.metadata().ok())
            .is_some_and(|metadata| metadata.len() == wanted.size);
        if !is_whole {
            blobs.discard(&wanted.digest)?;
        }
        Ok(is_whole.then_some(held))
    })
    .await?;
    Ok(match found {
        Some(held) => {
            *lease = held;
            true
        }
        None => false,
    })
}

/// Brings a blob of `from` into the cache, verified, and holds it.
pub(crate) async fn fetch(
    inner: &Arc<Inner>,
    registry: &Client,
    from: &Reference,
    blob: &Descriptor,
    attempts: usize,
    reporter: &Reporter,
) -> Result<Lease> {
    // A blob has one writer: whoever wants it too waits, and then finds it in the cache.
    let turn = inner.turns.take(&blob.digest).await;
    let mut lease = inner.storage.lease();
    if cached(inner, blob, &mut lease).await? {
        return Ok(lease);
    }
    let mut attempt = 1;
    loop {
        let begun = inner.storage.blobs().begun(&blob.digest);
        let error = match download(inner, &turn, registry, from, blob, reporter).await {
            Err(error) => error,
            done => return done,
        };
        let name = blob.digest.short();
        // As for a pull: a mirror's failure is not the registry's.
        if registry.distrust(&blob.digest) || (begun > 0 && error.is_damage()) {
            tracing::warn!(blob = name, %error, "a download begins again");
            continue;
        }
        if attempt >= attempts || !error.is_transient() {
            return Err(error);
        }
        tracing::info!(blob = name, %error, attempt, "going on with a download");
        tokio::time::sleep(Duration::from_millis(200 << attempt.min(8))).await;
        attempt += 1;
    }
}

async fn download(
    inner: &Arc<Inner>,
    turn: &Turn,
    registry: &Client,
    from: &Reference,
    blob: &Descriptor,
    reporter: &Reporter,
) -> Result<Lease> {
    let expected = Expected { digest: blob.digest.clone(), size: Some(blob.size) };
    let storage = Arc::clone(&inner.storage);
    let mut writer = turn
        .blocking(move || {
            storage.check_space()?;
            Ok(storage.blobs().writer(BlobKind::Layer, expected)?)
        })
        .await?;
    let mut reporter = reporter.clone();
    if writer.offset() < blob.size {
        let mut stream = registry.blob(from, blob, writer.offset()).await?;
        while let Some(part) = stream.next().await {
            let part = part?;
            writer = turn.blocking(move || write(writer, &part)).await?;
            reporter.count("Downloading", writer.offset(), blob.size);
        }
    }
    let mut lease = inner.storage.lease();
    turn.blocking(move || {
        writer.commit(&mut lease)?;
        Ok(lease)
    })
    .await
}

fn write(mut writer: BlobWriter, bytes: &[u8]) -> Result<BlobWriter> {
    writer.write(bytes)?;
    Ok(writer)
}

/// Reads a blob of the cache again, and throws it away if it is not there, cannot be read or is not what its digest says;
/// whether it is gone. Blocks.
pub(crate) fn discard_if_damaged(storage: &Storage, digest: &Digest) -> Result<bool> {
    let is_whole = match storage.blobs().open(digest) {
        Err(berth_storage::Error::NotFound { .. }) => false,
        file => has_digest(file?, digest).unwrap_or_else(|error| {
            tracing::warn!(blob = digest.short(), %error, "a blob of the cache cannot be read");
            false
        }),
    };
    if !is_whole {
        storage.blobs().discard(digest)?;
    }
    Ok(!is_whole)
}

fn has_digest(mut file: File, digest: &Digest) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish() == *digest),
            count => hasher.update(&buffer[..count]),
        }
    }
}
