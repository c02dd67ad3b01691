//! Several platforms under one name: the images that one index lists, as far as they are kept.

use berth_oci::manifest::is_attestation;
use berth_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use berth_oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, Reference};
use berth_storage::{ImageRecord, Storage};

use crate::names::{Found, ResolvedImage};
use crate::removal::{InUse, Removed, short};
use crate::{Error, Images, Result};

/// The annotation of an attestation that names what it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// One entry of what a name points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What stands for the manifest.
    pub descriptor: Descriptor,
    /// Everything of it is kept here.
    pub available: bool,
    /// Bytes of its documents and compressed layers that are kept.
    pub stored: u64,
    /// What it is.
    pub content: Content,
}

/// What an entry of an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An image.
    Image {
        /// What it is for, if that is known.
        platform: Option<Platform>,
        /// The image, if it is kept.
        record: Option<Box<ImageRecord>>,
    },
    /// A note about the image with this manifest.
    Attestation(Digest),
    /// Something else.
    Unknown,
}

/// One platform of a name that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedVariant {
    /// Digest of the configuration.
    pub id: Digest,
    /// What is gone: names that stood for this platform only, and the manifest.
    pub removed: Vec<Removed>,
}

impl Images {
    /// The image for `platform` that `name` stands for; without a platform, as [`Images::resolve`].
    ///
    /// # Errors
    /// [`Error::WrongPlatform`] if nothing for the platform is kept under the name; as [`Images::resolve`].
    pub fn resolve_for(&self, name: &str, platform: Option<&Platform>) -> Result<ResolvedImage> {
        let found = self.find_or_make(name)?;
        let indexes = self.indexes(&found)?;
        let (Found::Name(record, _) | Found::Id(record)) = found;
        let config = self.config(&record.id)?;
        let Some(wanted) = platform else { return Ok(ResolvedImage { record, config }) };
        for index in &indexes {
            if let Some(record) = self.variant(index, wanted)? {
                let config = self.config(&record.id)?;
                return Ok(ResolvedImage { record, config });
            }
        }
        if config.platform().satisfies(wanted) {
            return Ok(ResolvedImage { record, config });
        }
        Err(Error::WrongPlatform { reference: name.to_owned(), platform: Box::new(wanted.clone()) })
    }

    /// The indexes that lead from what the user named to other platforms: the name's own, or all that list the image.
    fn indexes(&self, found: &Found) -> Result<Vec<Digest>> {
        let images = self.storage().images();
        let mut indexes = match found {
            Found::Name(_, name) => images.target(&name.canonical())?.into_iter().collect(),
            Found::Id(record) => {
                let sources = images.sources(&record.id)?.into_iter();
                let mut all: Vec<Digest> = sources.filter_map(|source| source.index).collect();
                all.sort();
                all.dedup();
                all
            }
        };
        let mut kept = Vec::new();
        for index in indexes.drain(..) {
            if !images.variants(&index)?.is_empty() {
                kept.push(index);
            }
        }
        Ok(kept)
    }

    /// The kept images of an index, each with the manifest that the index lists, in the order of the index.
    pub(crate) fn kept(&self, index: &Digest) -> Result<Vec<(Descriptor, ImageRecord)>> {
        let images = self.storage().images();
        let mut all = Vec::new();
        for record in images.variants(index)? {
            let sources = images.sources(&record.id)?.into_iter();
            all.extend(
                sources
                    .filter(|source| source.index.as_ref() == Some(index))
                    .map(|source| (source.manifest, record.clone())),
            );
        }
        let listed = self.index(index)?.map(|index| index.manifests).unwrap_or_default();
        let in_order = listed.into_iter().filter_map(|entry| {
            let (_, record) = all.iter().find(|(manifest, _)| *manifest == entry.digest)?;
            Some((entry, record.clone()))
        });
        Ok(in_order.collect())
    }

