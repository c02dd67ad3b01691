//! From a request and an image to what a container is: merged, checked, settled.

pub mod data_root;
pub mod idmap;
mod image;
pub mod kernel;
mod long_mount;
pub mod mac;
pub mod merge;
pub mod mounts;
pub mod ports;
pub mod security;
pub mod storage;
mod sysctls;
pub mod validate;

use std::path::Path;

use berth_api::container::{Config, CreateRequest, HostConfig};
use berth_api::descriptor::Descriptor;
use berth_api::image::ImageConfig;
use berth_api::network::EndpointSettings;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::network::attachment::Attachment;
use crate::{Error, LogDefaults, logging, name, op};
use mounts::{MountPlan, MountSource};

pub use image::image_defaults;

/// There where files have SELinux labels.
const LABELS: &str = "/sys/fs/selinux/enforce";

/// What a container is, from its creation to its removal. Its name and state are kept beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// The ID.
    pub id: String,
    /// When it was created.
    pub created: Timestamp,
    /// ID of the image, `sha256:…`.
    pub image: String,
    /// The manifest of the image, if it had one.
    #[serde(default)]
    pub image_manifest: Option<Descriptor>,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What runs, with the image's part.
    pub config: Config,
    /// What the host gives it, with defaults filled in.
    pub host: HostConfig,
    /// Its network.
    pub network: NetworkPlan,
    /// The networks it was created with; empty if its plan says it all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Its mounts, parents first.
    pub mounts: Vec<MountPlan>,
}

impl Definition {
    /// Whether it was made of an image, or has it mounted.
    pub fn has_image(&self, image: &str) -> bool {
        let is_it = |plan: &MountPlan| matches!(&plan.source, MountSource::Image { id, .. } if id == image);
        self.image == image || self.mounts.iter().any(is_it)
    }

    /// The networks it was created with.
    pub fn attachments(&self) -> Vec<Attachment> {
        if !self.attachments.is_empty() {
            return self.attachments.clone();
        }
        let name = match &self.network {
            NetworkPlan::Bridge => "bridge",
            NetworkPlan::Host => "host",
            NetworkPlan::None => "none",
            NetworkPlan::Named(name) => name,
            NetworkPlan::Container(_) => return Vec::new(),
        };
        vec![Attachment::new(name, "", EndpointSettings::default())]
    }
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkPlan {
    /// The default bridge.
    Bridge,
    /// The host's own namespace.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// A network that a user made, by what the user called it; perhaps others beside.
    Named(String),
    /// Another container's namespace, by what the user called it.
    Container(String),
}

impl NetworkPlan {
    fn parse(mode: &str) -> Result<NetworkPlan, Error> {
        match mode {
            "" | "default" | "bridge" => Ok(NetworkPlan::Bridge),
            "host" => Ok(NetworkPlan::Host),
            "none" => Ok(NetworkPlan::None),
            "container" | "container:" => Err(Error::InvalidParameter(
                "invalid network mode: invalid container format container:<name|id>".into(),
            )),
            other => match other.strip_prefix("container:") {
                Some(name) => Ok(NetworkPlan::Container(name.to_owned())),
                // As in Docker, it may be made before the first start.
                None => Ok(NetworkPlan::Named(other.to_owned())),
            },
        }
    }

