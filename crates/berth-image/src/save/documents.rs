//! The documents of an archive that say what is in it: those of an OCI layout, and those of `docker save`.

use std::collections::BTreeMap;

use berth_oci::{Descriptor, Digest};
use serde::Serialize;

use super::{Image, Saving};
use crate::Result;
use crate::made::json;

/// The content of the file `oci-layout`.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    /// `null` for an image without a name, as Docker has it.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    /// The image that it was made from, if that is in the archive too.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<String, Descriptor>,
}

impl Saving {
    /// `index.json`: one entry for each name.
    pub(super) fn index(&self) -> Result<Vec<u8>> {
        let listed = match &self.entries {
            Some(entries) => entries.clone(),
            None => self.images.iter().flat_map(entries).collect(),
        };
        json(&crate::push::steps::index(listed))
    }

    /// `manifest.json`: one entry for each image.
    pub(super) fn manifest(&self) -> Result<Vec<u8>> {
        let is_here = |id: &&Digest| self.images.iter().any(|image| image.id == **id);
        let with_parent = |image| saved(image, image.parent.as_ref().filter(is_here));
        let images: Vec<SavedImage> = self.images.iter().map(with_parent).collect();
        json(&images)
    }

    /// `repositories`: the topmost layer of each tag, by repository; none if no image has a name.
    pub(super) fn repositories(&self) -> Result<Option<Vec<u8>>> {
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in &self.images {
            let Some((_, top)) = image.layers.last() else { continue };
            for name in &image.names {
                let tags = repositories.entry(name.familiar_repository()).or_default();
                tags.insert(name.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned());
            }
        }
        Some(repositories).filter(|found| !found.is_empty()).as_ref().map(json).transpose()
    }
}

fn entries(image: &Image) -> Vec<Descriptor> {
    let stands = image.index.as_ref().unwrap_or(&image.manifest);
    if image.names.is_empty() {
        return vec![stands.clone()];
    }
    let named = image.names.iter().map(|name| {
        let mut entry = stands.clone();
        entry.annotations = BTreeMap::from([
            ("io.containerd.image.name".to_owned(), name.canonical()),
            ("org.opencontainers.image.ref.name".to_owned(), name.tag().unwrap_or_default().to_owned()),
        ]);
        entry
    });
    named.collect()
}

fn saved(image: &Image, parent: Option<&Digest>) -> SavedImage {
    let names: Vec<String> = image.names.iter().map(berth_oci::Reference::familiar).collect();
    SavedImage {
        config: blob_name(&image.id),
        parent: parent.map(ToString::to_string),
        repo_tags: Some(names).filter(|names| !names.is_empty()),
        layers: image.layers.iter().map(|(_, layer)| blob_name(&layer.digest)).collect(),
        layer_sources: image.layers.iter().map(|(diff, layer)| (diff.to_string(), layer.clone())).collect(),
    }
}

/// The place of a blob in the archive.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("{}{}", folder(digest), digest.hex())
}

/// The folder of blobs whose digests are of one kind.
pub(super) fn folder(digest: &Digest) -> String {
    format!("blobs/{}/", digest.algorithm().name())
}
