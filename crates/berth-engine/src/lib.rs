//! Containers and their life: create, start, exec, attach, events, adoption.
//!
//! The engine composes storage, images, networks, shims and the runtime. One task owns each container; what
//! clients ask for arrives as the closed set of operations of [`op`], and what they get are the wire types of
//! `berth-api`. No byte of a container's output passes through here unless a client reads its log.
#![forbid(unsafe_code)]

mod apparmor;
mod blocking;
mod build;
mod cdi;
mod container;
mod content;
mod create;
mod defaults;
mod descriptors;
mod engine;
mod error;
mod event;
mod images;
mod information;
mod inspect;
mod installation;
mod life;
mod list;
pub mod logging;
mod name;
mod network;
mod networks;
pub mod op;
mod paced;
mod pieces;
pub mod plugin;
mod reload;
mod remap;
mod runtimes;
mod settings;
mod signal;
mod spec;
mod system;
mod usage;
mod volumes;

pub use berth_network::firewall::{Backend as FirewallBackend, FirewallOptions, InvalidMark};
pub use berth_network::subnets::AddressPool;
pub use berth_registry::{Mirror, Proxies, without_credentials};
pub use berth_runtime::cgroup::RealTime;
pub use berth_runtime::ids::{Mappings, Range as IdRange};
pub use berth_session::Offer;
pub use build::{BuildRequest, Keys, LentMount, SharedKeys};
pub use defaults::{ContainerDefaults, SeccompDefault, has_unified_cgroups, real_time_problem};
pub use engine::Engine;
pub use error::{Error, ErrorKind};
pub use event::EventStream;
pub use images::Caller;
pub use life::attach::PendingAttach;
pub use life::exec::PendingExec;
pub use life::logs::LogStream;
pub use life::stats::StatsStream;
pub use life::wait::Waiting;
pub use pieces::ArchiveStream;
pub use remap::Remap;
pub use runtimes::{AddedRuntime, Runtimes};
pub use settings::{
    BridgeSettings, BuildCacheSettings, FamilySettings, LogDefaults, NetworkSettings, Product,
    RegistrySettings, Settings,
};
