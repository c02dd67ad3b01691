//! Volumes.

use serde::{Deserialize, Serialize};

use crate::StringMap;
use crate::time::Time;

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// `local`, or a plugin's name.
    pub driver: String,
    /// Labels.
    pub labels: Option<StringMap>,
    /// Where it lies on the host.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options of its driver.
    pub options: Option<StringMap>,
    /// `local`, or `global` for a volume that all hosts see.
    pub scope: String,
    /// What a plugin tells about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
    /// How large it is and who uses it; only in `GET /system/df`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// How large a volume is and who uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageData {
    /// Containers that use it; −1: not known.
    pub ref_count: i64,
    /// Bytes of its files; −1: not known.
    pub size: i64,
}

/// A volume to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// Its name; empty for a random one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its driver; empty for `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of its driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_opts: Option<StringMap>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<StringMap>,
    /// What a volume of a swarm is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_volume_spec: Option<serde_json::Value>,
}

/// All volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ListResponse {
    /// They.
    pub volumes: Vec<Volume>,
    /// What went wrong with some driver.
    pub warnings: Option<Vec<String>>,
}

/// What was removed together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneResponse {
    /// The volumes.
    pub volumes_deleted: Vec<String>,
    /// Bytes that this freed.
    pub space_reclaimed: u64,
}
