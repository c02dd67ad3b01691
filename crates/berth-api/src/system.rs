//! The engine as a whole.

mod info;
mod usage;

use serde::{Deserialize, Serialize};

use crate::StringMap;

pub use info::{
    AddressPool, Commit, Containerd, ContainerdNamespaces, DiscoveredDevice, Firewall, IndexInfo, Info,
    Plugins, RegistryConfig, Runtime, Swarm,
};
pub use usage::{CachePruneResponse, CacheRecord, DiskUsage, LegacyDiskUsage, Usage};

/// `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Version {
    /// The product.
    pub platform: Platform,
    /// Its parts.
    pub components: Vec<Component>,
    /// Version of the engine.
    pub version: String,
    /// Newest API version.
    pub api_version: String,
    /// Oldest API version.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Source revision.
    pub git_commit: String,
    /// Docker reports its Go version here; Berth the Rust compiler's.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// CPU architecture in Go's words.
    pub arch: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Experimental features are on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    /// When the binary was built.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_time: String,
}

/// The product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Platform {
    /// Its name.
    pub name: String,
}

/// A part of the product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    /// `Engine`, …
    pub name: String,
    /// Its version.
    pub version: String,
    /// More about it.
    pub details: Option<StringMap>,
}

/// What `/_ping` says, all of it in headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// `Api-Version`: the newest the server speaks.
    pub api_version: String,
    /// `Ostype`.
    pub os_type: String,
    /// `Docker-Experimental`.
    pub experimental: bool,
    /// `Builder-Version`: `1` classic, `2` BuildKit.
    pub builder_version: String,
    /// `Berth-Client-Session`: whether builds take their context from the client's session.
    pub client_session: bool,
    /// `Berth-Build`: what builds take beyond Docker's API ([`crate::build::EXTENSIONS`]).
    pub build_extensions: String,
    /// `Swarm`.
    pub swarm: String,
}
