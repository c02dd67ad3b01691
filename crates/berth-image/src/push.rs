//! Bringing images to a registry.
//!
//! An image goes with the manifest that it came with, byte for byte, as long as each blob that this names can be had:
//! from the target itself, from another repository of its registry, from the cache, from the unpacked files, or from
//! where it came. Only otherwise a layer is compressed anew, and the manifest with it.

mod attestations;
mod content;
mod documents;
mod index;
mod layer;
pub(crate) mod steps;

use std::collections::HashMap;
use std::sync::Arc;

use berth_oci::{Descriptor, Digest, Platform, Reference};
use berth_registry::{Caller, Client, Feed};
use berth_storage::{Lease, Tag};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::progress::{Reporter, telling};
use crate::turn::blocking;
use crate::{Error, Images, Progress, Result, origins};
use documents::Planned;
use layer::Job;

/// Bounds of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// Layers that are sent at the same time.
    pub parallel: usize,
    /// Attempts at one layer, each of which goes on where the last one stopped.
    pub attempts: usize,
}

impl Default for PushLimits {
    /// Docker's.
    fn default() -> Self {
        Self { parallel: 5, attempts: 5 }
    }
}

/// How a push is to be done.
#[derive(Debug, Clone, Default)]
pub struct Pushing {
    /// The platform that is pushed; all if none is given.
    pub platform: Option<Platform>,
    /// On whose behalf.
    pub caller: Caller,
    /// Bounds.
    pub limits: PushLimits,
}

/// A tag that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The manifest that the image came with, if it could not be kept.
    pub replaced: Option<Digest>,
    /// What was pushed, and the index that it was pushed instead of, because not all that this lists can be had.
    pub instead: Option<Instead>,
}

/// One image that was pushed instead of several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instead {
    /// The index that the name points to.
    pub index: Descriptor,
    /// What was pushed.
    pub manifest: Descriptor,
}

impl Images {
    /// The tags that a push of `reference` means: its own, or all of the repository.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::NoTag`] in Docker's words; database errors. Blocks.
    pub fn pushable(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let tags = self.storage().images().tags_of(&reference.name())?;
        if tags.is_empty() {
            return Err(Error::NoRepository(reference.familiar_repository()));
        }
        if reference.tag().is_none() {
            return Ok(tags.into_iter().filter_map(|(name, _)| name.parse().ok()).collect());
        }
        match self.storage().images().by_name(&reference.canonical())? {
            Some(_) => Ok(vec![reference.clone()]),
            None => Err(Error::NoTag(reference.familiar())),
        }
    }

