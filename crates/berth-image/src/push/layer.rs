//! One layer of a push: already there, mounted, or uploaded from wherever its bytes are.

use std::sync::Arc;

use berth_oci::{Descriptor, Digest, Reference};
use berth_registry::{Begun, Client, Mount};
use berth_storage::Lease;

use super::content::{self, Content};
use crate::origins::Origin;
use crate::progress::Reporter;
use crate::turn::blocking;
use crate::{Inner, Result, fetch};

/// Repositories that are asked for one blob.
const MOUNTS: usize = 3;

/// A layer that is to be in the target.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub diff: Digest,
    pub chain: Digest,
    /// The blob of the kept manifest.
    pub original: Option<Descriptor>,
    /// What else is known of it.
    pub origins: Vec<Origin>,
}

impl Layer {
    /// Blobs that would do, the best first.
    fn candidates(&self) -> Vec<Descriptor> {
        match &self.original {
            Some(original) => vec![original.clone()],
            None => self.origins.iter().map(|origin| origin.blob.clone()).collect(),
        }
    }

    /// Repositories that are known to hold a blob.
    fn repositories(&self, blob: &Digest) -> impl Iterator<Item = Reference> {
        let known = self.origins.iter().find(|origin| origin.blob.digest == *blob);
        known.into_iter().flat_map(|origin| &origin.repositories).filter_map(|name| name.parse().ok())
    }
}

/// Brings one layer to the target.
pub(super) struct Job {
    pub inner: Arc<Inner>,
    pub registry: Client,
    pub target: Reference,
    pub layer: Layer,
    pub reporter: Reporter,
    pub attempts: usize,
}

impl Job {
    /// Gives what the target now has.
    pub async fn run(self) -> Result<Descriptor> {
        let candidates = self.layer.candidates();
        for blob in &candidates {
            if is_foreign(blob) {
                self.reporter.state("Skipped foreign layer").await;
                return Ok(blob.clone());
            }
            if self.registry.has_blob(&self.target, &blob.digest).await? {
                self.reporter.state("Layer already exists").await;
                return Ok(blob.clone());
            }
        }
        let mut begun = None;
        for blob in &candidates {
            match self.mount(blob).await? {
                Mounting::From(path) => {
                    self.reporter.state(format!("Mounted from {path}")).await;
                    return Ok(blob.clone());
                }
                Mounting::Refused(upload) => begun = upload.or(begun),
            }
        }
        let mut lease = self.inner.storage.lease();
        for blob in &candidates {
            let Some(content) = self.content(blob, &mut lease).await? else { continue };
            match self.upload(blob, content.clone(), begun.take()).await {
                Ok(()) => return Ok(blob.clone()),
                Err(error) if self.is_damaged(&content).await? => {
                    tracing::warn!(blob = blob.digest.short(), %error, "a damaged blob of the cache is thrown away");
                }
                Err(error) => return Err(error),
            }
        }
        self.anew(lease).await
    }

    /// Asks the registry to take the blob from another of its repositories.
    async fn mount(&self, blob: &Descriptor) -> Result<Mounting> {
        let same =
            |from: &Reference| from.domain() == self.target.domain() && from.path() != self.target.path();
        let mut begun = None;
        for from in self.layer.repositories(&blob.digest).filter(same).take(MOUNTS) {
            match self.registry.mount(&self.target, &blob.digest, from.path()).await {
                Ok(Mount::Mounted) => return Ok(Mounting::From(from.path().to_owned())),
                Ok(Mount::Begun(upload)) => begun = Some(upload),
                // One who may not read there may still push here, also to a registry that knows no mounts.
                Err(error) if error.is_refusal() => {
                    tracing::debug!(%error, from = from.path(), "no mount");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Mounting::Refused(begun))
    }

    /// The bytes of a blob, if they can be had.
    async fn content(&self, blob: &Descriptor, lease: &mut Lease) -> Result<Option<Content>> {
        if blob.digest == self.layer.diff {
            let (inner, chain) = (Arc::clone(&self.inner), self.layer.chain.clone());
            let size = blocking(move || crate::made::tar_size(&inner.storage, &chain)).await?;
            return Ok((size == blob.size).then(|| Content::Unpacked(self.layer.chain.clone())));
        }
        if fetch::cached(&self.inner, blob, lease).await? {
            return Ok(Some(Content::Cached(blob.digest.clone())));
        }
        if self.layer.original.is_none() {
            // Compressing anew is nearer than another registry.
            return Ok(None);
        }
        for from in self.layer.repositories(&blob.digest) {
            match fetch::fetch(&self.inner, &self.registry, &from, blob, self.attempts, &self.reporter).await
            {
                Ok(held) => {
                    *lease = held;
                    return Ok(Some(Content::Cached(blob.digest.clone())));
                }
                Err(error) => {
                    tracing::info!(from = from.name(), %error, "a layer cannot be had from where it came");
                }
            }
        }
        Ok(None)
    }

    async fn upload(&self, blob: &Descriptor, content: Content, begun: Option<Begun>) -> Result<()> {
        let feed = content.feed(Arc::clone(&self.inner.storage), blob.size, self.reporter.clone());
        self.registry.upload(&self.target, blob, begun, feed.as_ref(), self.attempts).await?;
        self.reporter.state("Pushed").await;
        Ok(())
    }

    /// Whether a blob of the cache is not what it should be; it is thrown away then.
    async fn is_damaged(&self, content: &Content) -> Result<bool> {
        let Content::Cached(digest) = content else { return Ok(false) };
        let (inner, digest) = (Arc::clone(&self.inner), digest.clone());
        blocking(move || fetch::discard_if_damaged(&inner.storage, &digest)).await
    }

    /// Compresses the layer anew, and uploads that.
    async fn anew(self, mut lease: Lease) -> Result<Descriptor> {
        let (inner, layer, reporter) = (Arc::clone(&self.inner), self.layer.clone(), self.reporter.clone());
        let (blob, _lease) = blocking(move || {
            let like = layer.original.as_ref();
            let blob = content::compress(&inner.storage, &layer.chain, like, &reporter, &mut lease)?;
            Ok((blob, lease))
        })
        .await?;
        if self.registry.has_blob(&self.target, &blob.digest).await? {
            self.reporter.state("Layer already exists").await;
            return Ok(blob);
        }
        self.upload(&blob, Content::Cached(blob.digest.clone()), None).await?;
        Ok(blob)
    }
}

/// What became of mounts.
enum Mounting {
    /// The blob was taken from this repository.
    From(String),
    /// It was not; perhaps an upload has begun instead.
    Refused(Option<Begun>),
}

/// Layers that are never in the registry of their image.
fn is_foreign(blob: &Descriptor) -> bool {
    blob.media_type.contains("foreign")
        || (blob.media_type.contains("nondistributable") && !blob.urls.is_empty())
}
