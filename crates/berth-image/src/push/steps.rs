//! Caches of build steps: indexes of the images that the steps made.
//!
//! Each entry is an ordinary image, and says in an annotation which step it is the result of. So a cache is content-addressed,
//! any registry takes it, and what travels are images.

use std::collections::BTreeMap;

use berth_oci::media_type::{ACCEPTED, OCI_INDEX};
use berth_oci::{Descriptor, Digest, Document, Index, Reference};
use berth_registry::Caller;
use tokio::sync::mpsc;

use crate::progress::telling;
use crate::save::Saving;
use crate::turn::blocking;
use crate::{Error, Images, Progress, PushLimits, Result};

/// The annotation with the digest of all that a step depends on.
pub const STEP: &str = "dev.berth.build.step";
/// The annotation with what tells a cache mount apart from others.
pub const MOUNT: &str = "dev.berth.build.mount";

/// An image of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its ID.
    pub image: Digest,
    /// [`STEP`] or [`MOUNT`].
    pub annotation: &'static str,
    /// The annotation's value.
    pub key: Digest,
}

impl Kept {
    fn entry(&self, stands: &Descriptor) -> Descriptor {
        let annotations = BTreeMap::from([(self.annotation.to_owned(), self.key.to_string())]);
        Descriptor { annotations, ..stands.clone() }
    }
}

/// An index with these entries.
pub(crate) fn index(manifests: Vec<Descriptor>) -> Index {
    Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() }
}

impl Images {
    /// A cache as an archive, which is an OCI layout. Blocks.
    ///
    /// # Errors
    /// As [`Images::save`].
    pub fn save_steps(&self, kept: &[Kept]) -> Result<Saving> {
        let mut names: Vec<String> = kept.iter().map(|one| one.image.to_string()).collect();
        names.sort();
        names.dedup();
        let mut saving = self.save(&names, &[])?;
        let entry = |one: &Kept| saving.stands(&one.image).map(|stands| one.entry(stands));
        let entries = kept.iter().filter_map(entry).collect();
        saving.entries = Some(entries);
        Ok(saving)
    }

    /// Brings a cache to the registry that `target` names.
    ///
    /// # Errors
    /// What the registry says; an image that is gone.
    pub async fn push_steps(
        &self,
        target: &Reference,
        kept: Vec<Kept>,
        caller: Caller,
        limits: PushLimits,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Digest> {
        let registry = self.inner.registry.on_behalf(target.domain(), caller);
        let registry = telling(&registry, &progress);
        let mut sent: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut entries = Vec::new();
        for one in &kept {
            let stands = match sent.get(&one.image) {
                Some(stands) => stands.clone(),
                None => {
                    let stands =
                        self.push_unnamed(&registry, target, &one.image, limits, progress.clone()).await?;
                    sent.insert(one.image.clone(), stands.clone());
                    stands
                }
            };
            entries.push(one.entry(&stands));
        }
        let bytes = crate::made::json(&index(entries))?;
        Ok(registry.put_manifest(target, OCI_INDEX, bytes).await?)
    }

    /// The entries of the index that `reference` names; none if that is an image.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn entries_at(&self, reference: &Reference, caller: Caller) -> Result<Vec<Descriptor>> {
        let registry = self.inner.registry.on_behalf(reference.domain(), caller);
        let answer = registry.manifest(reference, &ACCEPTED).await?;
        let read = Document::read(&answer.bytes, answer.media_type.as_deref());
        match read.map_err(|source| Error::Manifest { reference: reference.familiar(), source })? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => Ok(Vec::new()),
        }
    }

    /// Brings an image to a repository, where only its digest names it.
    async fn push_unnamed(
        &self,
        registry: &berth_registry::Client,
        target: &Reference,
        id: &Digest,
        limits: PushLimits,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Descriptor> {
        let (images, name, id) = (self.clone(), target.clone(), id.to_string());
        let (planned, mut lease) = blocking(move || {
            let mut lease = images.storage().lease();
            let image = images.resolve(&id)?;
            Ok((images.plan_image(&name, image, None, &mut lease)?, lease))
        })
        .await?;
        let sent = self.send_image(registry, target, &planned, limits, progress).await?;
        let to = target.at(sent.digest.clone());
        registry.put_manifest(&to, &sent.kind, sent.bytes.clone()).await?;
        let stands = Descriptor::new(&sent.kind, sent.digest.clone(), sent.bytes.len() as u64);
        let (images, target) = (self.clone(), target.clone());
        blocking(move || images.record_push(&target, &planned, &sent, &[], &mut lease)).await?;
        Ok(stands)
    }
}
