//! Containers: what a client asks for, and what it is shown.

mod config;
mod host;
mod inspect;
mod lifecycle;
mod mount;
mod path_stat;
mod stats;
mod summary;

pub use config::{Config, HealthConfig};
pub use host::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
pub use inspect::{GraphDriver, Health, HealthLog, Inspect, NetworkSettings, State, Status};
pub use lifecycle::{
    Change, CreateRequest, CreateResponse, PortsUpdate, PruneResponse, TopResponse, UpdateRequest,
    UpdateResponse, WaitError, WaitResponse,
};
pub use mount::{BindOptions, DriverConfig, ImageOptions, Mount, MountPoint, TmpfsOptions, VolumeOptions};
pub use path_stat::PathStat;
pub use stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, StorageStats,
    ThrottlingData,
};
pub use summary::{Summary, SummaryHealth, SummaryHost, SummaryNetworks};
