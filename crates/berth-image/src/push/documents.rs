//! What is pushed: the manifest that an image came with, or one that is made for it.

use berth_oci::media_type::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST,
};
use berth_oci::{Descriptor, Digest, Document, Manifest, Platform, Reference, chain_ids};
use berth_storage::{ImageRecord, Lease, Source};
use serde_json::{Value, json};

use super::layer::Layer;
use crate::names::ResolvedImage;
use crate::{Error, Images, Result, origins};

/// An image that is about to be pushed; a lease holds what it consists of.
#[derive(Debug)]
pub(super) struct Planned {
    pub record: ImageRecord,
    pub config_bytes: Vec<u8>,
    pub layers: Vec<Layer>,
    /// The manifest that it came with.
    pub original: Option<Original>,
    /// The index that listed this manifest.
    pub index: Option<Digest>,
}

/// A manifest that an image came with.
#[derive(Debug)]
pub(super) struct Original {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

impl Images {
    /// Finds and holds what the tag `name` stands for, for one platform. Blocks.
    pub(super) fn plan_push(
        &self,
        name: &Reference,
        platform: Option<&Platform>,
        lease: &mut Lease,
    ) -> Result<Planned> {
        let images = self.storage().images();
        if images.by_name(&name.canonical())?.is_none() {
            return Err(Error::NoTag(name.familiar()));
        }
        let image = self.resolve_for(&name.canonical(), platform)?;
        let target = images.target(&name.canonical())?;
        self.plan_image(name, image, target.as_ref(), lease)
    }

    /// Finds and holds what an image consists of. Of several manifests that it came with, the one that is or that was
    /// listed by `target` is tried first. Blocks.
    pub(super) fn plan_image(
        &self,
        name: &Reference,
        image: ResolvedImage,
        target: Option<&Digest>,
        lease: &mut Lease,
    ) -> Result<Planned> {
        let storage = self.storage();
        let gone = || Error::NoTag(name.familiar());
        let ResolvedImage { record, config } = image;
        // The topmost layer holds all below it.
        let held = match &record.chain {
            Some(chain) => storage.layers().hold(chain, lease)?,
            None => true,
        };
        if !held || !storage.blobs().hold(&record.id, lease)? {
            return Err(gone());
        }
        let diffs = config.rootfs.diff_ids;
        let mut found = None;
        for source in self.ordered_sources(&record.id, target)? {
            if let Some(original) = self.original(&source, &record.id, diffs.len(), lease)?
                && !self.is_local(&original.manifest, &diffs)?
            {
                found = Some((original, source.index));
                break;
            }
        }
        let (original, index) = found.map_or((None, None), |(original, index)| (Some(original), index));
        let blobs: Vec<Option<Descriptor>> = match &original {
            Some(original) => original.manifest.layers.iter().cloned().map(Some).collect(),
            None => vec![None; diffs.len()],
        };
        let mut layers = Vec::new();
        for ((diff, chain), original) in diffs.iter().zip(chain_ids(&diffs)).zip(blobs) {
            let mut origins = origins::of(storage, diff)?;
            if let Some(original) = &original {
                self.add_names(&record.id, original, &mut origins)?;
            }
            layers.push(Layer { diff: diff.clone(), chain, original, origins });
        }
        let config_bytes = storage.blobs().read(&record.id)?;
        Ok(Planned { record, config_bytes, layers, original, index })
    }

    /// The sources of an image; what its name points to comes first, and then always the same order.
    fn ordered_sources(&self, id: &Digest, target: Option<&Digest>) -> Result<Vec<Source>> {
        let mut sources = self.storage().images().sources(id)?;
        sources.sort_by_key(|source| {
            let meant = Some(&source.manifest) == target
                || (source.index.is_some() && source.index.as_ref() == target);
            (!meant, source.manifest.clone())
        });
        Ok(sources)
    }

