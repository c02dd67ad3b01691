//! Manifests and indexes, of the OCI and of Docker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, LAYER_LIMIT, Platform, media_type};

/// A reference to some content (OCI image specification, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it can be had from; not followed.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of some content.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        let media_type = media_type.into();
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// Reads a JSON object as `T`. Serde would read an array as a struct too, field by field.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, serde_json::Error> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(serde::de::Error::custom("expected an object"));
    }
    serde_json::from_slice(bytes)
}

pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An image manifest: its configuration and layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or manifest list: one manifest for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The manifest for a platform: of those that serve it best (see [`Platform::rank`]) the first, attestations passed over.
    /// In an index that names no platforms, the only manifest.
    pub fn find(&self, wanted: &Platform) -> Option<&Descriptor> {
        let mut images = self.manifests.iter().filter(|m| !is_attestation(m));
        let ranked = images.clone().filter_map(|m| Some((m.platform.as_ref()?.rank(wanted)?, m)));
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, m)| m);
        best.or_else(|| match (images.next(), images.next()) {
            (Some(only), None) if only.platform.is_none() => Some(only),
            _ => None,
        })
    }
}

/// Whether an entry of an index is no image but says something of one.
pub fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.get("vnd.docker.reference.type").is_some_and(|t| t == "attestation-manifest")
        || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown")
}

/// What a registry gives for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image.
    Manifest(Manifest),
    /// Several, for several platforms.
    Index(Index),
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The media type is that of no image.
    #[error("unsupported manifest media type {0:?}: it is neither an image manifest nor an index")]
    UnknownKind(String),
    /// Schema 1, which has no digests of configurations.
    #[error(
        "manifest schema 1 is not supported: ask the image's publisher to push it again in a current format"
    )]
    Schema1,
    /// The text is not the JSON that its media type promises.
    #[error("malformed manifest: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Too many layers for any overlay mount.
    #[error("image has {0} layers; at most {LAYER_LIMIT} can be mounted")]
    TooManyLayers(usize),
    /// A layer is of a kind that cannot be unpacked.
    #[error("unsupported layer media type {0:?}")]
    UnknownLayer(String),
}

/// Only as much as tells what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

/// Only as much as tells whether a manifest is that of an image.
#[derive(Deserialize)]
struct Content {
    config: Descriptor,
}

/// Whether a document is a manifest of something else than an image, such as a signature or a chart (OCI image
/// specification, "Guidelines for Artifact Usage"): its configuration is of another kind.
pub fn is_artifact(bytes: &[u8]) -> bool {
    let content: Option<Content> = read_object(bytes).ok();
    content.is_some_and(|content| !media_type::is_config(&content.config.media_type))
}

impl Document {
    /// Reads a document. `content_type` is what the registry said of it; what the document says of itself wins.
    pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Document, DocumentError> {
        let kind: Kind = read_object(bytes)?;
        let said = kind.media_type.as_deref().filter(|t| !t.is_empty());
        let given = content_type.map(|t| t.split(';').next().unwrap_or_default().trim());
        if kind.schema_version == 1 {
            return Err(DocumentError::Schema1);
        }
        match said.or(given).unwrap_or_default() {
            t if media_type::is_index(t) => Document::index(bytes),
            t if media_type::is_manifest(t) => Document::manifest(bytes),
            media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED => Err(DocumentError::Schema1),
            // Old documents in archives and sloppy registries say nothing: the shape tells.
            "" | "application/json" | "text/plain" | "application/octet-stream"
                if kind.manifests.is_some() =>
            {
                Document::index(bytes)
            }
            "" | "application/json" | "text/plain" | "application/octet-stream" if kind.layers.is_some() => {
                Document::manifest(bytes)
            }
            other => Err(DocumentError::UnknownKind(other.into())),
        }
    }

    fn index(bytes: &[u8]) -> Result<Document, DocumentError> {
        Ok(Document::Index(serde_json::from_slice(bytes)?))
    }

