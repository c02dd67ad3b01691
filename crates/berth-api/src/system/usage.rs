//! `GET /system/df`.

use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::{container, image, volume};

/// How much room objects of one kind take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Usage<T> {
    /// Objects in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub active_count: i64,
    /// The objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<T>,
    /// Bytes that removing unused ones would free.
    #[serde(skip_serializing_if = "is_zero")]
    pub reclaimable: i64,
    /// Objects in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_count: i64,
    /// Bytes in all; what several share counts once.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_size: i64,
}

impl<T> Default for Usage<T> {
    fn default() -> Self {
        Self { active_count: 0, items: Vec::new(), reclaimable: 0, total_count: 0, total_size: 0 }
    }
}

/// The answer from API version 1.52 on, by kind; a kind that was not asked for is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_usage: Option<Usage<image::Summary>>,
    /// Containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_usage: Option<Usage<container::Summary>>,
    /// Volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_usage: Option<Usage<volume::Volume>>,
    /// What builders keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_cache_usage: Option<Usage<CacheRecord>>,
}

/// The answer before, and beside the new one until a client says `verbose`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LegacyDiskUsage {
    /// Bytes of all layers of images.
    #[serde(skip_serializing_if = "is_zero")]
    pub layers_size: i64,
    /// Images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<image::Summary>>,
    /// Containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<container::Summary>>,
    /// Volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<volume::Volume>>,
    /// What builders keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_cache: Option<Vec<CacheRecord>>,
}

impl From<&DiskUsage> for LegacyDiskUsage {
    fn from(usage: &DiskUsage) -> Self {
        Self {
            layers_size: usage.image_usage.as_ref().map_or(0, |images| images.total_size),
            images: usage.image_usage.as_ref().map(|images| images.items.clone()),
            containers: usage.container_usage.as_ref().map(|containers| containers.items.clone()),
            volumes: usage.volume_usage.as_ref().map(|volumes| volumes.items.clone()),
            build_cache: usage.build_cache_usage.as_ref().map(|records| records.items.clone()),
        }
    }
}

/// A result that a builder keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CacheRecord {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// `regular`, `source.local`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// What it is of.
    pub description: String,
    /// It cannot be removed now.
    pub in_use: bool,
    /// Others need it.
    pub shared: bool,
    /// Bytes.
    pub size: i64,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it was last used.
    pub last_used_at: Option<Time>,
    /// How often it was used.
    pub usage_count: i64,
}

/// The answer to the removal of what builders keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CachePruneResponse {
    /// IDs of what is gone.
    pub caches_deleted: Option<Vec<String>>,
    /// Bytes freed.
    pub space_reclaimed: u64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_missing_and_what_is_empty_is_short() {
        let usage = DiskUsage { volume_usage: Some(Usage::default()), ..DiskUsage::default() };
        assert_eq!(serde_json::to_string(&usage).unwrap(), r#"{"VolumeUsage":{}}"#);
        let legacy = LegacyDiskUsage::from(&usage);
        assert_eq!(serde_json::to_string(&legacy).unwrap(), r#"{"Volumes":[]}"#);
    }
}
