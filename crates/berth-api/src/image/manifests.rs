//! The platforms of an image.

use serde::{Deserialize, Serialize};

use crate::descriptor::{Descriptor, Platform};

/// One manifest of an image: a platform, or a note about one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManifestSummary {
    /// Digest of the manifest.
    #[serde(rename = "ID")]
    pub id: String,
    /// What stands for it.
    pub descriptor: Descriptor,
    /// Everything of it is kept.
    pub available: bool,
    /// What it takes.
    pub size: ManifestSize,
    /// `image`, `attestation` or `unknown`.
    pub kind: String,
    /// Of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_data: Option<ImageData>,
    /// Of an attestation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation_data: Option<AttestationData>,
}

/// What a manifest takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManifestSize {
    /// What is kept as it came.
    pub content: i64,
    /// With unpacked files.
    pub total: i64,
}

/// What there is to know of a manifest that is an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageData {
    /// What it is for.
    pub platform: Platform,
    /// IDs of containers that use it.
    pub containers: Vec<String>,
    /// What it takes unpacked.
    pub size: UnpackedSize,
}

/// Bytes of unpacked files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UnpackedSize {
    /// Of all layers.
    pub unpacked: i64,
}

/// What there is to know of a note about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttestationData {
    /// Digest of the manifest that it is about.
    #[serde(rename = "For")]
    pub about: String,
}
