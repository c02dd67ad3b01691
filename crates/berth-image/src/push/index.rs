//! Pushing all platforms of a name, under the index as it came.

use berth_oci::manifest::is_attestation;
use berth_oci::media_type::OCI_INDEX;
use berth_oci::{Descriptor, Digest, Platform, Reference};
use berth_registry::Client;
use berth_storage::{ImageRecord, Lease, Tag};
use serde_json::Value;
use tokio::sync::mpsc;

use super::attestations::Way;
use super::documents::Planned;
use super::{PushLimits, Pushed, Sent};
use crate::names::ResolvedImage;
use crate::turn::blocking;
use crate::{Error, Images, Progress, Result};

/// An index that a name points to.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) stands: Descriptor,
    bytes: Vec<u8>,
    /// What it lists.
    listed: Vec<Descriptor>,
    /// The images of these that are kept.
    pub(super) kept: Vec<(Descriptor, ImageRecord)>,
    _lease: Lease,
}

impl Whole {
    /// The bytes of the index once its kept images were sent: as they came, if all of these were sent as they came.
    fn with<'a>(&self, sent: impl Iterator<Item = &'a Sent>) -> Result<Vec<u8>> {
        let changed: Vec<(&Digest, &Sent)> = self
            .kept
            .iter()
            .map(|(entry, _)| &entry.digest)
            .zip(sent)
            .filter(|(listed, sent)| **listed != sent.digest)
            .collect();
        if changed.is_empty() {
            return Ok(self.bytes.clone());
        }
        let read = |error: serde_json::Error| Error::io("reading an index", error.into());
        let mut index: Value = serde_json::from_slice(&self.bytes).map_err(read)?;
        for entry in index["manifests"].as_array_mut().into_iter().flatten() {
            let found = changed.iter().find(|(listed, _)| entry["digest"] == listed.to_string());
            if let Some((_, sent)) = found {
                entry["digest"] = sent.digest.to_string().into();
                entry["size"] = sent.bytes.len().into();
                entry["mediaType"] = sent.kind.clone().into();
            }
        }
        crate::made::json(&index)
    }
}

impl Images {
    /// The index that a tag points to, if it is one.
    pub(super) async fn whole(&self, name: &Reference) -> Result<Option<Whole>> {
        let (images, name) = (self.clone(), name.canonical());
        blocking(move || {
            let storage = images.storage();
            let Some(target) = storage.images().target(&name)? else { return Ok(None) };
            let mut lease = storage.lease();
            if !storage.blobs().hold(&target, &mut lease)? {
                return Ok(None);
            }
            let Some(index) = images.index(&target)? else { return Ok(None) };
            let bytes = storage.blobs().read(&target)?;
            let kind = if index.media_type.is_empty() { OCI_INDEX } else { &index.media_type };
            let stands = Descriptor::new(kind, target.clone(), bytes.len() as u64);
            let kept = images.kept(&target)?;
            Ok(Some(Whole { stands, bytes, listed: index.manifests, kept, _lease: lease }))
        })
        .await
    }

    /// Brings the index with everything that it lists to the target; none if something of it can be had nowhere. If
    /// layers had to be compressed anew, the index lists what came of them.
    pub(super) async fn push_whole(
        &self,
        registry: &Client,
        target: &Reference,
        whole: &Whole,
        limits: PushLimits,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Option<Pushed>> {
        let mut attestations = Vec::new();
        for entry in &whole.listed {
            let is_kept = whole.kept.iter().any(|(kept, _)| kept.digest == entry.digest);
            if is_kept || registry.has_manifest(target, &entry.digest).await? {
                continue;
            }
            if !is_attestation(entry) {
                return Ok(None);
            }
            attestations.push(entry);
        }
        let way = Way { registry, target, limits, progress };
        if !self.copy_attestations(&way, whole, &attestations).await? {
            return Ok(None);
        }
        let mut all = Vec::new();
        for (entry, record) in &whole.kept {
            let (images, name) = (self.clone(), target.clone());
            let (record, digest) = (record.clone(), entry.digest.clone());
            let planned = blocking(move || {
                let mut lease = images.storage().lease();
                let config = images.config(&record.id)?;
                let image = ResolvedImage { record, config };
                Ok((images.plan_image(&name, image, Some(&digest), &mut lease)?, lease))
            });
            let (planned, lease) = planned.await?;
            let sent = self.send_image(registry, target, &planned, limits, progress.clone()).await?;
            registry.put_manifest(&target.at(sent.digest.clone()), &sent.kind, sent.bytes.clone()).await?;
            all.push((planned, sent, lease));
        }
        let bytes = whole.with(all.iter().map(|(_, sent, _)| sent))?;
        let size = bytes.len() as u64;
        let digest = registry.put_manifest(target, &whole.stands.media_type, bytes).await?;
        self.record_whole(target, whole.stands.digest.clone(), digest.clone(), all).await?;
        Ok(Some(Pushed {
            tag: target.tag().unwrap_or_default().to_owned(),
            size,
            replaced: Some(whole.stands.digest.clone()).filter(|index| *index != digest),
            digest,
            instead: None,
        }))
    }

    /// Remembers what the target has now, and the name of the index by its digest.
    async fn record_whole(
        &self,
        target: &Reference,
        index: Digest,
        pushed: Digest,
        all: Vec<(Planned, Sent, Lease)>,
    ) -> Result<()> {
        let (images, target) = (self.clone(), target.clone());
        blocking(move || {
            for (planned, sent, mut lease) in all {
                images.record_push(&target, &planned, &sent, &[], &mut lease)?;
            }
            let stored = images.storage().images();
            // A name that was taken away in the meantime stays so; what was changed on the way is not what is kept.
            if pushed == index
                && let Some(holder) = stored.by_name(&target.canonical())?
                && stored.target(&target.canonical())?.as_ref() == Some(&index)
            {
                let name = Tag { name: target.at(index.clone()).canonical(), target: index };
                stored.tag(&holder.id, &name)?;
            }
            Ok(())
        })
        .await
    }

    /// Makes sure that it is clear which image is pushed instead of an index: the only one, or that for this machine.
    /// Gives what stands for the index.
    pub(super) async fn only_one(&self, name: &Reference, whole: Whole) -> Result<Descriptor> {
        if whole.kept.len() > 1 {
            let (images, name) = (self.clone(), name.canonical());
            let is_ours =
                blocking(move || Ok(images.resolve(&name)?.config.platform().satisfies(&Platform::host())));
            if !is_ours.await? {
                return Err(Error::SeveralPlatforms);
            }
        }
        Ok(whole.stands)
    }
}