    /// Whether the container may have endpoints of its own.
    pub fn has_endpoints(&self) -> bool {
        !matches!(self, NetworkPlan::Host | NetworkPlan::Container(_))
    }
}

impl op::CreateContainer {
    /// Takes a request apart. `name` is the query parameter; a leading slash is allowed.
    pub fn parse(name: Option<&str>, platform: Option<&str>, request: CreateRequest) -> Result<Self, Error> {
        let given = |text: Option<&str>| text.filter(|t| !t.is_empty()).map(str::to_owned);
        let name = given(name).map(|n| name::parse(&n)).transpose()?;
        if request.config.image.is_empty() {
            return Err(Error::InvalidParameter("config.Image cannot be empty".into()));
        }
        let endpoints = request.networking_config.and_then(|n| n.endpoints_config).unwrap_or_default();
        let mut host_config = request.host_config.unwrap_or_default();
        if matches!(host_config.network_mode.as_str(), "" | "default")
            && let Some(only) = endpoints.keys().next()
        {
            host_config.network_mode.clone_from(only);
        }
        let plan = NetworkPlan::parse(&host_config.network_mode)?;
        let mut config = request.config;
        mac::settle(&mut config, &endpoints, &host_config.network_mode, &plan)?;
        let endpoints = endpoints.into_iter().map(|(name, settings)| (name, settings.unwrap_or_default()));
        let endpoints = endpoints.collect();
        Ok(Self {
            name,
            platform: given(platform),
            config,
            host_config,
            endpoints,
            read_only_top: false,
            lent: Vec::new(),
        })
    }
}

/// Settles a request for an image; also returns warnings. `cpus` is the number of the host's processors.
pub fn define(
    request: op::CreateContainer,
    image_id: String,
    image: &ImageConfig,
    cpus: usize,
    log: &LogDefaults,
) -> Result<(Definition, Vec<String>), Error> {
    let op::CreateContainer { mut config, host_config: mut host, read_only_top, lent, .. } = request;
    merge::merge(&mut config, image)?;
    let random = |source| Error::Io { operation: "read random bytes".into(), source };
    let id = name::new_id().map_err(random)?;
    let mut warnings = validate::validate(&mut config, &mut host, cpus)?;
    logging::settle(&mut host.log_config, log)?;
    let network = match NetworkPlan::parse(&host.network_mode)? {
        NetworkPlan::Bridge if config.network_disabled => NetworkPlan::None,
        network => network,
    };
    fill_defaults(&id, &mut config, &mut host, &network);
    let mut mounts = mounts::plan(&config, &host, name::new_id)?;
    warnings.extend(mounts::label_warning(&host, || Path::new(LABELS).exists()));
    for plan in mounts.iter_mut().filter(|plan| plan.read_only) {
        plan.read_only_top |= read_only_top && matches!(plan.source, MountSource::Bind { .. });
    }
    crate::build::lent::add(&mut mounts, lent);
    let (path, args) = merge::program(&config);
    let created = Timestamp::now();
    let definition = Definition {
        id,
        created,
        image: image_id,
        image_manifest: None,
        path,
        args,
        config,
        host,
        network,
        attachments: Vec::new(),
        mounts,
    };
    Ok((definition, warnings))
}

/// Docker's defaults, as `inspect` shows them.
fn fill_defaults(id: &str, config: &mut Config, host: &mut HostConfig, network: &NetworkPlan) {
    if config.hostname.is_empty() {
        if *network == NetworkPlan::Host || host.uts_mode == "host" {
            let names = rustix::system::uname();
            config.hostname = names.nodename().to_string_lossy().into_owned();
        } else if !matches!(network, NetworkPlan::Container(_)) {
            config.hostname = id[..12].to_owned();
        }
    }
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".into();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".into();
    }
    if host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = crate::defaults::cgroup_namespace().into();
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".into();
    }
    if host.runtime.is_empty() {
        host.runtime = "berth".into();
    }
    if !host.privileged {
        let unconfined = host.security_opt.iter().flatten().any(|option| option == "systempaths=unconfined");
        let defaults = |paths: fn() -> Vec<String>| if unconfined { Vec::new() } else { paths() };
        host.masked_paths.get_or_insert_with(|| defaults(berth_runtime::defaults::masked_paths));
        host.readonly_paths.get_or_insert_with(|| defaults(berth_runtime::defaults::readonly_paths));
    }
    config.labels.get_or_insert_default();
    config.env.get_or_insert_default();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container of an image with a command, as `run` with no options makes it.
    pub(crate) fn definition() -> Definition {
        define_with(|_| ()).unwrap().0
    }

    fn define_with(
        change: impl FnOnce(&mut op::CreateContainer),
    ) -> Result<(Definition, Vec<String>), Error> {
        let request = CreateRequest {
            config: Config { image: "busybox".into(), ..Default::default() },
            host_config: None,
            networking_config: None,
        };
        let mut request = op::CreateContainer::parse(Some("/web"), None, request).unwrap();
        change(&mut request);
        let image = ImageConfig { cmd: Some(vec!["sh".into(), "-c".into()]), ..Default::default() };
        define(request, "sha256:00".into(), &image, 2, &LogDefaults::default())
    }

    #[test]
    fn defaults_are_filled_in() {
        let one = definition();
        assert_eq!((one.path.as_str(), one.args.as_slice()), ("sh", ["-c".to_owned()].as_slice()));
        assert_eq!(one.config.hostname, one.id[..12]);
        assert_eq!(one.network, NetworkPlan::Bridge);
        assert_eq!((one.host.network_mode.as_str(), one.host.shm_size), ("bridge", 64 << 20));
        assert!(!one.host.masked_paths.unwrap().is_empty());
    }

    #[test]
    fn networks_are_a_closed_set() {
        for (mode, plan) in [
            ("", NetworkPlan::Bridge),
            ("default", NetworkPlan::Bridge),
            ("host", NetworkPlan::Host),
            ("none", NetworkPlan::None),
            ("container:x", NetworkPlan::Container("x".into())),
        ] {
            assert_eq!(NetworkPlan::parse(mode).unwrap(), plan);
        }
        assert_eq!(NetworkPlan::parse("mine").unwrap(), NetworkPlan::Named("mine".into()));
        for mode in ["container", "container:"] {
            let message = NetworkPlan::parse(mode).unwrap_err().to_string();
            assert!(message.ends_with("invalid container format container:<name|id>"), "{message}");
        }
    }

    #[test]
    fn a_definition_survives_its_record() {
        let one = definition();
        let back: Definition = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(back.config, one.config);
        assert_eq!(back.host, one.host);
        assert_eq!((back.id, back.mounts, back.network), (one.id, one.mounts, one.network));
    }

    #[test]
    fn requests_without_an_image_or_with_a_bad_name_are_refused() {
        let error = op::CreateContainer::parse(None, None, CreateRequest::default()).unwrap_err();
        assert_eq!(error.to_string(), "config.Image cannot be empty");
        let request = CreateRequest {
            config: Config { image: "x".into(), ..Default::default() },
            ..CreateRequest::default()
        };
        assert!(matches!(op::CreateContainer::parse(Some("a b"), None, request), Err(Error::InvalidName(_))));
    }

    #[test]
    fn the_hosts_name_is_shown_with_its_network() {
        let (one, _) = define_with(|r| r.host_config.network_mode = "host".into()).unwrap();
        assert_eq!(one.config.hostname, rustix::system::uname().nodename().to_string_lossy());
    }
}
