//! Saving images: an OCI layout that is what `docker save` writes too, as a stream.
//!
//! Everything is found, held and measured first ([`Images::save`]); writing then needs no look at the database.
//! Layers are kept unpacked, so their tars are made again from what was recorded when they came. An image goes with the
//! manifest that it came with if all the blobs of that are still there or can be made, and with one that lists
//! uncompressed layers otherwise, as Docker does.

mod documents;
mod platforms;
mod select;
mod write;

use std::collections::HashSet;
use std::sync::Arc;

use berth_oci::media_type::OCI_MANIFEST;
use berth_oci::{Descriptor, Digest, Document, ImageConfig, Platform, Reference, chain_ids};
use berth_storage::{ImageRecord, Lease, Source, Storage};

use crate::made::{self, Made};
use crate::{Error, Images, Result};

/// Images that are about to be written to an archive. Nothing of them is removed while this exists.
#[derive(Debug)]
pub struct Saving {
    storage: Arc<Storage>,
    images: Vec<Image>,
    /// The blobs of all images, each once.
    blobs: Vec<Blob>,
    /// What `index.json` lists instead of the images by their names.
    pub(crate) entries: Option<Vec<Descriptor>>,
    _lease: Lease,
}

/// One image of the archive.
#[derive(Debug)]
struct Image {
    id: Digest,
    /// The image that it was made from here.
    parent: Option<Digest>,
    names: Vec<Reference>,
    /// What stands for it in the index.
    manifest: Descriptor,
    /// The index of several platforms that stands there instead.
    index: Option<Descriptor>,
    /// Its layers' diff IDs, and what stands for each, lowest first.
    layers: Vec<(Digest, Descriptor)>,
}

/// One blob of the archive.
#[derive(Debug)]
struct Blob {
    digest: Digest,
    size: u64,
    content: Content,
}

/// Where the bytes of a blob are.
#[derive(Debug)]
enum Content {
    /// In memory: a manifest.
    Bytes(Vec<u8>),
    /// A stored document.
    Document,
    /// A compressed layer of the cache.
    Cached,
    /// The files of the layer with this chain ID, which make its tar again.
    Unpacked(Digest),
}

impl Images {
    /// Finds and holds the images that `names` stand for, in all platforms that are kept or in `platforms`, if any are
    /// given. A repository without a tag means all its tags. Blocks.
    ///
    /// # Errors
    /// As [`Images::resolve`]; [`Error::NoExport`] for a platform that is not kept; file errors.
    pub fn save(&self, names: &[String], platforms: &[Platform]) -> Result<Saving> {
        let storage = self.storage();
        let mut lease = storage.lease();
        let mut plan = Planner { storage, lease: &mut lease, blobs: Vec::new(), planned: HashSet::new() };
        let mut images = Vec::new();
        for selected in self.select(names)? {
            images.push(self.plan_save(&mut plan, selected, platforms)?);
        }
        let blobs = plan.blobs;
        Ok(Saving { storage: Arc::clone(storage), images, blobs, entries: None, _lease: lease })
    }
}

impl Saving {
    /// The IDs of the images, in the order of their names.
    pub fn ids(&self) -> impl Iterator<Item = &Digest> {
        self.images.iter().map(|image| &image.id)
    }

    /// The same, with other names in the archive.
    #[must_use]
    pub fn named(mut self, names: Vec<Reference>) -> Self {
        for image in &mut self.images {
            image.names.clone_from(&names);
        }
        self
    }

    /// What stands for an image in the archive.
    pub(crate) fn stands(&self, id: &Digest) -> Option<&Descriptor> {
        self.images.iter().find(|image| image.id == *id).map(|image| &image.manifest)
    }
}

struct Planner<'a> {
    storage: &'a Storage,
    lease: &'a mut Lease,
    blobs: Vec<Blob>,
    /// Digests of `blobs`.
    planned: HashSet<Digest>,
}

