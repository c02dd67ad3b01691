//! Layers of images that a build reads.

use std::sync::Arc;

use berth_oci::{ImageConfig, chain_ids};
use berth_storage::{Snapshot, SnapshotLease, Wish};

use crate::engine::Parts;
use crate::{Error, name};

/// An image's layers in use, which stay though the image is removed.
pub(super) struct Borrowed {
    parts: Arc<Parts>,
    id: String,
    _lease: SnapshotLease,
}

impl Borrowed {
    /// Takes hold of an image's layers. Blocks.
    pub fn new(parts: &Arc<Parts>, config: &ImageConfig) -> Result<Borrowed, Error> {
        Self::with(parts, config, Wish::default())
    }

    /// The same for a step's container; `owned`: its files belong on the disk to whom they belong outside of its user namespace.
    /// Blocks.
    pub fn for_step(parts: &Arc<Parts>, config: &ImageConfig, owned: bool) -> Result<Borrowed, Error> {
        Self::with(parts, config, Wish { owned, ..Wish::default() })
    }

    fn with(parts: &Arc<Parts>, config: &ImageConfig, wish: Wish) -> Result<Borrowed, Error> {
        let random = |source| Error::Io { operation: "read random bytes".into(), source };
        let id = format!("build-{}", name::new_id().map_err(random)?);
        let chain = chain_ids(&config.rootfs.diff_ids).pop();
        parts.storage.snapshots().create_with(&id, chain.as_ref(), wish)?;
        let lease = parts.storage.snapshots().acquire(&id)?;
        Ok(Borrowed { parts: Arc::clone(parts), id, _lease: lease })
    }

    /// Where the layers are.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(self.parts.storage.snapshots().mounts(&self.id)?)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Err(error) = self.parts.storage.snapshots().remove(&self.id) {
            tracing::warn!(%error, "a snapshot of a build stays until the next start");
        }
    }
}
