//! What the options of `berth daemon`, which are `dockerd`'s, come to.

mod containers;
mod network;
mod registries;
mod runtimes;
mod tcp;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_api::version::ApiVersion;
use berth_engine::{FirewallBackend, LogDefaults, Product, Settings};
use clap::ArgMatches;

use crate::config::{self, ConfigError, Given, environment_like, size};
use crate::host::Host;
use crate::logging::{LogFormat, LogLevel};
use crate::remap;
use crate::tls::TlsFiles;
pub use tcp::OpenTcp;

/// Raw arguments; [`Options::resolve`] turns them into decisions.
#[derive(Debug)]
pub struct Options {
    given: Given,
    defaults: &'static Defaults,
    config_file: PathBuf,
    /// Nobody named the file: it need not be there.
    default_file: bool,
    on_demand: bool,
    ready_fd: Option<i32>,
    /// Print the version and quit.
    pub version: bool,
    /// Check the options and quit.
    pub validate: bool,
}

/// Everything that was decided before anything is done.
#[derive(Debug)]
pub struct Resolved {
    /// Where to listen; never empty.
    pub hosts: Vec<Host>,
    /// TCP without TLS was asked for in so many words.
    pub insecure_tcp: bool,
    /// Whether an address of `hosts` is open to others without TLS, and why that may be.
    pub open_tcp: OpenTcp,
    /// Certificates for TCP sockets, if they are to have TLS.
    pub tls: Option<TlsFiles>,
    /// Where metrics are answered.
    pub metrics: Option<Host>,
    /// The unix sockets' group.
    pub group: SocketGroup,
    /// File for the process ID.
    pub pidfile: PathBuf,
    /// Least important messages to log.
    pub log_level: LogLevel,
    /// Form of the messages.
    pub log_format: LogFormat,
    /// Messages are never coloured.
    pub raw_logs: bool,
    /// Started by a client.
    pub on_demand: bool,
    /// Descriptor that gets one byte once requests are answered.
    pub ready_fd: Option<i32>,
    /// All options that were given, for the log.
    pub shown: String,
    /// Variables of the environment that options overrule.
    pub overridden: Vec<String>,
    /// Options that were given and do nothing here.
    pub without_effect: Vec<String>,
    /// What the engine is opened with.
    pub settings: Settings,
    /// Whose users containers have, as it was given.
    pub userns_remap: Option<String>,
}

/// Which group may use the unix sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketGroup {
    /// This one, by name or number; it must exist.
    Named(String),
    /// The first of these that exists, else root.
    FirstOf(&'static [&'static str]),
}

/// The arguments contradict each other or ask for something that is not there.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// clap's message.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// The file, or flags and file together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Where to listen makes no sense.
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// A relative path, where the daemon's working directory is not the user's.
    #[error("cannot make {path} absolute: {source}")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A TCP socket was asked for, and nothing else.
    #[error(
        "refusing to listen on {0} without TLS: whoever can connect to it, containers included, becomes root on this \
         host. If that is what you want, add --tls=false"
    )]
    InsecureTcp(Host),
    /// There is no such log driver, or it does not know an option.
    #[error("{0}")]
    Logging(String),
    /// A size makes no sense.
    #[error("invalid size: {0:?}")]
    Size(String),
    /// A label is not a pair.
    #[error("bad attribute format: {0}")]
    Label(String),
    /// Two labels of one name.
    #[error("conflict labels for {0}={1} and {0}={2}")]
    Labels(String, String, String),
    /// A value that is none of those allowed, in Docker's words.
    #[error("{0}")]
    Value(String),
}

fn value(text: impl Into<String>) -> OptionError {
    OptionError::Value(text.into())
}

/// The names of the daemon's places, by the name that it was started under.
#[derive(Debug)]
struct Defaults {
    config_file: &'static str,
    data_root: &'static str,
    exec_root: &'static str,
    socket: &'static str,
    pidfile: Option<&'static str>,
    bridge: &'static str,
    firewall: FirewallBackend,
    cgroup_parent: &'static str,
    groups: &'static [&'static str],
    live_restore: bool,
    log_format: LogFormat,
    log_driver: &'static str,
    runtime: &'static str,
    product: Product,
}

const BERTH: Defaults = Defaults {
    config_file: "/etc/berth/daemon.json",
    data_root: "/var/lib/berth",
    exec_root: "/run/berth",
    socket: "/run/berth.sock",
    pidfile: None,
    bridge: "berth0",
    firewall: FirewallBackend::Nftables,
    cgroup_parent: "/berth",
    groups: &["berth", "docker"],
    live_restore: true,
    log_format: LogFormat::Plain,
    log_driver: "local",
    runtime: "berth",
    product: Product::Berth,
};

