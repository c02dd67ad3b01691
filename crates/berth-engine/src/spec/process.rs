//! What a process is given: environment, directory, capabilities, limits.

use berth_api::container::{Config, HostConfig};
use oci_spec::runtime::{
    BoxBuilder, Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process,
    ProcessBuilder, UserBuilder,
};

use super::{invalid, resources, spec_error};
use crate::Error;
use crate::create::merge::variable_name;
use crate::create::security::SecurityOptions;

/// The search path that every container starts with, as Docker's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What makes a process of a container, first or later.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its environment before the defaults.
    pub env: Vec<String>,
    /// Its directory; empty for the root.
    pub working_dir: &'a str,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's size: rows, columns.
    pub size: Option<(u16, u16)>,
    /// All capabilities.
    pub privileged: bool,
}

/// Composes a process of a container. The user is resolved by the init inside, from its name.
pub fn process(
    wanted: Wanted<'_>,
    config: &Config,
    host: &HostConfig,
    security: &SecurityOptions,
) -> Result<Process, Error> {
    let cwd = if wanted.working_dir.is_empty() { "/" } else { wanted.working_dir };
    let oom_score = i32::try_from(host.oom_score_adj).map_err(|_| invalid("oom score out of range"))?;
    let mut builder = ProcessBuilder::default()
        .terminal(wanted.tty)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build().map_err(spec_error)?)
        .args(wanted.args)
        .env(environment(&wanted.env, &config.hostname, wanted.tty))
        .cwd(cwd)
        .capabilities(capabilities(host, wanted.privileged)?)
        .rlimits(resources::rlimits(host)?)
        .no_new_privileges(security.no_new_privileges)
        .oom_score_adj(oom_score);
    if let Some((rows, columns)) = wanted.size.filter(|_| wanted.tty) {
        let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns));
        builder = builder.console_size(size.build().map_err(spec_error)?);
    }
    builder.build().map_err(spec_error)
}

/// The environment in Docker's order: search path, host name, terminal, then the container's own; a name
/// without a value takes a variable away.
pub fn environment(own: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut found = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        found.push("TERM=xterm".into());
    }
    for variable in own {
        let name = variable_name(variable);
        let at = found.iter().position(|f| variable_name(f) == name);
        match (variable.contains('='), at) {
            (true, Some(at)) => found[at].clone_from(variable),
            (true, None) => found.push(variable.clone()),
            (false, Some(at)) => {
                found.remove(at);
            }
            (false, None) => {}
        }
    }
    found
}

/// The capability sets of a process; none is inheritable (R9).
fn capabilities(host: &HostConfig, privileged: bool) -> Result<LinuxCapabilities, Error> {
    let set: Capabilities = capability_set(host, privileged)?.into_iter().collect();
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::default())
        .ambient(Capabilities::default())
        .build()
        .map_err(spec_error)
}

/// The capabilities of a container after what is added and dropped.
pub fn capability_set(host: &HostConfig, privileged: bool) -> Result<Vec<Capability>, Error> {
    let list = |given: &Option<Vec<String>>| given.clone().unwrap_or_default();
    berth_runtime::capability::adjust(&list(&host.cap_add), &list(&host.cap_drop), privileged)
        .map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(own: &[&str], tty: bool) -> Vec<String> {
        environment(&own.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>(), "h", tty)
    }

    #[test]
    fn the_environment_has_dockers_defaults() {
        assert_eq!(env(&[], false), [PATH, "HOSTNAME=h"]);
        assert_eq!(env(&["A=1"], true), [PATH, "HOSTNAME=h", "TERM=xterm", "A=1"]);
    }

    #[test]
    fn own_values_replace_and_bare_names_remove() {
        assert_eq!(env(&["PATH=/x", "TERM", "A=1", "A=2"], true), ["PATH=/x", "HOSTNAME=h", "A=2"]);
        assert_eq!(env(&["NOT_THERE"], false), [PATH, "HOSTNAME=h"]);
    }

    #[test]
    fn nothing_is_inheritable_or_ambient() {
        for privileged in [false, true] {
            let sets = capabilities(&HostConfig::default(), privileged).unwrap();
            assert!(sets.inheritable().as_ref().unwrap().is_empty(), "R9");
            assert!(sets.ambient().as_ref().unwrap().is_empty());
            assert_eq!(sets.bounding(), sets.permitted());
        }
    }

    #[test]
    fn unknown_capabilities_are_refused() {
        let host = HostConfig { cap_add: Some(vec!["FLY".into()]), ..Default::default() };
        let error = capability_set(&host, false).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidParameter);
        assert!(error.to_string().contains("FLY"), "{error}");
    }
}
