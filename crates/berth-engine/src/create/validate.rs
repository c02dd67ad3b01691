//! What a request must not say, in Docker's words.

use berth_api::container::{Config, HealthConfig, HostConfig};

use super::kernel::{self, Kernel};
use super::ports;
use super::security::SecurityOptions;
use super::{mounts, sysctls};
use crate::{Error, signal};

/// The least memory a container can have, in bytes.
const MINIMUM_MEMORY: i64 = 6 << 20;
/// The shortest time of a health check, in nanoseconds.
const MINIMUM_TIME: i64 = 1_000_000;
/// Longest host name (sethostname(2)).
const MAX_HOSTNAME: usize = 64;

/// Checks a merged configuration against the host's and returns warnings for what is ignored. `cpus` is the
/// number of the host's processors.
pub fn validate(config: &mut Config, host: &mut HostConfig, cpus: usize) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    process(config)?;
    policies(host)?;
    modes(config, host)?;
    memory(host, Part::Whole)?;
    fill_memory(host, &mut warnings);
    cpu(host, cpus)?;
    others(host, &mut warnings)?;
    kernel::validate(host, Kernel::current()?, &mut warnings)?;
    sysctls::validate(host)?;
    SecurityOptions::parse(host)?;
    ports::exposed(config)?;
    ports::publications(config, host)?;
    if matches!(host.network_mode.as_str(), "host" | "none")
        && host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty())
        && host.network_mode == "host"
    {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    Ok(warnings)
}

/// Checks what an update asks for, or the whole that comes of it: the same, for what it can change.
pub fn validate_update(host: &HostConfig, part: Part, cpus: usize) -> Result<(), Error> {
    policies(host)?;
    memory(host, part)?;
    cpu(host, cpus)?;
    block_io(host)
}

/// How much of a configuration is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What is to change of one: memory, for example, may be there where only swap is named.
    Change,
}

fn invalid(text: impl Into<String>) -> Error {
    Error::InvalidParameter(text.into())
}

fn process(config: &mut Config) -> Result<(), Error> {
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = mounts::clean(&config.working_dir).to_string_lossy().into_owned();
    }
    if let Some(bad) = config.env.iter().flatten().find(|v| v.is_empty() || v.starts_with('=')) {
        return Err(invalid(format!("invalid environment variable: {bad}")));
    }
    if config.env.iter().flatten().any(|v| v.contains('\0')) {
        return Err(invalid("invalid environment variable: a null byte"));
    }
    let words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    if words.chain([&config.user, &config.working_dir]).any(|w| w.contains('\0')) {
        return Err(invalid("invalid argument: a null byte"));
    }
    for name in [&config.hostname, &config.domainname] {
        if name.len() > MAX_HOSTNAME {
            return Err(invalid(format!("hostname \"{name}\" is too long (maximum {MAX_HOSTNAME} bytes)")));
        }
    }
    let bad_name = |name: &str| name.contains(['\0', '\n', '/', ' ']);
    if bad_name(&config.hostname) || bad_name(&config.domainname) {
        return Err(invalid(format!("invalid hostname format: {}", config.hostname)));
    }
    if let Some(health) = &config.healthcheck {
        crate::life::health::check::validate(health)?;
    }
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    health(config.healthcheck.as_ref())
}

