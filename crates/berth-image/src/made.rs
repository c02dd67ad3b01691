//! A manifest for an image that came without one: of its uncompressed layers, as Docker's `save` has it.

use std::collections::BTreeMap;

use berth_oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use berth_oci::{Descriptor, Digest, Manifest};
use berth_storage::Storage;
use serde::Serialize;

use crate::{Error, Result};

/// A manifest that was made here.
#[derive(Debug)]
pub(crate) struct Made {
    /// What stands for it.
    pub descriptor: Descriptor,
    /// Its bytes; the same image has the same.
    pub bytes: Vec<u8>,
    /// What stands for its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Makes the manifest of an image whose layers are stored. `config_size` is the length of its configuration; `layers`
/// are diff and chain IDs, lowest first. Blocks.
pub(crate) fn manifest<'a>(
    storage: &Storage,
    id: &Digest,
    config_size: u64,
    layers: impl IntoIterator<Item = (&'a Digest, &'a Digest)>,
) -> Result<Made> {
    let mut described = Vec::new();
    for (diff, chain) in layers {
        described.push(Descriptor::new(OCI_LAYER, diff.clone(), tar_size(storage, chain)?));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Descriptor::new(OCI_CONFIG, id.clone(), config_size),
        layers: described,
        annotations: BTreeMap::new(),
    };
    let bytes = json(&manifest)?;
    let descriptor = Descriptor::new(OCI_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    Ok(Made { descriptor, bytes, layers: manifest.layers })
}

/// The length of a stored layer's tar in bytes. Blocks.
pub(crate) fn tar_size(storage: &Storage, chain: &Digest) -> Result<u64> {
    let mut meta = storage.layers().open_meta(chain)?;
    berth_archive::meta::length(&mut meta)
        .map_err(|source| Error::Pack { layer: chain.short().to_owned(), source })
}

/// A document as JSON; the same value gives the same bytes.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::io("writing a document", error.into()))
}
