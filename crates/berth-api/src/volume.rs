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
    /// `local`.
    pub driver: String,
    /// Labels.
    pub labels: Option<StringMap>,
    /// Where it lies on the host.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options of its driver.
    pub options: Option<StringMap>,
    /// `local`.
    pub scope: String,
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
