//! What the engine says about itself and what happens in it.

mod host;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_api::system::{
    self, AddressPool, Component, DiscoveredDevice, Firewall, IndexInfo, Platform, Plugins, RegistryConfig,
    Runtime, Swarm,
};
use berth_api::version::{ApiVersion, Build};
use berth_api::{StringMap, container::Status};
use jiff::Timestamp;

use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::EventStream;
use crate::settings::HUB;
use crate::{AddedRuntime, Engine, Error, RegistrySettings, Settings, logging, op, system as names};
use host::Limits;
pub(crate) use host::{cgroup_problem, memory_bytes};

/// The version of all of Berth.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Docker's default registry, as its clients know it.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";
/// Networks whose registries never need TLS.
const LOOPBACK: [&str; 2] = ["::1/128", "127.0.0.0/8"];

impl Engine {
    /// What the engine says about itself and its host.
    pub async fn info(&self) -> Result<system::Info, Error> {
        let parts = Arc::clone(&self.parts);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut info = blocking(move || info(&parts)).await?;
        // Each container has a task that owns it, and the net process one that minds it, which lasts. Docker has
        // none of either.
        let idle = info.containers_stopped + i64::from(self.parts.net_watched.load(Ordering::Relaxed));
        info.ngoroutines = i64::try_from(tasks).unwrap_or(i64::MAX).saturating_sub(idle);
        Ok(info)
    }

    /// Versions of the engine and its API.
    pub fn version(&self) -> system::Version {
        version(self.oldest_api(), self.parts.settings.build)
    }

    /// How many events were told since the engine was opened.
    pub fn events_told(&self) -> u64 {
        self.parts.events.told()
    }

    /// Events from now on, or from `since`.
    pub fn events(&self, op: op::Events) -> Result<EventStream, Error> {
        self.parts.events.subscribe(op)
    }
}