    /// The manifest of a source, if it is one of this image.
    fn original(
        &self,
        source: &Source,
        id: &Digest,
        layers: usize,
        lease: &mut Lease,
    ) -> Result<Option<Original>> {
        let blobs = self.storage().blobs();
        if !blobs.hold(&source.manifest, lease)? {
            return Ok(None);
        }
        let bytes = blobs.read(&source.manifest)?;
        let Ok(Document::Manifest(manifest)) = Document::read(&bytes, Some(OCI_MANIFEST)) else {
            return Ok(None);
        };
        let fits = manifest.layers.len() == layers && manifest.config.digest == *id;
        Ok(fits.then(|| Original { digest: source.manifest.clone(), bytes, manifest }))
    }

    /// Whether a manifest lists layers as they are kept here, and no registry is known to have any of them so: nobody
    /// wants such images uncompressed.
    fn is_local(&self, manifest: &Manifest, diffs: &[Digest]) -> Result<bool> {
        for (layer, diff) in manifest.layers.iter().zip(diffs) {
            let origins = origins::of(self.storage(), diff)?;
            if layer.digest != *diff || origins.iter().any(|origin| origin.blob.digest == *diff) {
                return Ok(false);
            }
        }
        Ok(!manifest.layers.is_empty())
    }

    /// Repositories that the image's names by digest tell of.
    fn add_names(&self, id: &Digest, blob: &Descriptor, origins: &mut Vec<origins::Origin>) -> Result<()> {
        let names = self.references(id)?;
        let repositories = names.iter().filter(|name| name.digest().is_some()).map(Reference::name);
        let known = match origins.iter_mut().find(|origin| origin.blob.digest == blob.digest) {
            Some(known) => known,
            None => {
                origins.push(origins::Origin { blob: blob.clone(), repositories: Vec::new() });
                let last = origins.len() - 1;
                &mut origins[last]
            }
        };
        for repository in repositories {
            if !known.repositories.contains(&repository) {
                known.repositories.push(repository);
            }
        }
        Ok(())
    }
}

impl Planned {
    /// What stands for the configuration.
    pub fn config(&self) -> Descriptor {
        match &self.original {
            Some(original) => original.manifest.config.clone(),
            None => Descriptor::new(DOCKER_CONFIG, self.record.id.clone(), self.config_bytes.len() as u64),
        }
    }

    /// Whether a manifest is the one that the image came with.
    pub fn keeps(&self, manifest: &Digest) -> bool {
        self.original.as_ref().is_some_and(|original| original.digest == *manifest)
    }

    /// Media type and bytes of the manifest with these layers: those that were kept, if they are the same.
    pub fn manifest(&self, layers: &[Descriptor]) -> Result<(String, Vec<u8>)> {
        let Some(original) = &self.original else { return self.made(layers) };
        let kind = match original.manifest.media_type.as_str() {
            "" => OCI_MANIFEST,
            said => said,
        };
        let before = original.manifest.layers.iter().map(|layer| &layer.digest);
        if before.eq(layers.iter().map(|layer| &layer.digest)) {
            return Ok((kind.to_owned(), original.bytes.clone()));
        }
        let read = |error: serde_json::Error| Error::io("reading a manifest", error.into());
        let mut whole: Value = serde_json::from_slice(&original.bytes).map_err(read)?;
        whole["layers"] = layers.iter().map(|layer| json!(layer)).collect();
        Ok((kind.to_owned(), crate::made::json(&whole)?))
    }

    /// A manifest for an image that has none: Docker's, unless a layer is compressed as only the OCI's may be.
    fn made(&self, layers: &[Descriptor]) -> Result<(String, Vec<u8>)> {
        let is_gzip =
            |layer: &Descriptor| layer.media_type == DOCKER_LAYER || layer.media_type.ends_with("+gzip");
        let is_docker = layers.iter().all(is_gzip);
        let (kind, config) =
            if is_docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
        let layers = layers.iter().map(|layer| {
            let mut layer = layer.clone();
            match (is_docker, is_gzip(&layer)) {
                (true, _) => DOCKER_LAYER.clone_into(&mut layer.media_type),
                (false, true) => layer.media_type = format!("{OCI_LAYER}+gzip"),
                (false, false) => {}
            }
            layer
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: kind.to_owned(),
            config: Descriptor::new(config, self.record.id.clone(), self.config_bytes.len() as u64),
            layers: layers.collect(),
            annotations: std::collections::BTreeMap::new(),
        };
        Ok((kind.to_owned(), crate::made::json(&manifest)?))
    }
}
