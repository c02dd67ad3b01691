//! What depends on the host: resources, binds, networks, privileges.

use serde::{Deserialize, Serialize};

use super::mount::Mount;
use crate::StringMap;
use crate::json::string_or_list;
use crate::network::PortMap;

/// The part of a container's configuration that belongs to this host.
///
/// `None` in a list or map is `null` on the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// Bind mounts and volumes, `source:target[:options]`.
    pub binds: Option<Vec<String>>,
    /// File the client wrote the ID to.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Where output goes.
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:<id>` or a network's name.
    pub network_mode: String,
    /// Published ports.
    pub port_bindings: Option<PortMap>,
    /// When to start again after an exit.
    pub restart_policy: RestartPolicy,
    /// Remove the container when it exits.
    pub auto_remove: bool,
    /// Driver of volumes named in `binds`.
    pub volume_driver: String,
    /// Containers whose volumes are used here too.
    pub volumes_from: Option<Vec<String>>,
    /// Terminal size at start: rows, columns.
    pub console_size: [u32; 2],
    /// Annotations handed to the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<StringMap>,
    /// Capabilities beyond the default.
    #[serde(deserialize_with = "string_or_list")]
    pub cap_add: Option<Vec<String>>,
    /// Capabilities taken away.
    #[serde(deserialize_with = "string_or_list")]
    pub cap_drop: Option<Vec<String>>,
    /// All capabilities, in version 1.40 alone; refused there.
    #[serde(skip_serializing)]
    pub capabilities: Option<Vec<String>>,
    /// `host`, `private`, or empty for the daemon's default.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    pub dns_search: Option<Vec<String>>,
    /// Lines for the hosts file, `name:address`.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups.
    pub group_add: Option<Vec<String>>,
    /// `none`, `private`, `shareable`, `host`, `container:<id>`.
    pub ipc_mode: String,
    /// Cgroup to join, `container:<id>`.
    pub cgroup: String,
    /// Legacy links, `name:alias`.
    pub links: Option<Vec<String>>,
    /// Preference of the out-of-memory killer, −1000 to 1000.
    pub oom_score_adj: i64,
    /// Empty, `host` or `container:<id>`.
    pub pid_mode: String,
    /// All capabilities and devices, no masks.
    pub privileged: bool,
    /// Publish every exposed port.
    pub publish_all_ports: bool,
    /// Root file system read-only.
    pub readonly_rootfs: bool,
    /// Security options, `name=value`.
    pub security_opt: Option<Vec<String>>,
    /// Storage driver options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_opt: Option<StringMap>,
    /// Temporary file systems: path to mount options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<StringMap>,
    /// Empty or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty or `host`.
    pub userns_mode: String,
    /// Size of `/dev/shm` in bytes; zero: 64 MiB.
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<StringMap>,
    /// OCI runtime by name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Windows only.
    pub isolation: String,

    /// Relative share of CPU time.
    pub cpu_shares: i64,
    /// Memory limit in bytes; zero: none.
    pub memory: i64,
    /// CPU limit in billionths of a CPU.
    pub nano_cpus: i64,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Block I/O weight, 10 to 1000; zero: unset.
    pub blkio_weight: u16,
    /// Block I/O weight per device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Bytes read per second, per device.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Bytes written per second, per device.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Reads per second, per device.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Writes per second, per device.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Length of a CFS period in microseconds.
    pub cpu_period: i64,
    /// CPU microseconds per period.
    pub cpu_quota: i64,
    /// Length of a real-time period in microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time microseconds per period.
    pub cpu_realtime_runtime: i64,
    /// CPUs that may be used, `0-2,7`.
    pub cpuset_cpus: String,
    /// Memory nodes that may be used.
    pub cpuset_mems: String,
    /// Device nodes to make.
    pub devices: Option<Vec<DeviceMapping>>,
    /// Rules for the device cgroup, `c 13:* rwm`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Devices asked for from drivers (GPUs, CDI).
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Kernel memory limit, as clients up to API 1.41 give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_memory: Option<i64>,
    /// Soft memory limit in bytes.
    pub memory_reservation: i64,
    /// Memory plus swap in bytes; −1: unlimited swap.
    pub memory_swap: i64,
    /// Swappiness, 0 to 100; none: the host's.
    pub memory_swappiness: Option<i64>,
    /// Do not let the kernel kill when memory runs out.
    pub oom_kill_disable: Option<bool>,
    /// Largest number of processes; none, zero or −1: unlimited.
    pub pids_limit: Option<i64>,
    /// Resource limits.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Windows only.
    pub cpu_count: i64,
    /// Windows only.
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,

    /// Mounts in the long form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Paths to hide; none: the default set, empty: nothing.
    pub masked_paths: Option<Vec<String>>,
    /// Paths to make read-only; none: the default set, empty: nothing.
    pub readonly_paths: Option<Vec<String>>,
    /// Run a tiny init as process 1; none: the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// The log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// Driver; empty: the daemon's default.
    #[serde(rename = "Type")]
    pub driver: String,
    /// Options.
    pub config: Option<StringMap>,
}

/// When a container is started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`: attempts; zero: no limit.
    pub maximum_retry_count: i64,
}

/// A limit per block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// The device's path on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A weight per block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    /// The device's path on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A device node of the host made in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// Any of `r`, `w`, `m`.
    pub cgroup_permissions: String,
}

/// Devices asked for from a driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceRequest {
    /// Driver's name.
    pub driver: String,
    /// How many; −1: all.
    pub count: i64,
    /// Which.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// Capabilities: an OR of ANDs.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Driver options.
    pub options: Option<StringMap>,
}

/// A resource limit, as `setrlimit(2)` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// Hard limit; −1: unlimited.
    pub hard: i64,
    /// Soft limit; −1: unlimited.
    pub soft: i64,
}