fn version(oldest: ApiVersion, build: Build) -> system::Version {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut version = system::Version {
        platform: Platform { name: "Berth".into() },
        components: Vec::new(),
        version: VERSION.into(),
        api_version: ApiVersion::NEWEST.to_string(),
        min_api_version: oldest.to_string(),
        git_commit: build.commit.into(),
        go_version: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")).into(),
        os: "linux".into(),
        arch: names::architecture().into(),
        kernel_version: kernel,
        experimental: false,
        build_time: build.time.into(),
    };
    let details = [
        ("ApiVersion", version.api_version.clone()),
        ("Arch", version.arch.clone()),
        ("BuildTime", version.build_time.clone()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", version.git_commit.clone()),
        ("GoVersion", version.go_version.clone()),
        ("KernelVersion", version.kernel_version.clone()),
        ("MinAPIVersion", version.min_api_version.clone()),
        ("Os", version.os.clone()),
    ];
    let details: StringMap = details.map(|(key, value)| (key.to_owned(), value)).into();
    version.components =
        vec![Component { name: "Engine".into(), version: VERSION.into(), details: Some(details) }];
    version
}

fn discovered_devices(directories: &[PathBuf]) -> Option<Vec<DiscoveredDevice>> {
    let devices = crate::cdi::Devices::read(directories);
    let found: Vec<_> =
        devices.names().map(|name| DiscoveredDevice { source: "cdi".into(), id: name.to_owned() }).collect();
    (!found.is_empty()).then_some(found)
}

fn info(parts: &Parts) -> Result<system::Info, Error> {
    let settings = &*parts.current.get();
    let limits = Limits::current()?;
    let proxies = settings.registry.proxies.masked();
    let kernel = rustix::system::uname();
    let (operating_system, os_version) = host::distribution();
    let mut info = system::Info {
        id: parts.installation.clone(),
        images: i64::try_from(parts.storage.images().list()?.len()).unwrap_or(i64::MAX),
        driver: parts.storage.driver().name().into(),
        driver_status: host::storage_status(parts.storage.driver(), &settings.data_root),
        plugins: plugins(parts, &settings.authorization_plugins),
        ipv4_forwarding: host::forwards_ipv4(),
        debug: settings.debug,
        nfd: host::open_descriptors(),
        system_time: Timestamp::now().to_string(),
        logging_driver: settings.log.driver.clone(),
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: limits.cgroup_version().into(),
        nevents_listener: i64::try_from(parts.events.listeners()).unwrap_or(i64::MAX),
        kernel_version: kernel.release().to_string_lossy().into_owned(),
        operating_system,
        os_version,
        os_type: "linux".into(),
        architecture: kernel.machine().to_string_lossy().into_owned(),
        index_server_address: INDEX_SERVER.into(),
        registry_config: Some(registries(&settings.registry)),
        ncpu: i64::try_from(parts.cpus).unwrap_or(i64::MAX),
        mem_total: host::memory_bytes(),
        docker_root_dir: settings.data_root.display().to_string(),
        name: kernel.nodename().to_string_lossy().into_owned(),
        cdi_spec_dirs: settings.cdi_dirs.iter().map(|path| path.display().to_string()).collect(),
        discovered_devices: discovered_devices(&settings.cdi_dirs),
        labels: settings.labels.clone(),
        server_version: VERSION.into(),
        runtimes: runtimes(settings),
        default_runtime: settings.defaults.runtime.clone(),
        swarm: Swarm::default(),
        http_proxy: proxies.http,
        https_proxy: proxies.https,
        no_proxy: proxies.none,
        live_restore_enabled: settings.live_restore,
        init_binary: "docker-init".into(),
        security_options: host::security_options(
            &settings.defaults,
            parts.apparmor.is_present(),
            parts.settings.remap.is_some(),
        ),
        firewall_backend: Some(firewall(parts)),
        default_address_pools: pools(&settings.networks.pools),
        ..system::Info::default()
    };
    limits.describe(&mut info);
    let storage = parts.storage.overlay_problem().map(|problem| {
        let root = settings.data_root.display();
        let why = match parts.storage.owners() {
            Some(_) => format!("userns-remap has no idmapped mounts in {root}"),
            None => format!("overlayfs cannot work in {root} ({problem})"),
        };
        format!("WARNING: {why}: each container is a whole copy of its image")
    });
    let cgroups = host::cgroup_problem().map(|problem| format!("WARNING: {problem}"));
    let host = info.warnings.take().unwrap_or_default();
    let warnings = settings.warnings.iter().cloned().chain(storage).chain(cgroups);
    let warnings: Vec<String> = warnings.chain(parts.networks.firewall().warnings()).chain(host).collect();
    info.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    count(parts, &mut info);
    Ok(info)
}

/// The pools that somebody chose.
fn pools(chosen: &[crate::AddressPool]) -> Option<Vec<AddressPool>> {
    let pools = chosen.iter().map(|pool| AddressPool { base: pool.base.to_string(), size: pool.size.into() });
    (!chosen.is_empty()).then(|| pools.collect())
}

/// Which firewall is used, and since when its rules stand if others had taken them away.
fn firewall(parts: &Parts) -> Firewall {
    let firewall = parts.networks.firewall();
    let restored = firewall.restored().and_then(|time| jiff::Timestamp::try_from(time).ok());
    let info = restored.map(|time| {
        let seconds = jiff::Timestamp::from_second(time.as_second()).unwrap_or(time);
        vec![["ReloadedAt".to_owned(), seconds.to_string()]]
    });
    Firewall { driver: firewall.backend().to_string(), info }
}

fn count(parts: &Parts, info: &mut system::Info) {
    for container in parts.containers.all() {
        info.containers += 1;
        match container.state().status() {
            Status::Running | Status::Restarting => info.containers_running += 1,
            Status::Paused => info.containers_paused += 1,
            _ => info.containers_stopped += 1,
        }
    }
}

fn plugins(parts: &Parts, authorization: &[String]) -> Plugins {
    let list = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let mut network = list(&["bridge", "host", "ipvlan", "macvlan", "null"]);
    network.extend(parts.networks.plugins.names());
    Plugins {
        volume: parts.volumes.drivers.names(),
        network,
        authorization: (!authorization.is_empty()).then(|| authorization.to_vec()),
        log: list(&logging::DRIVERS),
    }
}

fn runtimes(settings: &Settings) -> BTreeMap<String, Runtime> {
    // Absent only where /proc is.
    let program = std::env::current_exe().map_or_else(|_| "berth".into(), |path| path.display().to_string());
    let describe = |added: Option<&AddedRuntime>| match added {
        None => Runtime {
            path: program.clone(),
            runtime_args: Some(vec!["runtime".into()]),
            ..Default::default()
        },
        Some(added) => Runtime {
            path: added.path.clone(),
            runtime_type: added.kind.clone(),
            runtime_args: Some(added.arguments.clone()).filter(|arguments| !arguments.is_empty()),
            ..Default::default()
        },
    };
    settings.runtimes.iter().map(|(name, added)| (name.to_owned(), describe(added))).collect()
}

fn registries(settings: &RegistrySettings) -> RegistryConfig {
    let official = IndexInfo {
        name: "docker.io".into(),
        mirrors: settings.mirrors_of(HUB),
        secure: true,
        official: true,
    };
    let mut config = RegistryConfig {
        insecure_registry_cidrs: LOOPBACK.map(str::to_owned).into(),
        index_configs: BTreeMap::from([("docker.io".to_owned(), official)]),
        mirrors: settings.mirrors_of(HUB),
    };
    for insecure in &settings.insecure {
        if insecure.parse::<ipnet::IpNet>().is_ok() {
            config.insecure_registry_cidrs.push(insecure.clone());
        } else {
            let index = IndexInfo { name: insecure.clone(), ..IndexInfo::default() };
            config.index_configs.insert(insecure.clone(), index);
        }
    }
    for mirror in settings.mirrors.iter().filter(|mirror| mirror.of != HUB) {
        let index = IndexInfo { name: mirror.of.clone(), secure: true, ..IndexInfo::default() };
        let index = config.index_configs.entry(mirror.of.clone()).or_insert(index);
        index.mirrors.push(mirror.url.clone());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries_are_networks_or_hosts() {
        let settings = RegistrySettings {
            insecure: vec!["10.0.0.0/8".into(), "registry.local:5000".into()],
            ..Default::default()
        };
        let config = registries(&settings);
        assert_eq!(config.insecure_registry_cidrs, ["::1/128", "127.0.0.0/8", "10.0.0.0/8"]);
        assert!(!config.index_configs["registry.local:5000"].secure);
    }

    #[test]
    fn the_version_tells_clients_what_is_spoken() {
        let version = version(ApiVersion::new(1, 30), Build { commit: "c0ffee", ..Build::UNKNOWN });
        assert_eq!((version.api_version.as_str(), version.min_api_version.as_str()), ("1.55", "1.30"));
        assert_eq!(version.components[0].details.as_ref().unwrap()["ApiVersion"], "1.55");
        assert_eq!((version.git_commit.as_str(), version.build_time.as_str()), ("c0ffee", "unknown"));
    }
}