const DOCKER: Defaults = Defaults {
    config_file: "/etc/docker/daemon.json",
    data_root: "/var/lib/docker",
    exec_root: "/var/run/docker",
    socket: "/var/run/docker.sock",
    pidfile: Some("/var/run/docker.pid"),
    bridge: "docker0",
    firewall: FirewallBackend::Iptables,
    cgroup_parent: "/docker",
    groups: &["docker"],
    live_restore: false,
    log_format: LogFormat::Text,
    // What follows Docker's files finds them; they are bounded all the same.
    log_driver: "json-file",
    // The name of the one runtime that scripts ask for.
    runtime: "runc",
    product: Product::Docker,
};

/// Where a TLS daemon listens if nothing else is said, as `dockerd`.
const TLS_HOST: &str = "tcp://localhost:2376";

/// True if the program was started under Docker's name.
fn is_dockerd(args: &[OsString]) -> bool {
    args.first().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == "dockerd")
}

impl Options {
    /// Reads arguments, program name first; `daemon` may follow it.
    pub fn parse_from_args(args: &[OsString]) -> Result<Self, OptionError> {
        let matches: ArgMatches = config::command().try_get_matches_from(config::without_face(args))?;
        let defaults = if is_dockerd(args) { &DOCKER } else { &BERTH };
        let file = matches.get_one::<String>("config-file");
        Ok(Self {
            given: Given::from_flags(&matches),
            defaults,
            config_file: file.map_or(defaults.config_file, String::as_str).into(),
            default_file: file.is_none(),
            on_demand: matches.get_flag("on-demand"),
            ready_fd: matches.get_one::<i32>("ready-fd").copied(),
            version: matches.get_flag("version"),
            validate: matches.get_flag("validate"),
        })
    }

    /// Reads the file, fills in defaults, makes paths absolute, and refuses contradictions. Changes nothing, so that
    /// it can be asked again when the file has changed.
    pub fn resolve(&self) -> Result<Resolved, OptionError> {
        let path = absolute(&self.config_file)?;
        let given = &self.given.clone().with_file(&path, !self.default_file)?;
        given.check_switches()?;
        let defaults = self.defaults;
        let exec_root = absolute(given.text("exec-root").unwrap_or(defaults.exec_root))?;
        let pidfile = match (given.text("pidfile"), defaults.pidfile) {
            (Some(path), _) => absolute(path)?,
            (None, Some(path)) => path.into(),
            (None, None) => exec_root.join("daemon.pid"),
        };
        let tls = tls(given)?;
        let insecure_tcp = given.switch("tls")? == Some(false) && tls.is_none();
        let hosts = self.hosts(given, tls.is_some())?;
        let is_docker = std::ptr::eq(defaults, &DOCKER);
        let open_tcp = OpenTcp::of(&hosts, tls.is_some(), insecure_tcp, is_docker);
        if let (OpenTcp::Refused, Some(open)) = (open_tcp, hosts.iter().find(|host| host.is_open())) {
            return Err(OptionError::InsecureTcp(open.clone()));
        }
        let mut settings = self.settings(given, exec_root, log_level(given)?)?;
        settings.warnings = tcp::warnings(&hosts, tls.as_ref());
        let log_level = log_level(given)?;
        let format = given.parsed("log-format", "text or json", LogFormat::parse);
        Ok(Resolved {
            hosts,
            insecure_tcp,
            open_tcp,
            tls,
            metrics: metrics(given)?,
            group: group(given.text("group"), defaults.groups),
            pidfile,
            log_level: if given.switch("debug")? == Some(true) { LogLevel::Debug } else { log_level },
            log_format: format.map_err(|_| log_format_error(given))?.unwrap_or(defaults.log_format),
            raw_logs: given.switch("raw-logs")? == Some(true),
            on_demand: self.on_demand,
            ready_fd: self.ready_fd,
            overridden: registries::overridden(given),
            shown: given.shown(),
            without_effect: without_effect(given)?,
            userns_remap: userns_remap(given)?,
            settings,
        })
    }

    fn hosts(&self, given: &Given, tls: bool) -> Result<Vec<Host>, OptionError> {
        let socket = Path::new(self.defaults.socket);
        let mut hosts = Vec::new();
        for text in given.list("host").iter().filter(|text| !text.trim().is_empty()) {
            let host = Host::parse(text, socket)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            hosts.push(if tls { Host::parse(TLS_HOST, socket)? } else { Host::Unix(socket.to_owned()) });
        }
        Ok(hosts)
    }

