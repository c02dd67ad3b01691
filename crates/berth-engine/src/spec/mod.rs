//! From what a container is to the OCI configuration that the runtime carries out.

mod devices;
pub mod files;
mod inject;
mod mounts;
pub mod process;
pub(crate) mod profile;
pub mod resources;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp,
    RootBuilder, Spec, SpecBuilder,
};

use berth_runtime::launch::{GROUPS_ANNOTATION, USER_ANNOTATION};

use crate::Error;
use crate::create::mounts::MountPlan;
use crate::create::security::{SeccompChoice, SecurityOptions};
use crate::create::{Definition, NetworkPlan};
use mounts::Shared;

/// Namespaces of other containers that are joined, as paths below `/proc`.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    /// The network namespace.
    pub network: Option<PathBuf>,
    /// The PID namespace.
    pub pid: Option<PathBuf>,
    /// The IPC namespace.
    pub ipc: Option<PathBuf>,
}

/// The composed configuration and the mounts whose sources are passed beside it.
pub struct Composed<'a> {
    /// For the runtime.
    pub spec: Spec,
    /// Index into the mounts, and what is to be mounted there.
    pub sources: Vec<(usize, &'a MountPlan)>,
    /// Index of the mount of shared memory that is another's or shared with others, whose source is passed too.
    pub shm: Option<usize>,
    /// Paths of the host that are mounted beside those.
    pub paths: Vec<inject::HostPath>,
}

/// The container's cgroup below each hierarchy.
pub fn cgroup_path(definition: &Definition, default_parent: &str) -> PathBuf {
    let parent = match definition.host.cgroup_parent.as_str() {
        "" => default_parent,
        parent => parent,
    };
    crate::create::mounts::clean(&format!("/{parent}/{}", definition.id))
}

/// The mounts of a container, as far as they follow from its definition alone.
pub fn planned_mounts(definition: &Definition) -> Result<mounts::Mounts<'_>, Error> {
    mounts::mounts(definition, Shared::default())
}

/// Composes the configuration of a container.
pub fn compose<'a>(
    definition: &'a Definition,
    cgroups_path: &Path,
    joined: &Joined,
) -> Result<Composed<'a>, Error> {
    let security = SecurityOptions::parse(&definition.host)?;
    let passed = matches!(definition.host.ipc_mode.as_str(), "host" | "shareable") || joined.ipc.is_some();
    let shared = Shared {
        shm: passed,
        no_shm: definition.host.ipc_mode == "none",
        writable_cgroups: security.writable_cgroups.unwrap_or(definition.host.privileged),
    };
    let mounts::Mounts { mounts, sources, shm } = mounts::mounts(definition, shared)?;
    let mut args = vec![definition.path.clone()];
    args.extend(definition.args.iter().cloned());
    let [rows, columns] = definition.host.console_size.map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let process = process::process(
        process::Wanted {
            args,
            env: definition.config.env.clone().unwrap_or_default(),
            working_dir: &definition.config.working_dir,
            tty: definition.config.tty,
            size: (rows > 0 && columns > 0).then_some((rows, columns)),
            privileged: definition.host.privileged,
        },
        &definition.config,
        &definition.host,
        &security,
    )?;
    let root = RootBuilder::default().path("rootfs").readonly(definition.host.readonly_rootfs);
    let mut builder = SpecBuilder::default()
        .version("1.2.0")
        .root(root.build().map_err(spec_error)?)
        .process(process)
        .mounts(mounts)
        .annotations(annotations(definition))
        .linux(linux(definition, cgroups_path, joined, &security)?);
    if definition.host.uts_mode != "host" && !definition.config.domainname.is_empty() {
        builder = builder.domainname(definition.config.domainname.clone());
    }
    let mut spec = builder.build().map_err(spec_error)?;
    // Set in any case: the library's default is a name, which would become the host's.
    let hostname = (definition.host.uts_mode != "host").then(|| definition.config.hostname.clone());
    spec.set_hostname(hostname);
    Ok(Composed { spec, sources, shm, paths: Vec::new() })
}

