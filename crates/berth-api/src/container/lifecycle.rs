//! Requests and answers along a container's life.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Config, HostConfig, RestartPolicy, ThrottleDevice, WeightDevice};
use crate::json;
use crate::network::{NetworkingConfig, PortMap};

/// Body of `POST /containers/create`: the configuration's own fields, beside the host's and the networks' parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRequest {
    /// Portable part.
    #[serde(flatten)]
    pub config: Config,
    /// Host part; none: all defaults.
    pub host_config: Option<HostConfig>,
    /// Endpoints.
    pub networking_config: Option<NetworkingConfig>,
}

/// The fields of a create request that do not belong to [`Config`].
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateParts {
    host_config: Option<HostConfig>,
    networking_config: Option<NetworkingConfig>,
}

// serde's flatten would hide the field names that tolerant reading needs.
impl<'de> Deserialize<'de> for CreateRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = serde_json::Value::deserialize(deserializer)?;
        let mut parts = serde_json::Map::new();
        if let Some(object) = value.as_object_mut() {
            for name in ["HostConfig", "NetworkingConfig"] {
                let keys: Vec<String> =
                    object.keys().filter(|key| key.eq_ignore_ascii_case(name)).cloned().collect();
                for key in keys {
                    if let Some(part) = object.remove(&key) {
                        parts.insert(key, part);
                    }
                }
            }
        }
        let config = json::from_value(value).map_err(D::Error::custom)?;
        let parts: CreateParts = json::from_value(parts.into()).map_err(D::Error::custom)?;
        Ok(Self { config, host_config: parts.host_config, networking_config: parts.networking_config })
    }
}

/// Answer to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// The new container.
    pub id: String,
    /// What was ignored or adjusted; an empty list, never null.
    pub warnings: Vec<String>,
}

/// Answer to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitResponse {
    /// Exit code.
    pub status_code: i64,
    /// Why waiting, or the container, failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

/// Why waiting failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitError {
    /// In words.
    pub message: String,
}

/// Answer to top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TopResponse {
    /// One row per process.
    pub processes: Vec<Vec<String>>,
    /// Column titles.
    pub titles: Vec<String>,
}

/// Body of `POST /containers/{id}/update`. What is missing stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateRequest {
    /// As in the host configuration.
    pub cpu_shares: i64,
    /// As in the host configuration.
    pub memory: i64,
    /// As in the host configuration.
    pub nano_cpus: i64,
    /// As in the host configuration.
    pub blkio_weight: u16,
    /// As in the host configuration; since API 1.55, as the four that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// As in the host configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// As in the host configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// As in the host configuration.
    #[serde(rename = "BlkioDeviceReadIOps", skip_serializing_if = "Option::is_none")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// As in the host configuration.
    #[serde(rename = "BlkioDeviceWriteIOps", skip_serializing_if = "Option::is_none")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// As in the host configuration.
    pub cpu_period: i64,
    /// As in the host configuration.
    pub cpu_quota: i64,
    /// As in the host configuration.
    pub cpu_realtime_period: i64,
    /// As in the host configuration.
    pub cpu_realtime_runtime: i64,
    /// As in the host configuration.
    pub cpuset_cpus: String,
    /// As in the host configuration.
    pub cpuset_mems: String,
    /// As in the host configuration.
    pub memory_reservation: i64,
    /// As in the host configuration.
    pub memory_swap: i64,
    /// As in the host configuration.
    pub pids_limit: Option<i64>,
    /// A new restart policy; an empty name changes nothing.
    pub restart_policy: RestartPolicy,
}

/// Answer to update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateResponse {
    /// What was ignored.
    pub warnings: Option<Vec<String>>,
}

/// Body of `POST /containers/{id}/ports`, which is beyond Docker's API: ports published and taken back at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortsUpdate {
    /// What to publish, as in the host configuration.
    pub publish: Option<PortMap>,
    /// What to take back. An empty address or port of the host stands for all.
    pub unpublish: Option<PortMap>,
}

/// An element of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Change {
    /// Path in the container.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// Answer to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneResponse {
    /// Containers that were removed.
    pub containers_deleted: Option<Vec<String>>,
    /// Bytes freed.
    pub space_reclaimed: u64,
}