    fn settings(&self, given: &Given, exec_root: PathBuf, level: LogLevel) -> Result<Settings, OptionError> {
        let defaults = self.defaults;
        let data_root = absolute(given.text("data-root").unwrap_or(defaults.data_root))?;
        let mut settings = Settings::new(data_root, exec_root);
        let driver = given.text("log-driver").filter(|driver| !driver.is_empty());
        settings.log = log_defaults(driver.unwrap_or(defaults.log_driver), given.list("log-opt"))?;
        if let Some(text) = given.text("keep-free") {
            settings.keep_free_bytes = Some(size(text).ok_or_else(|| OptionError::Size(text.to_owned()))?);
        }
        settings.live_restore = given.switch("live-restore")?.unwrap_or(defaults.live_restore);
        if let Some(seconds) = number(given, "shutdown-timeout")? {
            // As in Docker, a negative number waits for ever.
            settings.shutdown_timeout = u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs);
        }
        let driver = given.text("storage-driver").filter(|driver| !driver.is_empty());
        settings.storage_driver = driver.map(str::to_owned);
        settings.storage_limit = storage_limit(given.list("storage-opt"))?;
        settings.build_cache =
            config::builder::cache(&given.object("builder")).map_err(|error| value(error.to_string()))?;
        let parent = given.text("cgroup-parent").filter(|parent| !parent.is_empty());
        settings.cgroup_parent = parent.unwrap_or(defaults.cgroup_parent).to_owned();
        settings.labels = labels(given.list("label"))?;
        if let Some(directories) = containers::cdi_directories(given) {
            settings.cdi_dirs = directories;
        }
        settings.authorization_plugins = unique(given.list("authorization-plugin"));
        settings.debug = given.switch("debug")?.unwrap_or(level == LogLevel::Debug);
        settings.oldest_api = oldest_api(given)?;
        settings.registry.product = defaults.product;
        registries::registries(&mut settings, given)?;
        settings.bridge = network::bridge(given, defaults.bridge)?;
        // Docker's clients and tools look for the bridge before there is a container.
        settings.bridge.eager |= std::ptr::eq(defaults, &DOCKER);
        settings.networks = network::networks(given)?;
        settings.firewall = network::firewall(given, defaults.firewall)?;
        defaults.runtime.clone_into(&mut settings.defaults.runtime);
        runtimes::runtimes(&mut settings, given)?;
        containers::container_defaults(&mut settings, given)?;
        containers::userland_proxy(given)?;
        Ok(settings)
    }
}

/// What was given and does nothing here.
fn without_effect(given: &Given) -> Result<Vec<String>, OptionError> {
    let values = containers::exec_options(given.list("exec-opt"))?;
    Ok(given.without_effect().into_iter().chain(values).map(str::to_owned).collect())
}

/// The oldest version of the API that clients may speak: as in Docker, a variable outranks the file.
fn oldest_api(given: &Given) -> Result<ApiVersion, OptionError> {
    const VARIABLE: &str = "DOCKER_MIN_API_VERSION";
    let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let (text, refuse): (&str, fn(&str) -> String) = match (&variable, given.extra("min-api-version")) {
        (Some(text), _) => (text, |why| format!("invalid {VARIABLE}: {why}")),
        (None, Some(text)) => (text, |why| format!("invalid min-api-version: {why}")),
        (None, None) => return Ok(ApiVersion::OLDEST),
    };
    let refused = |why: String| Err(value(refuse(&why)));
    if text.starts_with(['v', 'V']) {
        return refused("API version must be provided without \"v\" prefix".into());
    }
    match text.parse::<ApiVersion>() {
        Err(error) => refused(error.to_string()),
        Ok(version) if version < ApiVersion::OLDEST => {
            refused(format!("minimum supported API version is {}: {version}", ApiVersion::OLDEST))
        }
        Ok(version) if version > ApiVersion::NEWEST => {
            refused(format!("maximum supported API version is {}: {version}", ApiVersion::NEWEST))
        }
        Ok(version) => Ok(version),
    }
}

/// Whose users containers have; who that is, is looked at when the daemon starts.
fn userns_remap(given: &Given) -> Result<Option<String>, OptionError> {
    let Some(text) = given.text("userns-remap").filter(|text| !text.is_empty()) else { return Ok(None) };
    remap::check(text).map_err(|error| value(error.to_string()))?;
    Ok(Some(text.to_owned()))
}