/// Adds what the container's devices by name need; `directories` hold the files that describe them. Blocks.
pub fn add_named_devices(
    composed: &mut Composed<'_>,
    definition: &Definition,
    directories: &[PathBuf],
) -> Result<(), Error> {
    let requests = definition.host.device_requests.as_deref().unwrap_or_default();
    inject::apply(composed, &crate::cdi::edits(requests, directories)?)
}

fn annotations(definition: &Definition) -> HashMap<String, String> {
    let mut found: HashMap<_, _> =
        definition.host.annotations.clone().unwrap_or_default().into_iter().collect();
    // What the user writes can never stand in for the engine's own.
    found.retain(|key, _| !key.starts_with("dev.berth."));
    // Root has its memberships too.
    let groups = definition.host.group_add.clone().unwrap_or_default();
    found.insert(USER_ANNOTATION.into(), definition.config.user.clone());
    found.insert(GROUPS_ANNOTATION.into(), groups.join(","));
    found
}

fn linux(
    definition: &Definition,
    cgroups_path: &Path,
    joined: &Joined,
    security: &SecurityOptions,
) -> Result<Linux, Error> {
    let host = &definition.host;
    let (nodes, rules) = devices::devices(host)?;
    let mut rules_with_defaults = Vec::new();
    if !host.privileged {
        rules_with_defaults.extend(berth_runtime::defaults::device_rules());
    }
    rules_with_defaults.extend(rules);
    let mut builder = LinuxBuilder::default()
        .namespaces(namespaces(definition, joined)?)
        .cgroups_path(cgroups_path)
        .resources(resources::resources(host, rules_with_defaults)?)
        .devices(nodes)
        .sysctl(sysctls(definition))
        .masked_paths(berth_runtime::defaults::with_masked_beside(
            host.masked_paths.clone().unwrap_or_default(),
        ))
        .readonly_paths(host.readonly_paths.clone().unwrap_or_default())
        .rootfs_propagation(rootfs_propagation(definition));
    if let Some(seccomp) = seccomp(definition, security)? {
        builder = builder.seccomp(seccomp);
    }
    builder.build().map_err(spec_error)
}

/// Mounts that are to propagate need a root that does.
fn rootfs_propagation(definition: &Definition) -> &'static str {
    let any = |kind: &str| definition.mounts.iter().any(|plan| plan.propagation.ends_with(kind));
    if any("shared") {
        "shared"
    } else if any("slave") {
        "rslave"
    } else {
        "rprivate"
    }
}

fn namespaces(definition: &Definition, joined: &Joined) -> Result<Vec<LinuxNamespace>, Error> {
    let host = &definition.host;
    let mut found = Vec::new();
    let mut add = |kind: LinuxNamespaceType, path: Option<&PathBuf>| -> Result<(), Error> {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        let builder = match path {
            Some(path) => builder.path(path.clone()),
            None => builder,
        };
        found.push(builder.build().map_err(spec_error)?);
        Ok(())
    };
    add(LinuxNamespaceType::Mount, None)?;
    if definition.network != NetworkPlan::Host {
        add(LinuxNamespaceType::Network, joined.network.as_ref())?;
    }
    if host.uts_mode != "host" {
        add(LinuxNamespaceType::Uts, None)?;
    }
    if host.pid_mode != "host" {
        add(LinuxNamespaceType::Pid, joined.pid.as_ref())?;
    }
    if host.ipc_mode != "host" {
        add(LinuxNamespaceType::Ipc, joined.ipc.as_ref())?;
    }
    if host.cgroupns_mode != "host" {
        add(LinuxNamespaceType::Cgroup, None)?;
    }
    Ok(found)
}

/// Docker's defaults for a network namespace of its own, then the user's.
fn sysctls(definition: &Definition) -> HashMap<String, String> {
    let mut found = HashMap::new();
    if !matches!(definition.network, NetworkPlan::Host | NetworkPlan::Container(_)) {
        found = berth_runtime::defaults::sysctls();
    }
    for (key, value) in definition.host.sysctls.iter().flatten() {
        found.insert(key.clone(), value.clone());
    }
    found
}

