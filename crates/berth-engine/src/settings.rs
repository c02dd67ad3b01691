//! What the engine is told when it is opened.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use berth_api::version::{ApiVersion, Build};
use berth_image::PullLimits;
use berth_network::firewall::FirewallOptions;
use berth_network::subnets::AddressPool;
use berth_network::{Error as NetworkError, Protocol};
use berth_registry::{Mirror, Proxies, RegistryConfig};
use berth_runtime::cgroup::RealTime;
use ipnet::IpNet;

use crate::information::VERSION;
use crate::op::{CacheBounds, CachePrune};
use crate::{ContainerDefaults, Remap, Runtimes};

/// Everything that `berth daemon` decides for its engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where images and containers are kept; `/var/lib/berth`.
    pub data_root: PathBuf,
    /// Where what runs is kept, normally on a tmpfs; `/run/berth`.
    pub exec_root: PathBuf,
    /// What to execute to reach a hidden face, whose name (`__spawner`, `__net`) is appended: `/proc/self/exe`.
    pub program: Vec<OsString>,
    /// Whether containers go on when the daemon ends gracefully: true for `berth daemon`, false as `dockerd`.
    pub live_restore: bool,
    /// How long a graceful end waits for containers to stop.
    pub shutdown_timeout: Duration,
    /// The default bridge.
    pub bridge: BridgeSettings,
    /// All networks.
    pub networks: NetworkSettings,
    /// What filters and translates packets.
    pub firewall: FirewallOptions,
    /// How containers are logged.
    pub log: LogDefaults,
    /// How registries are reached.
    pub registry: RegistrySettings,
    /// Bytes of the data root's file system that unpacking leaves free; `None` for a twentieth, 256 MiB at most.
    pub keep_free_bytes: Option<u64>,
    /// Bytes that compressed layers may take; `None` for a tenth of the file system.
    pub blob_cache_bytes: Option<u64>,
    /// How the cache of builds is kept small.
    pub build_cache: BuildCacheSettings,
    /// Bytes that a container may write that has no limit of its own; `None` for any number.
    pub storage_limit: Option<u64>,
    /// How writable layers are kept, by Docker's name; `None` is overlayfs wherever it works.
    pub storage_driver: Option<String>,
    /// The users and groups of containers, if those are in user namespaces.
    pub remap: Option<Remap>,
    /// Parent of containers' cgroups below each hierarchy: `/berth`, and `/docker` under Docker's name.
    pub cgroup_parent: String,
    /// CPU time for real-time threads that the parents of containers' cgroups are given, of which a container may get a part.
    pub real_time: RealTime,
    /// Where files of the Container Device Interface lie; the last directory outranks the others.
    pub cdi_dirs: Vec<PathBuf>,
    /// Labels of the engine, `key=value`, shown by `info`.
    pub labels: Vec<String>,
    /// Whether debug output is on, shown by `info`.
    pub debug: bool,
    /// What the program was made of, shown by `version`.
    pub build: Build,
    /// The oldest version of the API that clients may speak.
    pub oldest_api: ApiVersion,
    /// Where the daemon itself answers: no container can have these ports.
    pub own_addresses: Vec<SocketAddr>,
    /// What else `info` warns of.
    pub warnings: Vec<String>,
    /// Names of the plugins that every request is shown to, shown by `info`.
    pub authorization_plugins: Vec<String>,
    /// The runtimes that containers may ask for.
    pub runtimes: Runtimes,
    /// What containers get that do not say otherwise.
    pub defaults: ContainerDefaults,
}

impl Settings {
    /// Berth's defaults for a data root and an exec root.
    pub fn new(data_root: impl Into<PathBuf>, exec_root: impl Into<PathBuf>) -> Settings {
        Settings {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            program: vec!["/proc/self/exe".into()],
            live_restore: true,
            shutdown_timeout: Duration::from_secs(15),
            bridge: BridgeSettings::default(),
            networks: NetworkSettings::default(),
            firewall: FirewallOptions::default(),
            log: LogDefaults::default(),
            registry: RegistrySettings::default(),
            keep_free_bytes: None,
            blob_cache_bytes: None,
            build_cache: BuildCacheSettings::default(),
            storage_limit: None,
            storage_driver: None,
            remap: None,
            cgroup_parent: "/berth".into(),
            real_time: RealTime::default(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            labels: Vec::new(),
            debug: false,
            build: Build::UNKNOWN,
            oldest_api: ApiVersion::OLDEST,
            own_addresses: Vec::new(),
            warnings: Vec::new(),
            authorization_plugins: Vec::new(),
            runtimes: Runtimes::default(),
            defaults: ContainerDefaults::default(),
        }
    }
}

/// How the cache of builds is kept small without anyone's doing.
#[derive(Debug, Clone)]
pub struct BuildCacheSettings {
    /// Whether it is at all.
    pub bounded: bool,
    /// How much stays where there is no policy; all zero for parts of the file system.
    pub bounds: CacheBounds,
    /// What goes, one rule after the other.
    pub policy: Vec<CachePrune>,
}

impl Default for BuildCacheSettings {
    fn default() -> Self {
        Self { bounded: true, bounds: CacheBounds::default(), policy: Vec::new() }
    }
}

/// The network called `bridge`.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// Name of the link: `berth0`, and `docker0` under Docker's name.
    pub name: String,
    /// There is no such network.
    pub disabled: bool,
    /// An administrator made the link, who decides about its addresses: it is never made here, nor removed.
    pub foreign: bool,
    /// The link is made when the engine starts, not when a container first needs it.
    pub eager: bool,
    /// The administrator wants containers to outlive the engine: addresses of the link stay, whichever pools are chosen.
    pub lasting: bool,
    /// Whether containers have IPv6 addresses.
    pub ipv6: bool,
    /// What was chosen of IPv4.
    pub v4: FamilySettings,
    /// What was chosen of IPv6.
    pub v6: FamilySettings,
    /// Whether containers reach each other.
    pub icc: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether packets that leave the host get the host's address.
    pub masquerade: bool,
    /// Where ports published without an address listen.
    pub publish_address: IpAddr,
}

