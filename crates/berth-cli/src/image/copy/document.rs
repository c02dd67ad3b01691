//! Manifests and indexes of any kind, as far as copying them needs to know.

use berth_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use berth_oci::{Descriptor, Digest, Index, Platform};
use serde::Deserialize;

use crate::failure::{Failure, Outcome};

/// A manifest or index, byte for byte.
#[derive(Debug, Clone)]
pub struct Document {
    /// The text.
    pub bytes: Vec<u8>,
    /// What it is said to be.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// What it is for, if an index says so.
    pub platform: Option<Platform>,
    shape: Shape,
}

/// Artifacts and attestations have layers of any kind: they are copied, too.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads one whose digest is verified already. `said` is its type by whoever gave it.
    pub fn read(bytes: Vec<u8>, digest: Digest, said: Option<&str>) -> Outcome<Self> {
        let shape: Shape = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("manifest {digest} makes no sense: {error}")))?;
        if shape.schema_version == 1 {
            return Err(Failure::new("manifest schema 1 is not supported"));
        }
        let said = said.map(|said| said.split(';').next().unwrap_or_default().trim());
        let usual = if shape.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
        // What it says of itself counts; a server that has no idea says something general.
        let said = said.filter(|said| said.starts_with("application/vnd."));
        let own = shape.media_type.as_deref().filter(|own| !own.is_empty());
        let media_type = own.or(said).unwrap_or(usual).to_owned();
        if shape.manifests.is_none() && shape.config.is_none() && shape.layers.is_none() {
            return Err(Failure::new(format!("{digest} is neither a manifest nor an index")));
        }
        Ok(Self { bytes, media_type, digest, platform: None, shape })
    }

    /// What an index lists; none for a manifest.
    pub fn manifests(&self) -> Option<&[Descriptor]> {
        self.shape.manifests.as_deref()
    }

    /// All blobs that a manifest names, each once: the configuration and what it is made of. Layers that are only to be
    /// had elsewhere are not among them.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut found: Vec<Descriptor> = Vec::new();
        for blob in self.shape.config.iter().chain(self.shape.layers.iter().flatten()) {
            let is_foreign =
                blob.media_type.contains("nondistributable") || blob.media_type.contains("foreign");
            if !is_foreign && !found.iter().any(|known| known.digest == blob.digest) {
                found.push(blob.clone());
            }
        }
        found
    }

    /// The configuration and the layers of an image, in their order.
    pub fn image(&self) -> Option<(&Descriptor, &[Descriptor])> {
        self.shape.config.as_ref().map(|config| (config, self.shape.layers.as_deref().unwrap_or_default()))
    }

    /// What an index lists for a platform.
    pub fn find(&self, platform: &Platform) -> Option<Descriptor> {
        let manifests = self.manifests()?.to_vec();
        let annotations = std::collections::BTreeMap::new();
        let index = Index { schema_version: 2, media_type: String::new(), manifests, annotations };
        index.find(platform).cloned()
    }

    /// A descriptor of it.
    pub fn descriptor(&self) -> Descriptor {
        let size = self.bytes.len() as u64;
        let mut descriptor = Descriptor::new(&self.media_type, self.digest.clone(), size);
        descriptor.platform.clone_from(&self.platform);
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: serde_json::Value, said: Option<&str>) -> Outcome<Document> {
        let bytes = value.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        Document::read(bytes, digest, said)
    }

    #[test]
    fn documents_of_any_kind_are_read() {
        let blob = |kind: &str| json!({"mediaType": kind, "digest": Digest::of(kind.as_bytes()), "size": 3});
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let layers = json!([blob("application/vnd.in-toto+json"), blob("x"), blob("x"), blob(foreign)]);
        let manifest =
            document(json!({"schemaVersion": 2, "config": blob("c"), "layers": layers}), None).unwrap();
        assert_eq!((manifest.blobs().len(), manifest.media_type.as_str()), (3, OCI_MANIFEST));
        let index =
            document(json!({"schemaVersion": 2, "manifests": []}), Some("text/plain; charset=x")).unwrap();
        assert_eq!((index.media_type.as_str(), index.blobs().len()), (OCI_INDEX, 0));
        let said = "application/vnd.docker.distribution.manifest.list.v2+json";
        assert_eq!(document(json!({"manifests": []}), Some(said)).unwrap().media_type, said);
        assert!(document(json!({"schemaVersion": 1, "layers": []}), None).is_err());
        assert!(document(json!({}), None).is_err());
        assert!(document(json!([]), None).is_err());
    }
}