    /// The kept image of an index for a platform: one that is named exactly so before one that will do.
    fn variant(&self, index: &Digest, wanted: &Platform) -> Result<Option<ImageRecord>> {
        let kept = self.kept(index)?;
        let exact = kept.iter().find(|(entry, _)| entry.platform.as_ref() == Some(wanted));
        let close = || {
            let does = |entry: &Descriptor| entry.platform.as_ref().is_some_and(|p| p.satisfies(wanted));
            let rank = |entry: &Descriptor| entry.platform.as_ref().and_then(|p| p.rank(wanted));
            let close = kept.iter().filter(|(entry, _)| does(entry));
            close.min_by_key(|(entry, _)| rank(entry).unwrap_or(usize::MAX))
        };
        if let Some((_, record)) = exact.or_else(close) {
            return Ok(Some(record.clone()));
        }
        // An index need not say what its entries are for.
        for (entry, record) in kept {
            if entry.platform.is_none() && self.config(&record.id)?.platform().satisfies(wanted) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// A stored index.
    pub(crate) fn index(&self, digest: &Digest) -> Result<Option<Index>> {
        if self.storage().blobs().get(digest)?.is_none() {
            return Ok(None);
        }
        match Document::read(&self.storage().blobs().read(digest)?, Some(OCI_INDEX)) {
            Ok(Document::Index(index)) => Ok(Some(index)),
            _ => Ok(None),
        }
    }

    /// The images that have no names of their own, and that a name of their index covers: they are platforms of that
    /// name's image, and no images beside it.
    ///
    /// # Errors
    /// Database errors.
    pub fn covered(&self) -> Result<std::collections::HashSet<Digest>> {
        Ok(self.storage().images().covered()?)
    }

    /// Whether an image is one of these.
    ///
    /// # Errors
    /// Database errors.
    pub fn is_covered(&self, id: &Digest) -> Result<bool> {
        let images = self.storage().images();
        Ok(images.names(id)?.is_empty() && !images.covering(id)?.is_empty())
    }

    /// The names that stand for an image: its own, and those whose index lists it.
    ///
    /// # Errors
    /// Database errors.
    pub fn covering(&self, id: &Digest) -> Result<Vec<Reference>> {
        let tags = self.storage().images().covering(id)?;
        Ok(tags.iter().filter_map(|tag| tag.name.parse().ok()).collect())
    }

    /// The other images that only the names `gone` cover.
    pub(crate) fn orphans(&self, id: &Digest, gone: &[Reference]) -> Result<Vec<ImageRecord>> {
        let images = self.storage().images();
        let gone: Vec<String> = gone.iter().map(Reference::canonical).collect();
        let mut orphans: Vec<ImageRecord> = Vec::new();
        for name in &gone {
            let Some(target) = images.target(name)? else { continue };
            for variant in images.variants(&target)? {
                let is_new = variant.id != *id && !orphans.contains(&variant);
                if is_new && images.covering(&variant.id)?.iter().all(|tag| gone.contains(&tag.name)) {
                    orphans.push(variant);
                }
            }
        }
        Ok(orphans)
    }

    /// What the names of an image point to, with everything that this lists. Of several such documents it is the one of
    /// the first name.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn listed(&self, record: &ImageRecord) -> Result<Option<(Descriptor, Vec<Listed>)>> {
        let images = self.storage().images();
        let sources = images.sources(&record.id)?;
        let names = images.covering(&record.id)?;
        let named = names.iter().find_map(|tag| {
            let meant = |source: &&berth_storage::Source| {
                source.index.as_ref() == Some(&tag.target) || source.manifest == tag.target
            };
            sources.iter().find(meant).map(|source| (source, &tag.target))
        });
        let Some((source, target)) = named.map(|(source, target)| (source, target.clone())).or_else(|| {
            let first = sources.iter().min_by(|a, b| a.manifest.cmp(&b.manifest))?;
            Some((first, first.index.clone().unwrap_or_else(|| first.manifest.clone())))
        }) else {
            return Ok(None);
        };
        let bytes = self.storage().blobs().read(&target)?;
        let size = bytes.len() as u64;
        Ok(match Document::read(&bytes, Some(OCI_MANIFEST)) {
            Ok(Document::Index(index)) => {
                let kind = if index.media_type.is_empty() { OCI_INDEX } else { &index.media_type };
                let stands = Descriptor::new(kind, target.clone(), size);
                let kept = self.kept(&target)?;
                let entries = index.manifests.into_iter().map(|entry| {
                    let record = kept.iter().find(|(kept, _)| kept.digest == entry.digest);
                    self.entry(entry, record.map(|(_, record)| record.clone()))
                });
                Some((stands, entries.collect::<Result<_>>()?))
            }
            Ok(Document::Manifest(manifest)) => {
                let kind = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
                let stands = Descriptor::new(kind, source.manifest.clone(), size);
                let listed = self.entry(stands.clone(), Some(record.clone()))?;
                Some((stands, vec![listed]))
            }
            Err(_) => None,
        })
    }

    fn entry(&self, descriptor: Descriptor, record: Option<ImageRecord>) -> Result<Listed> {
        if is_attestation(&descriptor) {
            let about = descriptor.annotations.get(ABOUT).and_then(|text| text.parse().ok());
            let content = about.map_or(Content::Unknown, Content::Attestation);
            return Ok(Listed { descriptor, available: false, stored: 0, content });
        }
        let mut platform = descriptor.platform.clone();
        if let Some(record) = record.as_ref().filter(|_| platform.is_none()) {
            platform = Some(self.config(&record.id)?.platform());
        }
        let stored = if record.is_some() { self.stored(&descriptor)? } else { 0 };
        let content = Content::Image { platform, record: record.map(Box::new) };
        let available = matches!(&content, Content::Image { record: Some(_), .. });
        Ok(Listed { descriptor, available, stored, content })
    }

    /// Bytes of a manifest and what it names that are kept as they came.
    fn stored(&self, manifest: &Descriptor) -> Result<u64> {
        let blobs = self.storage().blobs();
        let bytes = blobs.read(&manifest.digest)?;
        let Ok(Document::Manifest(Manifest { config, layers, .. })) =
            Document::read(&bytes, Some(OCI_MANIFEST))
        else {
            return Ok(0);
        };
        let mut digests: Vec<Digest> = layers.into_iter().map(|layer| layer.digest).collect();
        digests.push(config.digest);
        digests.sort();
        digests.dedup();
        let mut stored = bytes.len() as u64;
        for digest in &digests {
            stored += blobs.get(digest)?.map_or(0, |blob| blob.size);
        }
        Ok(stored)
    }

    /// Removes the images for `platforms` of what `name` stands for; the others stay under it. As in Docker it has to
    /// be forced, since other names lose them too.
    ///
    /// # Errors
    /// [`Error::NotForced`]; [`Error::WrongPlatform`] for one that is not kept; [`Error::Conflict`] for one that runs.
    pub fn remove_platforms(
        &self,
        name: &str,
        platforms: &[Platform],
        force: bool,
        in_use: impl Fn(&Digest) -> Vec<InUse>,
    ) -> Result<Vec<RemovedVariant>> {
        if !force {
            return Err(Error::NotForced);
        }
        let mut chosen: Vec<ImageRecord> = Vec::new();
        for platform in platforms {
            let record = self.resolve_for(name, Some(platform))?.record;
            if let Some(user) = in_use(&record.id).iter().find(|user| user.running) {
                return Err(Error::Conflict {
                    action: format!("delete {}", record.id.short()),
                    how: "cannot be forced",
                    reason: format!("image is being used by running container {}", short(&user.container)),
                });
            }
            if !chosen.contains(&record) {
                chosen.push(record);
            }
        }
        chosen.iter().map(|record| self.remove_variant(record)).collect()
    }

    fn remove_variant(&self, record: &ImageRecord) -> Result<RemovedVariant> {
        let images = self.storage().images();
        let sources = images.sources(&record.id)?;
        let mut instead = Vec::new();
        for index in sources.iter().filter_map(|source| source.index.as_ref()) {
            for (_, other) in self.kept(index)?.into_iter().filter(|(_, other)| other.id != record.id) {
                let is_ours = self.config(&other.id)?.platform().satisfies(&Platform::host());
                instead.push((!is_ours, other.id));
            }
        }
        // The names go on with the image for this machine, if there is one.
        instead.sort_by_key(|(is_foreign, _)| *is_foreign);
        let instead: Vec<Digest> = instead.into_iter().map(|(_, id)| id).collect();
        let outcome = images.remove_variant(&record.id, &instead)?;
        let names = outcome.names.iter().filter_map(|name| name.parse::<Reference>().ok());
        let mut removed: Vec<Removed> = names.map(|name| untagged(&name, &record.id)).collect();
        let mut manifests: Vec<Digest> = sources.into_iter().map(|source| source.manifest).collect();
        manifests.sort();
        manifests.dedup();
        removed.extend(manifests.into_iter().map(Removed::Deleted));
        Ok(RemovedVariant { id: record.id.clone(), removed })
    }
}

/// The image that names of an index lead to, once there is `new` with its platform.
pub(crate) fn holder(storage: &Storage, index: &Digest, new: (&Digest, &Platform)) -> Result<Digest> {
    let host = Platform::host();
    if new.1.satisfies(&host) {
        return Ok(new.0.clone());
    }
    for record in storage.images().variants(index)? {
        // A damaged image is none to prefer.
        let config = storage.blobs().read(&record.id).ok().and_then(|bytes| ImageConfig::read(&bytes).ok());
        if config.is_some_and(|config| config.platform().satisfies(&host)) {
            return Ok(record.id);
        }
    }
    Ok(new.0.clone())
}

fn untagged(name: &Reference, image: &Digest) -> Removed {
    Removed::Untagged { name: name.familiar(), image: image.clone(), along: false }
}
