//! Directories of `RUN --mount=type=cache` in caches: each is an image with one layer.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, PoisonError};

use berth_archive::copy;
use berth_image::{Kept, MOUNT};
use berth_oci::{Digest, ImageConfig, Platform};
use berth_storage::CacheUse;

use super::super::borrowed::Borrowed;
use super::super::executor::Worker;
use crate::Error;
use crate::life::sources;

/// The directories that the build used, as images. Blocks.
pub(super) fn images(worker: &Worker) -> Result<Vec<Kept>, Error> {
    let used = worker.caches.mounts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut kept = Vec::new();
    for key in used {
        let caches = worker.parts().storage.build_caches();
        let lease = caches.acquire(&key, CacheUse::Shared, || worker.check().is_ok())?;
        let lease = lease.ok_or_else(super::super::executor::cancelled)?;
        // One that was pruned meanwhile has nothing to keep.
        if !lease.is_new() {
            let image = image(worker, lease.open()?.as_fd())?;
            kept.push(Kept { image, annotation: MOUNT, key });
        }
    }
    Ok(kept)
}

fn image(worker: &Worker, directory: BorrowedFd<'_>) -> Result<Digest, Error> {
    let images = &worker.parts().images;
    let layer =
        images.layer_from("build", |out| copy::pack_with_attributes(directory, b"/", b".", out, None))?;
    let Platform { os, architecture, variant, .. } = Platform::host();
    let config = ImageConfig { os, architecture, variant, ..ImageConfig::default() };
    Ok(worker.compose(config, Some(layer), None)?.id)
}

/// Fills a new directory with what a cache has for it; whether one has. Blocks.
pub(in super::super) fn fill(
    worker: &mut Worker,
    key: &Digest,
    directory: BorrowedFd<'_>,
) -> Result<bool, Error> {
    let caches = Arc::clone(&worker.caches);
    for source in caches.sources() {
        let Some(entry) = source.mounts.get(key) else { continue };
        let filled = source.bring(worker, entry, 0).and_then(|image| {
            let borrowed = Borrowed::new(worker.parts(), &image.config)?;
            let tree = sources::image(&borrowed.snapshot()?)?;
            super::super::mounts::copy_all(worker, tree.as_fd(), directory)
        });
        match filled {
            Ok(()) => return Ok(true),
            Err(error) => source.fails(worker, &error)?,
        }
    }
    Ok(false)
}
