//! Images, as a user sees them.

pub mod layers;

use serde::{Deserialize, Serialize};

use crate::container::{GraphDriver, HealthConfig};
use crate::descriptor::Descriptor;
use crate::time::Time;
use crate::{Set, StringMap};

mod manifests;

pub use manifests::{AttestationData, ImageData, ManifestSize, ManifestSummary, UnpackedSize};

/// An element of `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Summary {
    /// Containers that use it; −1: not counted.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Labels; null where there are none.
    pub labels: Option<StringMap>,
    /// Parent image of a local build.
    pub parent_id: String,
    /// What it can be pulled by, `name@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Names, `name:tag`.
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images; −1: not counted.
    pub shared_size: i64,
    /// Bytes in all.
    pub size: i64,
    /// What its name points to; only where manifests are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// Its platforms; only where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Names, `name:tag`.
    pub repo_tags: Vec<String>,
    /// What it can be pulled by, `name@sha256:…`.
    pub repo_digests: Vec<String>,
    /// The image that it was made from here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Comment of the last history entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// When it was made; none if the image does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Author.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Configuration for containers.
    pub config: Option<ImageConfig>,
    /// CPU architecture in Go's words.
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system.
    pub os: String,
    /// Version of the operating system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Bytes in all.
    pub size: i64,
    /// Where the storage driver keeps the layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_driver: Option<GraphDriver>,
    /// Layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What this engine knows beside the image.
    pub metadata: Metadata,
    /// What its name points to; only where manifests are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// Its platforms; only where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// The part of an image that configures containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports, `80/tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<Set>,
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Command, or arguments of the entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Set>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<StringMap>,
    /// Signal that asks the container to stop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Instructions for images built on this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Shell for the shell form of instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
}

/// What this engine knows beside the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Metadata {
    /// When it last got a name here.
    pub last_tag_time: Time,
}

/// An element of the answer to a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeleteItem {
    /// This name is gone.
    Untagged(String),
    /// This image or layer is gone.
    Deleted(String),
}

/// An element of `GET /images/{name}/history`, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HistoryItem {
    /// Comment.
    pub comment: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The instruction.
    pub created_by: String,
    /// Image ID for the newest, else `<missing>`.
    pub id: String,
    /// Bytes of the layer.
    pub size: i64,
    /// Names of that image; null where there are none.
    pub tags: Option<Vec<String>>,
}

/// `GET /distribution/{name}/json`: what a registry has under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: crate::descriptor::Descriptor,
    /// What it is for.
    pub platforms: Vec<crate::descriptor::Platform>,
}

/// Answer to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneResponse {
    /// What was removed.
    pub images_deleted: Option<Vec<DeleteItem>>,
    /// Bytes freed.
    pub space_reclaimed: u64,
}

/// Answer to commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitResponse {
    /// `sha256:…` of the new image.
    #[serde(rename = "Id")]
    pub id: String,
}

/// An element of `GET /images/search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// How many like it.
    pub star_count: i64,
    /// Whether the registry vouches for it.
    pub is_official: bool,
    /// The repository's name, without the registry's.
    pub name: String,
    /// Always false; older clients want it.
    pub is_automated: bool,
    /// What its owner says of it.
    pub description: String,
}

/// What a pull would bring: Berth's own `GET /images/{name}/estimate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PullEstimate {
    /// Digest of what the reference names.
    pub digest: String,
    /// The platform of the image, such as `linux/amd64`.
    pub platform: String,
    /// Layers of the image, lowest first.
    pub layers: Vec<LayerEstimate>,
    /// Bytes of all layers as they come.
    pub total: i64,
    /// Bytes that are to be downloaded.
    pub download: i64,
    /// Bytes that the missing layers take on the disk.
    pub unpacked: i64,
    /// Whether that is exact; if not, it is at least as much.
    pub unpacked_is_exact: bool,
    /// Bytes that must be free for the pull, at the least.
    pub needed: i64,
    /// Bytes that are free.
    pub free: i64,
    /// Bytes that must stay free.
    pub keep_free: i64,
    /// Whether the pull can fit.
    pub fits: bool,
}

/// One layer of a pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LayerEstimate {
    /// Digest of its blob.
    pub digest: String,
    /// Bytes of its blob.
    pub size: i64,
    /// Bytes that are to be downloaded.
    pub download: i64,
    /// Whether it is unpacked already.
    pub exists: bool,
}