/// What was chosen of one family's addresses on the default bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilySettings {
    /// The bridge's address with the subnet's prefix length; `None` takes what the link has, or a free subnet.
    pub address: Option<IpNet>,
    /// What containers get addresses of.
    pub range: Option<IpNet>,
    /// The containers' next hop, if it is not the bridge.
    pub gateway: Option<IpAddr>,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        BridgeSettings {
            name: "berth0".into(),
            disabled: false,
            foreign: false,
            lasting: false,
            eager: false,
            ipv6: false,
            v4: FamilySettings::default(),
            v6: FamilySettings::default(),
            icc: true,
            mtu: 1500,
            masquerade: true,
            publish_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

/// What all networks have in common.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// Where subnets come from that nobody chose; Docker's pools for a family that has none here.
    pub pools: Vec<AddressPool>,
    /// Options of networks that do not give them themselves, by driver.
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether the host is made to forward packets.
    pub forward: bool,
    /// Whether a host that did not forward before forwards nothing but containers' packets.
    pub forward_drop: bool,
    /// Whether published ports are reached at containers' own addresses, too.
    pub direct_routing: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        NetworkSettings {
            pools: Vec::new(),
            options: BTreeMap::new(),
            forward: true,
            forward_drop: true,
            direct_routing: false,
        }
    }
}

/// How the output of containers is logged that do not say it themselves.
#[derive(Debug, Clone)]
pub struct LogDefaults {
    /// The driver.
    pub driver: String,
    /// Its options, which [`crate::logging::check`] has passed.
    pub options: crate::logging::Options,
}

impl Default for LogDefaults {
    fn default() -> Self {
        LogDefaults { driver: "local".into(), options: Default::default() }
    }
}

/// What the daemon calls itself to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// By its own name.
    Berth,
    /// By Docker's, with what its daemon tells of itself.
    Docker,
}

impl Product {
    fn agent(self) -> String {
        match self {
            Self::Berth => format!("berth/{VERSION}"),
            Self::Docker => {
                let kernel = rustix::system::uname();
                let kernel = kernel.release().to_string_lossy();
                format!("docker/{VERSION} kernel/{kernel} os/linux arch/{}", crate::system::architecture())
            }
        }
    }
}

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// What registries are told that this is: Docker to those that ask for Docker.
    pub product: Product,
    /// Hosts (`host[:port]`) or networks that may be reached without TLS or with any certificate.
    pub insecure: Vec<String>,
    /// What is asked before a registry itself; addresses end in a slash.
    pub mirrors: Vec<Mirror>,
    /// Proxies on the way to registries.
    pub proxies: Proxies,
    /// Layers of one image that are fetched at the same time.
    pub concurrent_downloads: usize,
    /// Layers that are sent at the same time.
    pub concurrent_uploads: usize,
    /// Attempts to fetch a layer.
    pub download_attempts: usize,
}

/// The registry whose mirrors need not say whose they are.
pub(crate) const HUB: &str = "docker.io";

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            product: Product::Berth,
            insecure: Vec::new(),
            mirrors: Vec::new(),
            proxies: Proxies::default(),
            concurrent_downloads: 3,
            concurrent_uploads: 5,
            download_attempts: 5,
        }
    }
}

impl RegistrySettings {
    /// The addresses of the mirrors of one registry.
    pub(crate) fn mirrors_of(&self, registry: &str) -> Vec<String> {
        let found = self.mirrors.iter().filter(|mirror| mirror.of == registry);
        found.map(|mirror| mirror.url.clone()).collect()
    }

    /// The mirrors as they are set: those of Docker Hub by their addresses alone.
    pub(crate) fn mirror_texts(&self) -> Vec<String> {
        let text = |mirror: &Mirror| match mirror.of.as_str() {
            HUB => mirror.url.clone(),
            registry => format!("{registry}={}", mirror.url),
        };
        self.mirrors.iter().map(text).collect()
    }

    pub(crate) fn client_config(&self) -> RegistryConfig {
        RegistryConfig {
            insecure: self.insecure.clone(),
            mirrors: self.mirrors.clone(),
            proxies: self.proxies.clone(),
            agent: self.product.agent(),
            ..RegistryConfig::default()
        }
    }

    pub(crate) fn limits(&self) -> PullLimits {
        PullLimits { parallel: self.concurrent_downloads, attempts: self.download_attempts }
    }
}

impl Settings {
    /// A refusal of a port that the daemon has itself, in the words for one that is allocated, as in Docker; any other as
    /// it is.
    pub(crate) fn told_of_own(&self, error: NetworkError) -> NetworkError {
        match error {
            NetworkError::PortRefused { protocol: Protocol::Tcp, address, .. } if self.is_own(address) => {
                NetworkError::PortInUse { address: address.ip(), port: address.port() }
            }
            other => other,
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.own_addresses.iter().any(|own| {
            let meets =
                own.ip().is_unspecified() || address.ip().is_unspecified() || own.ip() == address.ip();
            own.port() == address.port() && meets
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_tell_their_names_first() {
        assert_eq!(Product::Berth.agent(), format!("berth/{VERSION}"));
        let docker = Product::Docker.agent();
        assert!(
            docker.starts_with(&format!("docker/{VERSION} kernel/")) && docker.contains(" os/linux arch/"),
            "{docker}"
        );
    }
}
