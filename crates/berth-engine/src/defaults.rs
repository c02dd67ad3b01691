//! What containers get that do not say otherwise, as the daemon was told.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::container::{HostConfig, Ulimit};
use berth_runtime::cgroup::{Layout, Mode};

use crate::create::Definition;
use crate::create::kernel::Kernel;
use crate::create::security::SecurityOptions;

/// What the daemon adds to containers. A part is settled when a container is created, and shown by `inspect`; the
/// rest at each of its starts.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerDefaults {
    /// Size of `/dev/shm` in bytes; settled at creation.
    pub shm_size: i64,
    /// `private` or `shareable`; settled at creation.
    pub ipc_mode: String,
    /// `private` or `host`; settled at creation.
    pub cgroupns_mode: String,
    /// Name of the runtime; settled at creation.
    pub runtime: String,
    /// Limits of processes, for kinds that the container does not limit itself.
    pub ulimits: Vec<Ulimit>,
    /// Whether an init runs as the first process.
    pub init: bool,
    /// Whether programs are kept from gaining privileges.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: SeccompDefault,
    /// How long a container gets to stop.
    pub stop_timeout: Duration,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Options of the resolver.
    pub dns_options: Vec<String>,
    /// What `host-gateway` means; empty for the bridge's own address.
    pub host_gateways: Vec<IpAddr>,
}

/// The system call filter of containers that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompDefault {
    /// The one that is built in.
    Builtin,
    /// None.
    Unconfined,
    /// Docker's JSON of a profile.
    Profile {
        /// Where it was read.
        path: String,
        /// The JSON.
        text: String,
    },
}

impl SeccompDefault {
    /// What `info` calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin => "builtin",
            Self::Unconfined => "unconfined",
            Self::Profile { path, .. } => path,
        }
    }
}

/// Docker's default of the cgroup namespace. Without one of its own, a container's cgroups are always read-only (R8).
pub fn cgroup_namespace() -> &'static str {
    if has_unified_cgroups() { "private" } else { "host" }
}

/// Whether the host has cgroups of version 2 and no others.
pub fn has_unified_cgroups() -> bool {
    // Nothing is done without a layout, whatever is said here.
    Layout::current().is_ok_and(|layout| layout.mode() == Mode::Unified)
}

/// Why the parents of containers' cgroups cannot be given real-time CPU time, in Docker's words.
pub fn real_time_problem() -> Option<&'static str> {
    if has_unified_cgroups() {
        return Some("daemon-scoped cpu-rt-period and cpu-rt-runtime are not implemented for cgroup v2");
    }
    let has = Kernel::current().is_ok_and(|kernel| kernel.real_time);
    (!has).then_some("daemon-scoped cpu-rt-period and cpu-rt-runtime are not supported by the kernel")
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            shm_size: 64 << 20,
            ipc_mode: "private".into(),
            cgroupns_mode: cgroup_namespace().into(),
            runtime: "berth".into(),
            ulimits: Vec::new(),
            init: false,
            no_new_privileges: false,
            seccomp: SeccompDefault::Builtin,
            stop_timeout: Duration::from_secs(10),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            host_gateways: Vec::new(),
        }
    }
}

impl ContainerDefaults {
    /// Completes what a client asked for with what is settled at creation.
    pub(crate) fn settle(&self, host: &mut HostConfig) {
        if host.shm_size == 0 {
            host.shm_size = self.shm_size;
        }
        // As in Docker: what may do everything sees the host's hierarchies of version 1.
        if host.cgroupns_mode.is_empty() && host.privileged && !has_unified_cgroups() {
            host.cgroupns_mode = "host".into();
        }
        // Only a namespace of its own can be writable (R8).
        let security = SecurityOptions::parse(host);
        if host.cgroupns_mode.is_empty() && security.is_ok_and(|own| own.writable_cgroups == Some(true)) {
            host.cgroupns_mode = "private".into();
        }
        for (mode, default) in [
            (&mut host.ipc_mode, &self.ipc_mode),
            (&mut host.cgroupns_mode, &self.cgroupns_mode),
            (&mut host.runtime, &self.runtime),
        ] {
            if mode.is_empty() {
                mode.clone_from(default);
            }
        }
    }