impl Planner<'_> {
    /// Plans one image; of several manifests that it came with, `listed` is tried first.
    fn image(
        &mut self,
        record: &ImageRecord,
        config: &ImageConfig,
        listed: Option<&Digest>,
    ) -> Result<Image> {
        let chains = chain_ids(&config.rootfs.diff_ids);
        // The topmost layer holds all below it.
        let held = match &record.chain {
            Some(chain) => self.storage.layers().hold(chain, self.lease)?,
            None => true,
        };
        if !held || !self.storage.blobs().hold(&record.id, self.lease)? {
            return Err(Error::NotFound(record.id.to_string()));
        }
        let layers: Vec<Layer> = config
            .rootfs
            .diff_ids
            .iter()
            .cloned()
            .zip(chains)
            .map(|(diff, chain)| Layer { diff, chain })
            .collect();
        let mut sources = self.storage.images().sources(&record.id)?;
        // The same one is taken every time.
        sources.sort_by_key(|source| (Some(&source.manifest) != listed, source.manifest.clone()));
        let mut original = None;
        for source in &sources {
            original = self.original(source, &record.id, &layers)?;
            if original.is_some() {
                break;
            }
        }
        let (manifest, layers) = match original {
            Some(found) => found,
            None => self.made(&record.id, &layers)?,
        };
        let size = self.document_size(&record.id)?;
        self.add(record.id.clone(), size, Content::Document);
        let (id, parent) = (record.id.clone(), record.parent.clone());
        Ok(Image { id, parent, names: Vec::new(), manifest, index: None, layers })
    }

    /// The manifest that an image came with, if everything in it can be written.
    fn original(&mut self, source: &Source, id: &Digest, layers: &[Layer]) -> Result<Option<Described>> {
        if !self.storage.blobs().hold(&source.manifest, self.lease)? {
            return Ok(None);
        }
        let bytes = self.storage.blobs().read(&source.manifest)?;
        let Ok(Document::Manifest(manifest)) = Document::read(&bytes, Some(OCI_MANIFEST)) else {
            return Ok(None);
        };
        if manifest.layers.len() != layers.len() || manifest.config.digest != *id {
            return Ok(None);
        }
        let mut contents = Vec::new();
        for (descriptor, layer) in manifest.layers.iter().zip(layers) {
            match self.layer_content(descriptor, layer)? {
                Some(content) => contents.push(content),
                None => return Ok(None),
            }
        }
        let kind = match manifest.media_type.as_str() {
            "" => OCI_MANIFEST,
            said => said,
        };
        let stands = Descriptor::new(kind, source.manifest.clone(), bytes.len() as u64);
        self.add(source.manifest.clone(), stands.size, Content::Bytes(bytes));
        let mut described = Vec::new();
        for ((descriptor, layer), content) in manifest.layers.into_iter().zip(layers).zip(contents) {
            self.add(descriptor.digest.clone(), descriptor.size, content);
            described.push((layer.diff.clone(), descriptor));
        }
        Ok(Some((stands, described)))
    }

    fn layer_content(&mut self, descriptor: &Descriptor, layer: &Layer) -> Result<Option<Content>> {
        if descriptor.digest == layer.diff {
            let is_whole = made::tar_size(self.storage, &layer.chain)? == descriptor.size;
            return Ok(is_whole.then(|| Content::Unpacked(layer.chain.clone())));
        }
        let blobs = self.storage.blobs();
        if !blobs.hold(&descriptor.digest, self.lease)? {
            return Ok(None);
        }
        // The cache is not synced: a power cut may have left less of a blob than its row says.
        let is_whole = blobs
            .open(&descriptor.digest)
            .ok()
            .and_then(|file| file.metadata().ok())
            .is_some_and(|metadata| metadata.len() == descriptor.size);
        Ok(is_whole.then_some(Content::Cached))
    }

    /// A manifest of the image's uncompressed layers.
    fn made(&mut self, id: &Digest, layers: &[Layer]) -> Result<Described> {
        let size = self.document_size(id)?;
        let pairs = layers.iter().map(|layer| (&layer.diff, &layer.chain));
        let Made { descriptor, bytes, layers: described } = made::manifest(self.storage, id, size, pairs)?;
        self.add(descriptor.digest.clone(), descriptor.size, Content::Bytes(bytes));
        for (layer, described) in layers.iter().zip(&described) {
            self.add(layer.diff.clone(), described.size, Content::Unpacked(layer.chain.clone()));
        }
        let diffs = layers.iter().map(|layer| layer.diff.clone());
        Ok((descriptor, diffs.zip(described).collect()))
    }

    fn document_size(&self, digest: &Digest) -> Result<u64> {
        let found = self.storage.blobs().get(digest)?;
        found.map(|blob| blob.size).ok_or_else(|| Error::NotFound(digest.to_string()))
    }

    fn add(&mut self, digest: Digest, size: u64, content: Content) {
        if self.planned.insert(digest.clone()) {
            self.blobs.push(Blob { digest, size, content });
        }
    }
}

/// One layer of an image that is planned.
struct Layer {
    diff: Digest,
    chain: Digest,
}

/// What stands for an image and for each of its layers.
type Described = (Descriptor, Vec<(Digest, Descriptor)>);