/// The one option of storage that means something here; as in Docker, any other is a mistake.
fn storage_limit(given: &[String]) -> Result<Option<u64>, OptionError> {
    let mut limit = None;
    for option in given {
        let (key, text) = option
            .split_once('=')
            .ok_or_else(|| value(format!("unable to parse storage-opt key/value: {option}")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "overlay2.size" => limit = Some(size(text).ok_or_else(|| OptionError::Size(text.to_owned()))?),
            other => return Err(value(format!("overlay2: unknown option {other}"))),
        }
    }
    Ok(limit)
}

/// Names without repetitions and empty ones, in their order.
fn unique(names: &[String]) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        if !unique.contains(name) {
            unique.push(name.clone());
        }
    }
    unique
}

fn number(given: &Given, flag: &'static str) -> Result<Option<i64>, ConfigError> {
    given.parsed(flag, "a whole number", |text| text.parse().ok())
}

fn group(named: Option<&str>, defaults: &'static [&'static str]) -> SocketGroup {
    match named.filter(|name| !name.is_empty()) {
        Some(name) => SocketGroup::Named(name.to_owned()),
        None => SocketGroup::FirstOf(defaults),
    }
}

fn log_level(given: &Given) -> Result<LogLevel, OptionError> {
    match given.text("log-level").filter(|level| !level.is_empty()) {
        Some(text) => LogLevel::parse(text).ok_or_else(|| value(format!("invalid logging level: {text}"))),
        None => Ok(LogLevel::Info),
    }
}

fn log_format_error(given: &Given) -> OptionError {
    value(format!("invalid log format: {}", given.text("log-format").unwrap_or_default()))
}

/// As in `dockerd`: either of the two switches on, or `--tlsverify` given at all, means TLS, and clients are verified
/// unless `--tlsverify` is off.
fn tls(given: &Given) -> Result<Option<TlsFiles>, OptionError> {
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let verify = match given.switch("tlsverify")? {
        None if environment("DOCKER_TLS_VERIFY").is_some() => Some(true),
        verify => verify,
    };
    if verify.is_none() && given.switch("tls")? != Some(true) {
        return Ok(None);
    }
    let home = || environment("HOME").map_or_else(|| "/root".into(), PathBuf::from).join(".docker");
    let directory = environment("DOCKER_CERT_PATH").or_else(|| environment("DOCKER_CONFIG"));
    let directory = directory.map_or_else(home, PathBuf::from);
    let path = |flag, name| match given.text(flag).filter(|path| !path.is_empty()) {
        Some(path) => absolute(path),
        None => absolute(directory.join(name)),
    };
    Ok(Some(TlsFiles {
        authority: verify.unwrap_or(true).then(|| path("tlscacert", "ca.pem")).transpose()?,
        certificate: path("tlscert", "cert.pem")?,
        key: path("tlskey", "key.pem")?,
    }))
}

fn metrics(given: &Given) -> Result<Option<Host>, OptionError> {
    let Some(address) = given.text("metrics-addr").filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    match Host::parse(&format!("tcp://{}", address.trim_start_matches("tcp://")), Path::new("/"))? {
        host @ Host::Tcp(_) => Ok(Some(host)),
        _ => Err(value(format!("invalid metrics-addr: {address}"))),
    }
}

/// Labels without repetitions; one name with two values is refused.
fn labels(given: &[String]) -> Result<Vec<String>, OptionError> {
    let mut labels: Vec<String> = Vec::new();
    for label in given {
        let (name, value) = environment_like(label).ok_or_else(|| OptionError::Label(label.clone()))?;
        let earlier =
            labels.iter().filter_map(|other| other.split_once('=')).find(|(other, _)| *other == name);
        match earlier {
            Some((_, other)) if other != value => {
                return Err(OptionError::Labels(name.into(), value.into(), other.into()));
            }
            Some(_) => {}
            None => labels.push(label.clone()),
        }
    }
    Ok(labels)
}

/// The daemon's log driver and its options.
fn log_defaults(driver: &str, given: &[String]) -> Result<LogDefaults, OptionError> {
    let mut options = berth_engine::logging::Options::new();
    for option in given {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            OptionError::Logging(format!("invalid logging options: {option}: expected NAME=VALUE"))
        })?;
        options.insert(name.to_owned(), value.to_owned());
    }
    berth_engine::logging::check(driver, &options)
        .map_err(|error| OptionError::Logging(format!("failed to set log opts: {error}")))?;
    Ok(LogDefaults { driver: driver.to_owned(), options })
}

fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, OptionError> {
    let path = path.as_ref();
    std::path::absolute(path).map_err(|source| OptionError::Path { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
