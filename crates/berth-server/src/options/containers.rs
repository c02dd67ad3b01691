//! Options that are about containers.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use berth_engine::{RealTime, SeccompDefault, Settings};

use super::{OptionError, number, value};
use crate::config::{Given, environment_like, size, ulimit};

/// Fills in what containers get that do not say otherwise.
pub fn container_defaults(settings: &mut Settings, given: &Given) -> Result<(), OptionError> {
    let defaults = &mut settings.defaults;
    if let Some(text) = given.text("default-shm-size") {
        let bytes = size(text).and_then(|bytes| i64::try_from(bytes).ok());
        defaults.shm_size = bytes.ok_or_else(|| OptionError::Size(text.to_owned()))?;
    }
    match given.text("default-ipc-mode").filter(|mode| !mode.is_empty()) {
        None => {}
        Some(mode @ ("private" | "shareable")) => defaults.ipc_mode = mode.to_owned(),
        Some(mode @ ("host" | "none")) => {
            return Err(value(format!(
                "IPC mode \"{mode}\" is not supported as default value; use \"shareable\" or \"private\""
            )));
        }
        Some(mode) => {
            return Err(value(format!(
                "default IPC mode setting ({mode}) is invalid; use \"shareable\" or \"private\""
            )));
        }
    }
    match given.text("default-cgroupns-mode").filter(|mode| !mode.is_empty()) {
        None => {}
        Some(mode @ ("private" | "host")) => defaults.cgroupns_mode = mode.to_owned(),
        Some(mode) => {
            return Err(value(format!(
                "default cgroup namespace mode ({mode}) is invalid; use \"host\" or \"private\""
            )));
        }
    }
    for text in given.list("default-ulimit") {
        let limit = ulimit(text).ok_or_else(|| value(format!("invalid ulimit argument: {text}")))?;
        defaults.ulimits.retain(|other| other.name != limit.name);
        defaults.ulimits.push(limit);
    }
    if let Some(seconds) = number(given, "default-stop-timeout")? {
        let seconds =
            u64::try_from(seconds).map_err(|_| value(format!("invalid default stop timeout: {seconds}")))?;
        defaults.stop_timeout = Duration::from_secs(seconds);
    }
    defaults.init = given.switch("init")?.unwrap_or(false);
    defaults.no_new_privileges = given.switch("no-new-privileges")?.unwrap_or(false);
    defaults.seccomp = seccomp(given.text("seccomp-profile").unwrap_or_default())?;
    resolver(settings, given)?;
    settings.real_time = real_time(given)?;
    exec_options(given.list("exec-opt")).map(|_| ())
}

/// Refused where nothing would come of it, as by `dockerd`.
fn real_time(given: &Given) -> Result<RealTime, OptionError> {
    let [period, runtime] = ["cpu-rt-period", "cpu-rt-runtime"].map(|flag| number(given, flag));
    let time = RealTime { period: period?.unwrap_or(0), runtime: runtime?.unwrap_or(0) };
    if time.period < 0 || time.runtime < 0 {
        return Err(value("cpu-rt-period and cpu-rt-runtime cannot be negative"));
    }
    match berth_engine::real_time_problem().filter(|_| time.is_set()) {
        Some(problem) => Err(value(problem)),
        None => Ok(time),
    }
}

/// The default system call filter; a file is read here, so that a broken one stops the daemon and not containers.
fn seccomp(profile: &str) -> Result<SeccompDefault, OptionError> {
    match profile {
        "" | "builtin" => Ok(SeccompDefault::Builtin),
        "unconfined" => Ok(SeccompDefault::Unconfined),
        path => {
            let failed = |error: &dyn std::fmt::Display| {
                value(format!("opening seccomp profile ({path}) failed: {error}"))
            };
            let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
            serde_json::from_str::<serde_json::Value>(&text).map_err(|error| failed(&error))?;
            Ok(SeccompDefault::Profile { path: path.to_owned(), text })
        }
    }
}

fn resolver(settings: &mut Settings, given: &Given) -> Result<(), OptionError> {
    let defaults = &mut settings.defaults;
    for server in given.list("dns") {
        server
            .parse::<IpAddr>()
            .map_err(|_| value(format!("IP address is not correctly formatted: {server}")))?;
    }
    for domain in given.list("dns-search") {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if domain.is_empty() || !domain.chars().all(fine) {
            return Err(value(format!("{domain} is not a valid domain")));
        }
    }
    defaults.dns = given.list("dns").to_vec();
    defaults.dns_search = given.list("dns-search").to_vec();
    defaults.dns_options = given.list("dns-opt").to_vec();
    for address in given.list("host-gateway-ip") {
        let address = address.parse::<IpAddr>();
        let address = address.map_err(|_| value("IP address is not correctly formatted: host-gateway-ip"))?;
        if defaults.host_gateways.iter().any(|other: &IpAddr| other.is_ipv4() == address.is_ipv4()) {
            return Err(value("only one IPv4 and one IPv6 host gateway IP address can be specified"));
        }
        defaults.host_gateways.push(address);
    }
    Ok(())
}

/// The program that other daemons forward ports with. Here none is needed, but one that is named has to be there.
pub fn userland_proxy(given: &Given) -> Result<(), OptionError> {
    let Some(path) = given.text("userland-proxy-path").filter(|path| !path.is_empty()) else { return Ok(()) };
    if given.switch("userland-proxy")? == Some(false) {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(value(format!("invalid userland-proxy-path: must be an absolute path: {path}")));
    }
    let wrong = |why: &dyn std::fmt::Display| value(format!("invalid userland-proxy-path: {path:?}: {why}"));
    let found = std::fs::metadata(path).map_err(|error| wrong(&error))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(wrong(&"permission denied"));
    }
    Ok(())
}

/// Checks `--exec-opt`, which has one option here; those that have no effect come back. Files made for other engines often ask for
/// systemd's cgroups: containers get cgroups of the same limits at another place, which is no reason not to start.
pub fn exec_options(options: &[String]) -> Result<Vec<&str>, OptionError> {
    let mut without_effect = Vec::new();
    for option in options {
        let wrong = |why: &str| value(format!("invalid exec-opt ({option}): {why}"));
        let (name, driver) =
            environment_like(option).ok_or_else(|| wrong("must be formatted 'opt=value'"))?;
        match (name.trim().to_ascii_lowercase().as_str(), driver.trim()) {
            (_, "") => return Err(wrong("must be formatted 'opt=value'")),
            ("native.cgroupdriver", "cgroupfs") => {}
            ("native.cgroupdriver", "systemd") => without_effect.push(option.as_str()),
            ("native.cgroupdriver", _) => {
                return Err(wrong("native.cgroupdriver must be \"cgroupfs\" or \"systemd\""));
            }
            ("isolation", _) => return Err(wrong("option 'isolation' is only supported on windows")),
            (name, _) => return Err(wrong(&format!("unknown option: '{name}'"))),
        }
    }
    Ok(without_effect)
}

/// Where files of the Container Device Interface are looked for, if the options say it. As in Docker, one empty
/// directory or an empty list turns the interface off, and so does `cdi` among the features.
pub fn cdi_directories(given: &Given) -> Option<Vec<PathBuf>> {
    if given.feature("cdi") == Some(false) {
        return Some(Vec::new());
    }
    let directories = given.list_if_given("cdi-spec-dir")?.iter().filter(|path| !path.is_empty());
    Some(directories.map(PathBuf::from).collect())
}