/// The system call filter of a container's processes; `None` for none.
pub fn seccomp(definition: &Definition, security: &SecurityOptions) -> Result<Option<LinuxSeccomp>, Error> {
    let capabilities = || process::capability_set(&definition.host, definition.host.privileged);
    Ok(match &security.seccomp {
        SeccompChoice::Profile(text) => {
            let names: Vec<String> = capabilities()?.iter().map(|c| format!("CAP_{c}")).collect();
            let kernel = rustix::system::uname();
            let host = profile::Host {
                architecture: crate::system::architecture(),
                kernel: &kernel.release().to_string_lossy(),
                capabilities: &names,
            };
            Some(profile::resolve(text, &host)?)
        }
        SeccompChoice::Default if !definition.host.privileged => {
            Some(berth_runtime::seccomp::default_profile(&capabilities()?))
        }
        _ => None,
    })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::InvalidParameter(text.into())
}

fn spec_error(error: OciSpecError) -> Error {
    invalid(format!("OCI configuration: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;

    fn compose_one(definition: &Definition) -> Spec {
        compose(definition, Path::new("/berth/x"), &Joined::default()).unwrap().spec
    }

    fn kinds(spec: &Spec) -> Vec<LinuxNamespaceType> {
        spec.linux().as_ref().unwrap().namespaces().iter().flatten().map(|n| n.typ()).collect()
    }

    #[test]
    fn a_container_has_all_namespaces_of_its_own() {
        let mut one = definition();
        one.host.cgroupns_mode = "private".into();
        let spec = compose_one(&one);
        use LinuxNamespaceType as T;
        assert_eq!(kinds(&spec), [T::Mount, T::Network, T::Uts, T::Pid, T::Ipc, T::Cgroup]);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_some());
        assert_eq!(linux.sysctl().as_ref().unwrap()["net.ipv4.ip_unprivileged_port_start"], "0");
    }

    #[test]
    fn host_modes_share_the_hosts() {
        let mut one = definition();
        one.network = NetworkPlan::Host;
        let host = &mut one.host;
        for mode in [&mut host.pid_mode, &mut host.ipc_mode, &mut host.uts_mode, &mut host.cgroupns_mode] {
            *mode = "host".into();
        }
        let spec = compose_one(&one);
        assert_eq!(kinds(&spec), [LinuxNamespaceType::Mount]);
        assert!(spec.hostname().is_none());
        assert!(spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap().is_empty());
    }

    #[test]
    fn privileged_opens_everything() {
        let mut one = definition();
        one.host.privileged = true;
        one.host.masked_paths = None;
        one.host.readonly_paths = None;
        let spec = compose_one(&one);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_none());
        assert!(linux.masked_paths().as_ref().unwrap().is_empty());
        assert!(linux.devices().as_ref().unwrap().len() > 5);
    }

    #[test]
    fn engine_annotations_cannot_be_forged() {
        let mut one = definition();
        one.config.user = "app:staff".into();
        one.host.annotations =
            Some([("dev.berth.user".to_owned(), "root".to_owned()), ("a".to_owned(), "b".to_owned())].into());
        let found = annotations(&one);
        assert_eq!(found["dev.berth.user"], "app:staff");
        assert_eq!(found["a"], "b");
    }

    #[test]
    fn the_cgroup_is_below_its_parent() {
        let mut one = definition();
        assert_eq!(cgroup_path(&one, "/berth"), Path::new("/berth").join(&one.id));
        one.host.cgroup_parent = "mine/../yours".into();
        assert_eq!(cgroup_path(&one, "/berth"), Path::new("/yours").join(&one.id));
    }

    #[test]
    fn seccomp_can_be_turned_off() {
        let mut one = definition();
        one.host.security_opt = Some(vec!["seccomp=unconfined".into()]);
        assert!(compose_one(&one).linux().as_ref().unwrap().seccomp().is_none());
    }
}
