//! The documents of an image that is pulled: index, manifest and configuration, verified.

use berth_oci::media_type::ACCEPTED;
use berth_oci::{CONFIG_LIMIT, Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};
use futures_util::StreamExt as _;

use crate::{Error, Result};

/// The documents of an image, verified.
pub(crate) struct Documents {
    /// The index, if the reference names one.
    pub index: Option<(Digest, Vec<u8>)>,
    pub manifest: (Digest, Vec<u8>),
    pub config: (Digest, Vec<u8>),
    pub layers: Vec<Descriptor>,
    pub parsed: ImageConfig,
}

/// Fetches the documents of the image that `reference` names, for `platform` or this machine. Where those of a mirror are
/// of no use, the registry's own are fetched.
pub(crate) async fn fetch_documents(
    registry: &berth_registry::Client,
    reference: &Reference,
    platform: Option<Platform>,
) -> Result<Documents> {
    match fetch_once(registry, reference, platform.clone()).await {
        Err(error) if registry.distrust_mirrors() => {
            tracing::warn!(reference = reference.familiar(), %error, "what mirrors gave is of no use");
            fetch_once(registry, reference, platform).await
        }
        outcome => outcome,
    }
}

async fn fetch_once(
    registry: &berth_registry::Client,
    reference: &Reference,
    platform: Option<Platform>,
) -> Result<Documents> {
    let first = registry.manifest(reference, &ACCEPTED).await?;
    let (index, manifest_digest, bytes, manifest) = match read_document(reference, &first)? {
        Document::Manifest(manifest) => (None, first.digest, first.bytes, manifest),
        Document::Index(index) => {
            let wanted = platform.clone().unwrap_or_else(Platform::host);
            let found = index.find(&wanted);
            let descriptor = found.ok_or_else(|| Error::NoPlatform { platform: wanted.clone() })?;
            let answer = registry.manifest(&reference.at(descriptor.digest.clone()), &ACCEPTED).await?;
            let manifest = match read_document(reference, &answer)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => {
                    return Err(Error::Archive("an index lists another index for the platform".to_owned()));
                }
            };
            (Some((first.digest, first.bytes)), answer.digest, answer.bytes, manifest)
        }
    };
    let Manifest { config, layers, .. } = manifest;
    let config_bytes = fetch_config(registry, reference, &config).await?;
    let parsed = ImageConfig::read(&config_bytes)?;
    if parsed.rootfs.diff_ids.len() != layers.len() {
        return Err(Error::LayerCount { layers: layers.len(), diff_ids: parsed.rootfs.diff_ids.len() });
    }
    // What an index says of a platform counts before what the image says itself.
    let is_wrong = |wanted: &Platform| index.is_none() && parsed.platform().rank(wanted).is_none();
    if let Some(platform) = platform.filter(is_wrong) {
        return Err(Error::WrongPlatform { reference: reference.familiar(), platform: Box::new(platform) });
    }
    Ok(Documents {
        index,
        manifest: (manifest_digest, bytes),
        config: (config.digest, config_bytes),
        layers,
        parsed,
    })
}

fn read_document(reference: &Reference, answer: &berth_registry::ManifestAnswer) -> Result<Document> {
    Document::read(&answer.bytes, answer.media_type.as_deref())
        .map_err(|source| Error::Manifest { reference: reference.familiar(), source })
}

/// Fetches the configuration of an image.
pub(crate) async fn fetch_config(
    registry: &berth_registry::Client,
    reference: &Reference,
    config: &Descriptor,
) -> Result<Vec<u8>> {
    let limit = CONFIG_LIMIT;
    if config.size > limit {
        return Err(Error::TooLarge { what: "image configuration".to_owned(), limit });
    }
    let mut stream = registry.blob(reference, config, 0).await?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part?);
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { what: "image configuration".to_owned(), limit });
        }
    }
    config.digest.verify(&bytes).map_err(|actual| Error::WrongDigest {
        what: "image configuration".to_owned(),
        actual,
        expected: config.digest.clone(),
    })?;
    Ok(bytes)
}