    /// The container as it is to run now.
    pub(crate) fn complete<'a>(&self, definition: &'a Definition) -> Cow<'a, Definition> {
        let mut host = definition.host.clone();
        self.complete_host(&mut host);
        if host == definition.host {
            return Cow::Borrowed(definition);
        }
        Cow::Owned(Definition { host, ..definition.clone() })
    }

    fn complete_host(&self, host: &mut HostConfig) {
        let joins = host.network_mode.starts_with("container:");
        for (list, defaults) in [
            (&mut host.dns, &self.dns),
            (&mut host.dns_search, &self.dns_search),
            (&mut host.dns_options, &self.dns_options),
        ] {
            if !joins && !defaults.is_empty() && list.as_ref().is_none_or(Vec::is_empty) {
                *list = Some(defaults.clone());
            }
        }
        for limit in &self.ulimits {
            let limits = host.ulimits.get_or_insert_default();
            if limits.iter().all(|own| own.name != limit.name) {
                limits.push(limit.clone());
            }
        }
        if self.init && host.init.is_none() && host.pid_mode != "host" {
            host.init = Some(true);
        }
        let says = |host: &HostConfig, name: &str| {
            let options = host.security_opt.iter().flatten();
            options.into_iter().any(|option| option.split(['=', ':']).next() == Some(name))
        };
        if self.no_new_privileges && !says(host, "no-new-privileges") {
            host.security_opt.get_or_insert_default().push("no-new-privileges".into());
        }
        let filter = match &self.seccomp {
            SeccompDefault::Builtin => None,
            SeccompDefault::Unconfined => Some("seccomp=unconfined".to_owned()),
            SeccompDefault::Profile { text, .. } => Some(format!("seccomp={text}")),
        };
        if let Some(filter) = filter.filter(|_| !host.privileged && !says(host, "seccomp")) {
            host.security_opt.get_or_insert_default().push(filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::tests::definition;

    #[test]
    fn without_settings_a_container_is_as_it_was_created() {
        assert!(matches!(ContainerDefaults::default().complete(&definition()), Cow::Borrowed(_)));
    }

    #[test]
    fn what_a_container_says_itself_wins() {
        let limit = |soft| Ulimit { name: "nofile".into(), soft, hard: soft };
        let defaults = ContainerDefaults {
            ulimits: vec![limit(5), Ulimit { name: "core".into(), soft: 0, hard: 0 }],
            init: true,
            no_new_privileges: true,
            seccomp: SeccompDefault::Unconfined,
            dns: vec!["9.9.9.9".into()],
            ..Default::default()
        };
        let mut one = definition();
        let full = defaults.complete(&one).into_owned();
        assert_eq!(full.host.ulimits.unwrap().len(), 2);
        assert_eq!(full.host.init, Some(true));
        assert_eq!(full.host.security_opt.unwrap(), ["no-new-privileges", "seccomp=unconfined"]);
        assert_eq!(full.host.dns.unwrap(), ["9.9.9.9"]);

        one.host.ulimits = Some(vec![limit(7)]);
        one.host.init = Some(false);
        one.host.security_opt = Some(vec!["no-new-privileges=false".into(), "seccomp=builtin".into()]);
        one.host.dns = Some(vec!["1.1.1.1".into()]);
        let full = defaults.complete(&one).into_owned();
        assert_eq!(full.host.ulimits.unwrap()[0].soft, 7);
        assert_eq!((full.host.init, full.host.security_opt.unwrap().len()), (Some(false), 2));
        assert_eq!(full.host.dns.unwrap(), ["1.1.1.1"]);
    }

    #[test]
    fn creation_settles_what_inspect_shows() {
        let defaults = ContainerDefaults { shm_size: 5, ipc_mode: "shareable".into(), ..Default::default() };
        let mut host = HostConfig { cgroupns_mode: "host".into(), ..Default::default() };
        defaults.settle(&mut host);
        assert_eq!((host.shm_size, host.ipc_mode.as_str()), (5, "shareable"));
        assert_eq!((host.cgroupns_mode.as_str(), host.runtime.as_str()), ("host", "berth"));
        let mut host = HostConfig { privileged: true, ..Default::default() };
        defaults.settle(&mut host);
        assert_eq!(host.cgroupns_mode, if has_unified_cgroups() { "private" } else { "host" });
        let mut host = HostConfig::default();
        defaults.settle(&mut host);
        assert_eq!(host.cgroupns_mode, cgroup_namespace());
        let writable = Some(vec!["writable-cgroups=true".into()]);
        let mut host = HostConfig { security_opt: writable, ..Default::default() };
        defaults.settle(&mut host);
        assert_eq!(host.cgroupns_mode, "private");
    }
}