    fn manifest(bytes: &[u8]) -> Result<Document, DocumentError> {
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        if manifest.layers.len() > LAYER_LIMIT {
            return Err(DocumentError::TooManyLayers(manifest.layers.len()));
        }
        if let Some(unknown) = manifest.layers.iter().find(|l| !media_type::is_layer(&l.media_type)) {
            return Err(DocumentError::UnknownLayer(unknown.media_type.clone()));
        }
        Ok(Document::Manifest(manifest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value, content_type: Option<&str>) -> Result<Document, DocumentError> {
        Document::read(value.to_string().as_bytes(), content_type)
    }

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": 1})
    }

    #[test]
    fn both_families_are_read() {
        for (manifest, layer) in [
            (media_type::OCI_MANIFEST, "application/vnd.oci.image.layer.v1.tar+zstd"),
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_LAYER),
        ] {
            let value = json!({"schemaVersion": 2, "mediaType": manifest, "config": descriptor("c"), "layers": [descriptor(layer)]});
            assert!(matches!(read(value, None), Ok(Document::Manifest(m)) if m.layers.len() == 1));
        }
        for index in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
            let value = json!({"schemaVersion": 2, "manifests": null});
            assert!(matches!(read(value, Some(index)), Ok(Document::Index(i)) if i.manifests.is_empty()));
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let unknown = read(json!({"schemaVersion": 2, "mediaType": "application/x"}), None).unwrap_err();
        assert!(unknown.to_string().contains("\"application/x\""));
        assert!(matches!(
            read(json!({"schemaVersion": 1}), Some(media_type::OCI_MANIFEST)),
            Err(DocumentError::Schema1)
        ));
        assert!(matches!(Document::read(b"<html>", None), Err(DocumentError::Malformed(_))));
        let layers = vec![descriptor(media_type::DOCKER_LAYER); LAYER_LIMIT + 1];
        let many = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": layers});
        assert!(matches!(read(many, None), Err(DocumentError::TooManyLayers(_))));
        let odd = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [descriptor("x/y")]});
        assert!(matches!(read(odd, None), Err(DocumentError::UnknownLayer(_))));
    }

    #[test]
    fn artifacts_are_told_from_images() {
        let is = |config: &str| {
            is_artifact(json!({"schemaVersion": 2, "config": descriptor(config)}).to_string().as_bytes())
        };
        assert!(is("application/vnd.oci.empty.v1+json") && is("application/vnd.cncf.helm.config.v1+json"));
        assert!(!is(media_type::OCI_CONFIG) && !is(media_type::DOCKER_CONFIG) && !is(""));
        assert!(!is_artifact(b"{}") && !is_artifact(b"[]"));
    }

    #[test]
    fn an_index_gives_the_platforms_image_and_never_an_attestation() {
        let entry = |platform: Option<&str>, size| {
            let platform = platform.map(|p| {
                let (os, architecture) = p.split_once('/').unwrap();
                Platform { os: os.into(), architecture: architecture.into(), ..Platform::default() }
            });
            Descriptor { platform, ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"m"), size) }
        };
        let index = |manifests| Index {
            schema_version: 2,
            media_type: String::new(),
            manifests,
            annotations: BTreeMap::new(),
        };
        let amd: Platform = "linux/amd64".parse().unwrap();
        let both = index(vec![
            entry(Some("linux/arm64"), 1),
            entry(Some("linux/amd64"), 2),
            entry(Some("unknown/unknown"), 3),
        ]);
        assert_eq!(both.find(&amd).unwrap().size, 2);
        assert!(both.find(&"linux/s390x".parse().unwrap()).is_none());
        // The best of those that will do, wherever it is.
        let kin = index(vec![entry(Some("linux/386"), 1), entry(Some("linux/amd64"), 2)]);
        assert_eq!(kin.find(&amd).unwrap().size, 2);
        assert_eq!(index(vec![entry(Some("linux/386"), 1)]).find(&amd).unwrap().size, 1);
        assert_eq!(index(vec![entry(None, 7)]).find(&amd).unwrap().size, 7);
        assert!(index(vec![entry(Some("unknown/unknown"), 3)]).find(&amd).is_none());
    }
}