fn health(check: Option<&HealthConfig>) -> Result<(), Error> {
    let Some(check) = check else { return Ok(()) };
    for (name, time) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if time != 0 && time < MINIMUM_TIME {
            return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

fn policies(host: &HostConfig) -> Result<(), Error> {
    let policy = &host.restart_policy;
    if policy.maximum_retry_count != 0 && !matches!(policy.name.as_str(), "" | "on-failure") {
        return Err(invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if policy.maximum_retry_count < 0 {
        return Err(invalid("invalid restart policy: maximum retry count cannot be negative"));
    }
    match policy.name.as_str() {
        "" | "no" => {}
        "always" | "unless-stopped" | "on-failure" if host.auto_remove => {
            return Err(invalid("can't create 'AutoRemove' container with restart policy"));
        }
        "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    for entry in host.extra_hosts.iter().flatten() {
        let (name, address) =
            entry.split_once(':').ok_or_else(|| invalid(format!("bad format for add-host: \"{entry}\"")))?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(invalid(format!("bad format for add-host: \"{entry}\"")));
        }
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(invalid(format!("bad format for DNS server: {server}")));
        }
    }
    Ok(())
}

fn modes(config: &Config, host: &HostConfig) -> Result<(), Error> {
    let joins = host.network_mode.starts_with("container:");
    let check = |conflict: bool, text: &str| {
        if conflict { Err(invalid(format!("conflicting options: {text}"))) } else { Ok(()) }
    };
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    check(joins && !config.hostname.is_empty(), "hostname and the network mode")?;
    check(host.uts_mode == "host" && !config.hostname.is_empty(), "hostname and the UTS mode")?;
    check(
        host.network_mode == "host" && some(&host.links),
        "host type networking can't be used with links. This would result in undefined behavior",
    )?;
    check(
        joins && some(&host.links),
        "container type network can't be used with links. This would result in undefined behavior",
    )?;
    check(joins && some(&host.dns), "dns and the network mode")?;
    check(joins && some(&host.extra_hosts), "custom host-to-IP mapping and the network mode")?;
    check(
        joins && (host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|p| !p.is_empty())),
        "port publishing and the container type network mode",
    )?;
    check(
        joins && config.exposed_ports.as_ref().is_some_and(|p| !p.is_empty()),
        "port exposing and the container type network mode",
    )?;
    mode("IPC", &host.ipc_mode, &["", "none", "private", "shareable", "host"])?;
    mode("PID", &host.pid_mode, &["", "host"])?;
    mode("UTS", &host.uts_mode, &["", "host"])?;
    mode("user namespace", &host.userns_mode, &["", "host"])?;
    mode("cgroup namespace", &host.cgroupns_mode, &["", "private", "host"])
}

fn mode(kind: &str, given: &str, known: &[&str]) -> Result<(), Error> {
    let joins =
        matches!(kind, "IPC" | "PID") && given.strip_prefix("container:").is_some_and(|c| !c.is_empty());
    if joins || known.contains(&given) {
        Ok(())
    } else {
        Err(invalid(format!("invalid {kind} mode: {given}")))
    }
}

fn memory(host: &HostConfig, part: Part) -> Result<(), Error> {
    if host.memory != 0 && host.memory < MINIMUM_MEMORY {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if host.memory == 0 && host.memory_swap > 0 && part == Part::Whole {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if host.memory_reservation != 0 && host.memory_reservation < MINIMUM_MEMORY {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if host.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0"));
    }
    Ok(())
}

fn fill_memory(host: &mut HostConfig, warnings: &mut Vec<String>) {
    // Docker's default: as much swap again as memory.
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.kernel_memory.take().is_some_and(|limit| limit != 0) {
        warnings.push("Kernel memory limit is deprecated and was ignored".into());
    }
}

fn cpu(host: &HostConfig, cpus: usize) -> Result<(), Error> {
    let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return Err(invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_shares < 0 {
        return Err(invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let highest = parse_set(list)
            .ok_or_else(|| invalid(format!("Invalid value {list} for cpuset {name}: invalid format")))?;
        if name == "cpus" && highest.is_some_and(|n| n >= cpus) {
            return Err(invalid(format!(
                "Requested CPUs are not available - requested {list}, available: 0-{}",
                cpus.saturating_sub(1)
            )));
        }
    }
    Ok(())
}

/// The highest number of a list such as `0-2,7`; `None` if it is malformed.
fn parse_set(list: &str) -> Option<Option<usize>> {
    let mut highest = None;
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last < first || last > 8191 {
            return None;
        }
        highest = highest.max(Some(last));
    }
    Some(highest)
}

fn block_io(host: &HostConfig) -> Result<(), Error> {
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    Ok(())
}

fn others(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), Error> {
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    block_io(host)?;
    if let Some(limit) = host.pids_limit
        && limit < -1
    {
        return Err(invalid(format!("invalid PIDs limit: {limit}")));
    }
    for ulimit in host.ulimits.iter().flatten() {
        let beyond = ulimit.hard != -1 && (ulimit.soft > ulimit.hard || ulimit.soft == -1);
        if beyond {
            return Err(invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                ulimit.soft, ulimit.hard
            )));
        }
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::{RestartPolicy, Ulimit};

    fn check(config: Config, host: HostConfig) -> Result<Vec<String>, String> {
        validate(&mut config.clone(), &mut host.clone(), 2).map_err(|e| e.to_string())
    }

    fn host(change: impl FnOnce(&mut HostConfig)) -> Result<Vec<String>, String> {
        let mut host = HostConfig::default();
        change(&mut host);
        check(Config::default(), host)
    }

    #[test]
    fn the_default_passes() {
        assert_eq!(host(|_| ()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn resources_are_bounded_in_dockers_words() {
        type Change = Box<dyn FnOnce(&mut HostConfig)>;
        let cases: Vec<(Change, &str)> = vec![
            (Box::new(|h| h.memory = 1 << 20), "Minimum memory limit allowed is 6MB"),
            (Box::new(|h| h.memory = -1), "Minimum memory limit allowed is 6MB"),
            (
                Box::new(|h| (h.memory, h.memory_swap) = (8 << 20, 7 << 20)),
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                Box::new(|h| h.memory_swap = 8 << 20),
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                Box::new(|h| (h.memory, h.memory_reservation) = (8 << 20, 9 << 20)),
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            (
                Box::new(|h| h.nano_cpus = 3_000_000_000),
                "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
            (
                Box::new(|h| (h.nano_cpus, h.cpu_period) = (1, 1)),
                "Conflicting options: Nano CPUs and CPU Period cannot both be set",
            ),
            (
                Box::new(|h| h.cpuset_cpus = "0-9".into()),
                "Requested CPUs are not available - requested 0-9, available: 0-1",
            ),
            (Box::new(|h| h.cpuset_cpus = "1-0".into()), "Invalid value 1-0 for cpuset cpus: invalid format"),
            (
                Box::new(|h| h.oom_score_adj = 1001),
                "Invalid value 1001, range for oom score adj is [-1000, 1000]",
            ),
            (Box::new(|h| h.shm_size = -1), "SHM size can not be less than 0"),
            (Box::new(|h| h.blkio_weight = 5), "Range of blkio weight is from 10 to 1000"),
            (
                Box::new(|h| h.ulimits = Some(vec![Ulimit { name: "nofile".into(), soft: 2, hard: 1 }])),
                "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
            ),
        ];
        for (change, text) in cases {
            assert_eq!(host(change).unwrap_err(), text);
        }
    }

    #[test]
    fn swap_is_as_much_again_by_default() {
        let mut host = HostConfig { memory: 64 << 20, ..Default::default() };
        validate(&mut Config::default(), &mut host, 2).unwrap();
        assert_eq!(host.memory_swap, 128 << 20);
    }

    #[test]
    fn contradictions_are_refused_in_dockers_words() {
        let named = Config { hostname: "h".into(), ..Default::default() };
        let joined = HostConfig { network_mode: "container:x".into(), ..Default::default() };
        let uts = HostConfig { uts_mode: "host".into(), ..Default::default() };
        assert_eq!(
            check(named.clone(), joined).unwrap_err(),
            "conflicting options: hostname and the network mode"
        );
        assert_eq!(check(named, uts).unwrap_err(), "conflicting options: hostname and the UTS mode");
        let removed = host(|h| {
            h.auto_remove = true;
            h.restart_policy = RestartPolicy { name: "always".into(), ..Default::default() };
        });
        assert_eq!(removed.unwrap_err(), "can't create 'AutoRemove' container with restart policy");
        assert_eq!(host(|h| h.pid_mode = "mine".into()).unwrap_err(), "invalid PID mode: mine");
    }

    #[test]
    fn the_process_is_checked() {
        let relative = Config { working_dir: "a/b".into(), ..Default::default() };
        assert_eq!(
            check(relative, HostConfig::default()).unwrap_err(),
            "the working directory 'a/b' is invalid, it needs to be an absolute path"
        );
        let env = Config { env: Some(vec!["=x".into()]), ..Default::default() };
        assert_eq!(check(env, HostConfig::default()).unwrap_err(), "invalid environment variable: =x");
        let signal = Config { stop_signal: "SIGNOPE".into(), ..Default::default() };
        assert_eq!(check(signal, HostConfig::default()).unwrap_err(), "invalid signal: SIGNOPE");
        let mut config = Config { working_dir: "/a/../b/".into(), ..Default::default() };
        validate(&mut config, &mut HostConfig::default(), 2).unwrap();
        assert_eq!(config.working_dir, "/b");
    }

    #[test]
    fn unknown_drivers_are_refused() {
        assert!(host(|h| h.extra_hosts = Some(vec!["a".into()])).is_err());
        assert!(host(|h| h.extra_hosts = Some(vec!["a:host-gateway".into(), "b:::1".into()])).is_ok());
    }
}
