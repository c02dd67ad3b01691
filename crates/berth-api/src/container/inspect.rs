//! All about one container.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Config, HostConfig, MountPoint};
use crate::StringMap;
use crate::descriptor::Descriptor;
use crate::network::{EndpointSettings, PortMap};
use crate::time::Time;

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    /// Full ID.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// State now.
    pub state: State,
    /// Image ID.
    pub image: String,
    /// The manifest of the image, since version 1.48.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
    /// Generated `/etc/resolv.conf` on the host.
    pub resolv_conf_path: String,
    /// Generated `/etc/hostname` on the host.
    pub hostname_path: String,
    /// Generated `/etc/hosts` on the host.
    pub hosts_path: String,
    /// Log file on the host.
    pub log_path: String,
    /// Name with a leading slash.
    pub name: String,
    /// Restarts by policy since the last start by a user.
    pub restart_count: i64,
    /// Storage driver.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux label of mounts.
    pub mount_label: String,
    /// SELinux label of the process.
    pub process_label: String,
    /// AppArmor profile.
    pub app_armor_profile: String,
    /// Commands running in the container beside its own.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// Host part of the configuration.
    pub host_config: HostConfig,
    /// Where the storage driver keeps the layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_driver: Option<GraphDriver>,
    /// Bytes written by the container, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of the whole file system, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Mounts in place.
    pub mounts: Vec<MountPoint>,
    /// Portable part of the configuration.
    pub config: Config,
    /// Networks.
    pub network_settings: NetworkSettings,
}

/// A container's state, as one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Exited, to be started again by policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Exited.
    Exited,
    /// Could not be removed whole.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A container's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct State {
    /// As one word.
    pub status: Status,
    /// Has a process; also true while paused or restarting.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Waiting for its restart.
    pub restarting: bool,
    /// The kernel killed for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed whole.
    pub dead: bool,
    /// Process ID on the host; zero when not running.
    pub pid: i64,
    /// Of the last run.
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    /// When it last started.
    pub started_at: Time,
    /// When it last ended.
    pub finished_at: Time,
    /// Health, where there is a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Results of health checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    /// `none`, `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five.
    pub log: Option<Vec<HealthLog>>,
}

/// One run of a health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthLog {
    /// Begin.
    pub start: Time,
    /// End.
    pub end: Time,
    /// 0 healthy, 1 unhealthy.
    pub exit_code: i64,
    /// Start of the check's output.
    pub output: String,
}

/// Storage driver and its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GraphDriver {
    /// For example `LowerDir`, `UpperDir`.
    pub data: Option<StringMap>,
    /// `overlay2`.
    pub name: String,
}

/// Networks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// ID of the network namespace.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Its path.
    pub sandbox_key: String,
    /// Exposed and published ports.
    pub ports: PortMap,
    /// Endpoints by network name.
    pub networks: BTreeMap<String, EndpointSettings>,
}
