//! The images of an OCI layout.

use berth_oci::manifest::{is_artifact, is_attestation};
use berth_oci::media_type::{OCI_INDEX, is_index};
use berth_oci::{
    CONFIG_LIMIT, Descriptor, Digest, Document, ImageConfig, Index, MANIFEST_LIMIT, Manifest, Platform,
    Reference,
};

use super::{Found, IMAGES, Place, is_wanted, tagged};
use crate::bundle::Bundle;
use crate::{Error, Result};

/// Indexes within indexes that are followed.
const DEPTH: usize = 4;

/// Whether an archive is a layout that lists an index: what `docker save` writes beside it tells of one platform only.
pub(super) fn has_index(bundle: &Bundle) -> bool {
    bundle.has("index.json")
        && top(bundle).is_ok_and(|index| index.manifests.iter().any(|entry| is_index(&entry.media_type)))
}

/// All images of a layout that are for one of `platforms`, or for any if none are given. Of an index, those that are
/// in the archive with everything they need. Artifacts that are no images are passed over.
pub(super) fn images(bundle: &Bundle, platforms: &[Platform]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let top = top(bundle)?;
    for descriptor in top.manifests.iter().take(IMAGES) {
        let names: Vec<Reference> = name(descriptor).into_iter().collect();
        Entry { bundle, platforms, names: &names, index: None }.add(descriptor, DEPTH, &mut found)?;
    }
    if found.is_empty() && platforms.is_empty() {
        let is_other = |entry: &Descriptor| {
            document(bundle, entry, MANIFEST_LIMIT).is_ok_and(|bytes| is_artifact(&bytes))
        };
        if !top.manifests.is_empty() && top.manifests.iter().take(IMAGES).all(is_other) {
            return Err(Error::Archive("the archive holds no image, but other artifacts".to_owned()));
        }
        return Err(Error::NoPlatform { platform: Platform::host() });
    }
    Ok(found)
}

fn top(bundle: &Bundle) -> Result<Index> {
    let bytes = bundle.bytes("index.json", MANIFEST_LIMIT)?;
    match Document::read(&bytes, Some(OCI_INDEX))? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(Error::Archive("index.json in the archive is no index".to_owned())),
    }
}

/// What a descriptor's annotations call it: containerd's whole name, or the layout's own. A bare tag names nothing.
fn name(descriptor: &Descriptor) -> Option<Reference> {
    let whole = descriptor.annotations.get("io.containerd.image.name");
    let own = descriptor
        .annotations
        .get("org.opencontainers.image.ref.name")
        .filter(|name| name.contains([':', '/']));
    tagged(whole.or(own)?).ok()
}

/// Where a descriptor stands.
struct Entry<'a> {
    bundle: &'a Bundle,
    platforms: &'a [Platform],
    names: &'a [Reference],
    /// The index that lists it, if one does.
    index: Option<(Digest, Vec<u8>)>,
}

impl Entry<'_> {
    /// Adds what a descriptor leads to.
    fn add(self, descriptor: &Descriptor, depth: usize, found: &mut Vec<Found>) -> Result<()> {
        let bytes = document(self.bundle, descriptor, MANIFEST_LIMIT)?;
        if is_artifact(&bytes) {
            tracing::info!(
                manifest = descriptor.digest.short(),
                "an archive holds something else than an image"
            );
            return Ok(());
        }
        match Document::read(&bytes, Some(descriptor.media_type.as_str()))? {
            Document::Manifest(manifest) => {
                let manifest = (descriptor.digest.clone(), bytes, manifest);
                let image = self.image(manifest, descriptor.platform.as_ref())?;
                if is_wanted(&image.platform, self.platforms) {
                    found.push(image);
                }
                Ok(())
            }
            Document::Index(_) if depth == 0 => {
                Err(Error::Archive("the archive's indexes are nested too deeply".to_owned()))
            }
            Document::Index(index) => {
                let place = (descriptor.digest.clone(), bytes);
                let mut entries: Vec<&Descriptor> =
                    index.manifests.iter().filter(|entry| self.is_there(entry)).collect();
                if entries.is_empty() {
                    // Looking for it tells what is missing.
                    entries.extend(index.find(&Platform::host()).filter(|_| self.platforms.is_empty()));
                }
                for entry in entries.into_iter().take(IMAGES) {
                    let next = Entry { index: Some(place.clone()), ..self };
                    next.add(entry, depth - 1, found)?;
                }
                Ok(())
            }
        }
    }

    /// Whether an entry of an index is an image, or a further index, that the archive has as a whole.
    fn is_there(&self, entry: &Descriptor) -> bool {
        if is_attestation(entry) || !self.bundle.has(&blob_name(&entry.digest)) {
            return false;
        }
        let Ok(bytes) = document(self.bundle, entry, MANIFEST_LIMIT) else { return true };
        match Document::read(&bytes, Some(entry.media_type.as_str())) {
            Ok(Document::Manifest(manifest)) => {
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                parts.into_iter().all(|part| self.bundle.has(&blob_name(&part.digest)))
            }
            // What is wrong with it is told when it is read.
            _ => true,
        }
    }

    /// An image with its documents; what the index says of its platform counts before what it says itself.
    fn image(
        &self,
        (digest, bytes, manifest): (Digest, Vec<u8>, Manifest),
        platform: Option<&Platform>,
    ) -> Result<Found> {
        let config = document(self.bundle, &manifest.config, CONFIG_LIMIT)?;
        let layers = manifest
            .layers
            .into_iter()
            .map(|layer| Place { name: blob_name(&layer.digest), descriptor: Some(layer) })
            .collect();
        let parsed = ImageConfig::read(&config)?;
        Ok(Found {
            platform: platform.cloned().unwrap_or_else(|| parsed.platform()),
            parsed,
            config: (manifest.config.digest, config),
            layers,
            index: self.index.clone(),
            manifest: Some((digest, bytes)),
            parent: None,
            names: self.names.to_vec(),
        })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A document of a layout, its digest checked.
fn document(bundle: &Bundle, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    let name = blob_name(&descriptor.digest);
    let bytes = bundle.bytes(&name, limit)?;
    descriptor.digest.verify(&bytes).map_err(|actual| {
        let expected = descriptor.digest.clone();
        Error::WrongDigest { what: name, actual, expected }
    })?;
    Ok(bytes)
}
