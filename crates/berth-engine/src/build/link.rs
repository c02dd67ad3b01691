//! `COPY --link`: a layer that does not depend on what lies below.

use berth_archive::pack::layer;
use berth_build::solve::{Copying, Image};
use berth_image::NewLayer;
use berth_oci::Digest;
use berth_storage::Snapshot;

use super::borrowed::Borrowed;
use super::cancel::Cancelling;
use super::copy::{self, Manner};
use super::executor::Worker;
use super::gather::Files;
use super::mounted::Mounted;
use crate::Error;

/// Changes with every change of what keys are made of.
const VERSION: &str = "berth-link-2";

/// A layer, and what it is remembered by: the image that it was last the top of.
pub(super) struct Linked {
    pub layer: Option<NewLayer>,
    pub key: Digest,
}

/// Makes the layer of an instruction upon nothing, or takes it from wherever it lies on top, unless it has to be `fresh`.
/// Blocks.
pub(super) fn copy(
    worker: &Worker,
    parent: Option<&Image>,
    (copying, history): (&Copying, &str),
    files: &Files,
    fresh: bool,
) -> Result<Linked, Error> {
    let named = copying.chown.as_deref().is_some_and(|text| text.contains(|c: char| c.is_ascii_alphabetic()));
    let nothing = Mounted::new(worker.parts(), None)?;
    let manner = match parent.filter(|_| named) {
        // Names of users are those of the image below.
        Some(image) => Manner::new(copying, Mounted::new(worker.parts(), Some(&image.config))?.root()?)?,
        None => Manner::new(copying, nothing.root()?)?,
    };
    let Copying { destination, unpack, parents, exclude, .. } = copying;
    let (manner_text, epoch) = (manner.text(), worker.request.epoch());
    let text = format!(
        "{VERSION} {history:?} {destination:?} {unpack:?} {parents} {exclude:?} {manner_text} {epoch:?}"
    );
    let key = Digest::of(text.as_bytes());
    if !fresh
        && !worker.request.no_cache
        && worker.request.cache_from.is_empty()
        && let Some(layer) = known(worker, &key)?
    {
        return Ok(Linked { layer: Some(layer), key });
    }
    Ok(Linked { layer: copy::copy(worker, nothing, copying, files, manner)?, key })
}

/// The layer that lies on top of an image.
fn known(worker: &Worker, key: &Digest) -> Result<Option<NewLayer>, Error> {
    let parts = worker.parts();
    let Some(id) = parts.storage.build_steps().get(key)? else { return Ok(None) };
    // What somebody removes meanwhile is made again.
    let Ok(config) = parts.images.config(&id) else { return Ok(None) };
    let Ok(_held) = parts.images.hold(&id, &config) else { return Ok(None) };
    let borrowed = Borrowed::new(parts, &config)?;
    let (top, nothing) = (borrowed.snapshot()?.top()?, Snapshot::nothing()?);
    let write = |out: &mut dyn std::io::Write| {
        let out = Cancelling::new(out, &worker.cancelled);
        layer::pack(&top, &nothing, &layer::Options::default(), out)
    };
    Ok(Some(parts.images.layer_from("build", write)?))
}
