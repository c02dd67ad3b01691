//! What an image is to a user: pull, push, load, save, names, removal.
//!
//! An image is identified by the digest of its configuration. Its layers are unpacked as they come, in parallel, into
//! staging directories; only when all are there and verified are they put in place from the bottom upwards, and only
//! then is the image recorded and named, in one transaction. Whatever fails before that leaves nothing but partly
//! downloaded blobs, which the next attempt goes on with.
#![forbid(unsafe_code)]

mod assemble;
mod bundle;
mod compose;
mod error;
mod estimate;
mod fetch;
mod hello;
mod load;
mod made;
mod names;
mod origins;
mod progress;
mod pull;
mod push;
mod remote;
mod removal;
mod save;
mod stream;
mod turn;
mod unpack;
mod variants;

use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::media_type::OCI_MANIFEST;
use berth_oci::{Descriptor, Digest, Document, ImageConfig};
use berth_storage::Storage;

pub use compose::{Composed, Held, NewLayer};
pub use error::{Error, ErrorKind, Result};
pub use estimate::{Estimate, LayerEstimate, Presence};
pub use load::Loaded;
pub use names::ResolvedImage;
pub use progress::Progress;
pub use pull::{PullLimits, Pulled, Pulling};
pub use push::steps::{Kept, MOUNT, STEP};
pub use push::{Instead, PushLimits, Pushed, Pushing};
pub use remote::Distribution;
pub use removal::{InUse, Removal, Removed};
pub use save::Saving;
pub use variants::{Content, Listed, RemovedVariant};

use turn::Turns;

/// All images of one data root.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    storage: Arc<Storage>,
    registry: berth_registry::Client,
    limits: Mutex<PullLimits>,
    /// Pulls of the same image, or blob, wait for each other.
    turns: Turns,
}

impl Images {
    /// Images in `storage`, pulled by `registry`.
    pub fn new(storage: Arc<Storage>, registry: berth_registry::Client) -> Self {
        let limits = Mutex::default();
        Self { inner: Arc::new(Inner { storage, registry, limits, turns: Turns::default() }) }
    }

    /// Takes other settings into use for pulls that begin after this.
    pub fn configure(&self, registry: berth_registry::RegistryConfig, limits: PullLimits) {
        self.inner.registry.configure(registry);
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> PullLimits {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storage(&self) -> &Arc<Storage> {
        &self.inner.storage
    }

    /// The manifest of a stored image, with its platform; none if the image has none.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn manifest(&self, image: &ResolvedImage) -> Result<Option<Descriptor>> {
        let mut sources = self.storage().images().sources(&image.record.id)?;
        sources.sort_by(|a, b| a.manifest.cmp(&b.manifest));
        let Some(source) = sources.into_iter().next() else { return Ok(None) };
        let bytes = self.storage().blobs().read(&source.manifest)?;
        let Document::Manifest(manifest) = Document::read(&bytes, Some(OCI_MANIFEST))? else {
            return Ok(None);
        };
        let kind = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
        let mut found = Descriptor::new(kind, source.manifest, bytes.len() as u64);
        found.platform = Some(image.config.platform());
        Ok(Some(found))
    }

    /// The configuration of a stored image.
    ///
    /// # Errors
    /// Database and file errors; a damaged configuration.
    pub fn config(&self, id: &Digest) -> Result<ImageConfig> {
        Ok(ImageConfig::read(&self.storage().blobs().read(id)?)?)
    }
}