    /// Brings what the tag `reference` names to the registry of that name: the index with all its platforms if these can
    /// be had or are there already, or one image.
    ///
    /// # Errors
    /// What the registry says; [`Error::WrongPlatform`]; [`Error::SeveralPlatforms`] if one of them has to be chosen.
    /// What was sent of layers stays in the registry.
    pub async fn push(
        &self,
        reference: &Reference,
        how: &Pushing,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Pushed> {
        let registry = self.inner.registry.on_behalf(reference.domain(), how.caller.clone());
        let registry = telling(&registry, &progress);
        // Waits for the registry are told to the end.
        let _told = progress.clone();
        let mut index = None;
        if how.platform.is_none()
            && let Some(whole) = self.whole(reference).await?
        {
            match self.push_whole(&registry, reference, &whole, how.limits, &progress).await? {
                Some(pushed) => return Ok(pushed),
                None => index = Some(self.only_one(reference, whole).await?),
            }
        }
        let (images, name, platform) = (self.clone(), reference.clone(), how.platform.clone());
        let (planned, mut lease) = blocking(move || {
            let mut lease = images.storage().lease();
            let planned = images.plan_push(&name, platform.as_ref(), &mut lease)?;
            Ok((planned, lease))
        })
        .await?;
        let sent = self.send_image(&registry, reference, &planned, how.limits, progress).await?;
        let digest = registry.put_manifest(reference, &sent.kind, sent.bytes.clone()).await?;
        let original = planned.original.as_ref().map(|manifest| manifest.digest.clone());
        let manifest = Descriptor::new(&sent.kind, digest.clone(), sent.bytes.len() as u64);
        let pushed = Pushed {
            tag: reference.tag().unwrap_or_default().to_owned(),
            size: manifest.size,
            replaced: original.filter(|original| *original != digest),
            digest,
            instead: index.map(|index| Instead { index, manifest }),
        };
        let (images, name, digest) = (self.clone(), reference.clone(), pushed.digest.clone());
        blocking(move || {
            let by_digest = Reference::at(&name, digest.clone()).canonical();
            let tag = Tag { name: by_digest, target: digest };
            // One platform of a name needs no name of its own.
            let tag = Some(tag).filter(|_| !images.is_covered(&planned.record.id).unwrap_or_default());
            images.record_push(&name, &planned, &sent, tag.as_slice(), &mut lease)
        })
        .await?;
        Ok(pushed)
    }

    /// Brings everything of an image to the target but its manifest, which it gives.
    async fn send_image(
        &self,
        registry: &Client,
        target: &Reference,
        planned: &Planned,
        limits: PushLimits,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Sent> {
        let layers = self.send_layers(registry, target, planned, limits, progress).await?;
        send_config(registry, target, planned, limits).await?;
        let (kind, bytes) = planned.manifest(&layers)?;
        Ok(Sent { layers, kind, digest: Digest::of(&bytes), bytes })
    }

    /// Brings the layers to the target; the result is in their order.
    async fn send_layers(
        &self,
        registry: &Client,
        target: &Reference,
        planned: &Planned,
        limits: PushLimits,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Descriptor>> {
        let parallel = limits.parallel.max(1);
        let slots = Arc::new(Semaphore::new(parallel));
        let mut tasks = JoinSet::new();
        // The same layer may be in an image more than once.
        let mut diffs = Vec::new();
        for layer in planned.layers.iter().rev() {
            if !diffs.contains(&layer.diff) {
                Reporter::new(layer.diff.short().to_owned(), progress.clone()).state("Preparing").await;
                diffs.push(layer.diff.clone());
            }
        }
        for (index, diff) in diffs.iter().enumerate() {
            let Some(layer) = planned.layers.iter().find(|layer| layer.diff == *diff) else { continue };
            let reporter = Reporter::new(diff.short().to_owned(), progress.clone());
            if index >= parallel {
                reporter.state("Waiting").await;
            }
            let job = Job {
                inner: Arc::clone(&self.inner),
                registry: registry.clone(),
                target: target.clone(),
                layer: layer.clone(),
                reporter,
                attempts: limits.attempts,
            };
            let (slots, diff) = (Arc::clone(&slots), diff.clone());
            tasks.spawn(async move {
                let _slot = slots.acquire_owned().await;
                job.run().await.map(|blob| (diff, blob))
            });
        }
        drop(progress);
        let mut sent = HashMap::new();
        while let Some(done) = tasks.join_next().await {
            // The first failure ends the others: dropping the set aborts them.
            let (diff, blob) =
                done.map_err(|error| Error::io("push a layer", std::io::Error::other(error)))??;
            sent.insert(diff, blob);
        }
        let in_order = planned.layers.iter().filter_map(|layer| sent.get(&layer.diff).cloned());
        Ok(in_order.collect())
    }

    /// Remembers what the target has now. Blocks.
    fn record_push(
        &self,
        target: &Reference,
        planned: &Planned,
        sent: &Sent,
        names: &[Tag],
        lease: &mut Lease,
    ) -> Result<()> {
        let storage = self.storage();
        let diffs = planned.layers.iter().map(|layer| &layer.diff);
        origins::remember(storage, diffs.zip(&sent.layers), target)?;
        storage.blobs().put(&sent.digest, &sent.bytes, lease)?;
        let index = planned.index.clone().filter(|_| planned.keeps(&sent.digest));
        let source = berth_storage::Source { manifest: sent.digest.clone(), index };
        // An image that was removed in the meantime stays removed.
        if storage.images().get(&planned.record.id)?.is_some() {
            storage.images().put(&planned.record, &[source], names)?;
        }
        Ok(())
    }
}

/// An image whose layers and configuration the target has.
struct Sent {
    layers: Vec<Descriptor>,
    /// Media type of the manifest.
    kind: String,
    /// Digest of the manifest.
    digest: Digest,
    /// The manifest.
    bytes: Vec<u8>,
}

/// Brings the image's configuration to the target.
async fn send_config(
    registry: &Client,
    target: &Reference,
    planned: &Planned,
    limits: PushLimits,
) -> Result<()> {
    let blob = planned.config();
    if registry.has_blob(target, &blob.digest).await? {
        return Ok(());
    }
    let bytes = Bytes::from(planned.config_bytes.clone());
    let feed: Box<Feed> = Box::new(move |offset| {
        let rest = bytes.slice(usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())..);
        futures_util::stream::iter([Ok(rest)]).boxed()
    });
    registry.upload(target, &blob, None, feed.as_ref(), limits.attempts).await?;
    Ok(())
}
