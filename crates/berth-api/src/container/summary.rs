//! A container in a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MountPoint, Status};
use crate::StringMap;
use crate::descriptor::Descriptor;
use crate::network::{EndpointSettings, PortSummary};

/// An element of `GET /containers/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Summary {
    /// Full ID.
    pub id: String,
    /// Names with a leading slash.
    pub names: Vec<String>,
    /// Image as the user named it, or its ID once that name points elsewhere.
    pub image: String,
    /// Image ID.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// The manifest of the image, since version 1.48.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
    /// Program and arguments as one line.
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Exposed and published ports.
    pub ports: Vec<PortSummary>,
    /// Bytes written by the container, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of the whole file system, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Labels.
    pub labels: StringMap,
    /// State as one word.
    pub state: Status,
    /// State for people: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub status: String,
    /// Some of the host part of the configuration.
    pub host_config: SummaryHost,
    /// Endpoints.
    pub network_settings: SummaryNetworks,
    /// Mounts in place.
    pub mounts: Vec<MountPoint>,
    /// Health, since version 1.52.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<SummaryHealth>,
}

/// The health in a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHealth {
    /// `none`, `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
}

/// The host part of a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHost {
    /// As in the host configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// As in the host configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<StringMap>,
}

/// The networks of a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryNetworks {
    /// Endpoints by network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}
