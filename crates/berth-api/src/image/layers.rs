//! `GET /berth/images/{name}/layers`: what an image's layers cost and waste. Docker's API has nothing like it.

use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Layers {
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// Bytes of the files of all layers.
    pub size: i64,
    /// Bytes of files that a layer above overwrites or removes.
    pub wasted: i64,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The largest files that take room and do not show, the largest first.
    pub largest: Vec<WastedFile>,
}

/// A layer of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Layer {
    /// Digest of the uncompressed tar.
    #[serde(rename = "DiffID")]
    pub diff_id: String,
    /// Digest of the layer on top of all below it.
    #[serde(rename = "ChainID")]
    pub chain_id: String,
    /// The instruction that made it; empty if the image does not say.
    pub created_by: String,
    /// Bytes of its files.
    pub size: i64,
    /// Images here that have it, this one among them.
    pub images: u32,
    /// What was not there below it.
    pub added: Tally,
    /// What takes the place of something below it.
    pub changed: Tally,
    /// What it hides of the layers below.
    pub removed: Tally,
    /// Bytes of its own files that layers above overwrite or remove.
    pub wasted: i64,
}

/// Files, and the bytes in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Tally {
    /// Everything that has a name.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: i64,
}

/// A file that takes room and does not show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WastedFile {
    /// Its path; what is not UTF-8 is replaced.
    pub path: String,
    /// Its bytes.
    pub size: i64,
    /// The layer that has it, from 1 for the lowest.
    pub layer: usize,
    /// The layer that hides it.
    pub hidden_by: usize,
}
