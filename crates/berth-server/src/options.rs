//! The command line of `berth daemon`, which is `dockerd`'s as far as there is something to set.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_engine::{LogDefaults, Settings};
use clap::{ArgAction, Parser};
use ipnet::Ipv4Net;

use crate::host::Host;

/// Raw arguments; [`Options::resolve`] turns them into decisions.
#[derive(Debug, Parser)]
#[command(
    name = "daemon",
    about = "Runs the engine and answers the Engine API",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true
)]
pub struct Options {
    /// Where to listen: unix://PATH, tcp://ADDRESS:PORT, fd:// or fd://N (repeatable)
    #[arg(short = 'H', long = "host", value_name = "HOST", action = ArgAction::Append)]
    hosts: Vec<String>,
    /// Where images and containers are kept
    #[arg(short = 'g', long, value_name = "DIR", visible_alias = "graph")]
    data_root: Option<PathBuf>,
    /// Where the state of what runs is kept
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// File for the daemon's process ID
    #[arg(short = 'p', long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Log debugging information
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    debug: bool,
    /// Least important messages to log: debug, info, warn, error, fatal
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
    /// Group that may use the unix socket
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Keep containers running when the daemon stops
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    live_restore: Option<bool>,
    /// Seconds that containers get to stop when the daemon stops
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    shutdown_timeout: u64,
    /// Link name of the default network's bridge
    #[arg(short = 'b', long, value_name = "NAME")]
    bridge: Option<String>,
    /// Address and prefix of the bridge, such as 172.20.0.1/16
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    bip: Option<Ipv4Net>,
    /// Largest packet of the default network, in bytes
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Give packets that leave the host the host's address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    ip_masq: bool,
    /// Address where ports published without one listen
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Registry that may be reached without TLS: HOST[:PORT] or a network (repeatable)
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// Option of the log driver, such as max-size=20m or max-file=5 (repeatable)
    #[arg(long = "log-opt", value_name = "NAME=VALUE")]
    log_options: Vec<String>,
    /// Log driver of containers that name none: local, json-file, none, syslog, journald, gelf or fluentd
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Space of the data root's file system that stays free, such as 256m
    #[arg(long, value_name = "SIZE")]
    keep_free: Option<String>,
    /// Parent of the containers' cgroups
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Label of the engine, KEY=VALUE (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Whether TCP needs TLS; false opens it to anyone who can connect
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls: Option<bool>,
    /// Whether TCP clients must show a certificate; false opens it to anyone who can connect
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tlsverify: Option<bool>,
    /// Print the version and quit
    #[arg(short = 'v', long)]
    pub version: bool,
    /// Started by a client: leave its session and cgroup
    #[arg(long, hide = true)]
    on_demand: bool,
    /// Descriptor that gets one byte once requests are answered
    #[arg(long, hide = true, value_name = "N")]
    ready_fd: Option<i32>,
}

/// Docker's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// More than anyone wants.
    Trace,
    /// What developers want.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What failed.
    Error,
    /// What ends the daemon.
    Fatal,
}

/// Everything that was decided before anything is done.
#[derive(Debug)]
pub struct Resolved {
    /// Where to listen; never empty.
    pub hosts: Vec<Host>,
    /// TCP without TLS was asked for in so many words.
    pub insecure_tcp: bool,
    /// The unix sockets' group.
    pub group: SocketGroup,
    /// File for the process ID.
    pub pidfile: PathBuf,
    /// Least important messages to log.
    pub log_level: LogLevel,
    /// Started by a client.
    pub on_demand: bool,
    /// Descriptor that gets one byte once requests are answered.
    pub ready_fd: Option<i32>,
    /// What the engine is opened with.
    pub settings: Settings,
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
    /// TLS was asked for.
    #[error("TLS for the API's TCP sockets is not supported yet; use a unix socket or ssh")]
    Tls,
    /// A TCP socket was asked for, and nothing else.
    #[error(
        "refusing to listen on {0} without TLS: whoever can connect to it, containers included, becomes root on this \
         host. If that is what you want, add --tls=false"
    )]
    InsecureTcp(Host),
    /// No bridge at all was asked for.
    #[error("--bridge=none is not supported yet")]
    NoBridge,
    /// There is no such log driver, or it does not know an option.
    #[error("{0}")]
    Logging(String),
    /// A size makes no sense.
    #[error("invalid size: {0:?}")]
    Size(String),
    /// A label is not a pair.
    #[error("bad attribute format: {0}")]
    Label(String),
}

/// The names of the daemon's places, by the name that it was started under.
struct Defaults {
    data_root: &'static str,
    exec_root: &'static str,
    socket: &'static str,
    pidfile: Option<&'static str>,
    bridge: &'static str,
    cgroup_parent: &'static str,
    groups: &'static [&'static str],
    live_restore: bool,
    log_driver: &'static str,
}

const BERTH: Defaults = Defaults {
    data_root: "/var/lib/berth",
    exec_root: "/run/berth",
    socket: "/run/berth.sock",
    pidfile: None,
    bridge: "berth0",
    cgroup_parent: "/berth",
    groups: &["berth", "docker"],
    live_restore: true,
    log_driver: "local",
};

const DOCKER: Defaults = Defaults {
    data_root: "/var/lib/docker",
    exec_root: "/var/run/docker",
    socket: "/var/run/docker.sock",
    pidfile: Some("/var/run/docker.pid"),
    bridge: "docker0",
    cgroup_parent: "/docker",
    groups: &["docker"],
    live_restore: false,
    // What follows Docker's files finds them; they are bounded all the same.
    log_driver: "json-file",
};

/// True if the program was started under Docker's name.
fn is_dockerd(args: &[OsString]) -> bool {
    args.first().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == "dockerd")
}

impl Options {
    /// Reads arguments, program name first; `daemon` may follow it.
    pub fn parse_from_args(args: &[OsString]) -> Result<Self, OptionError> {
        let mut args = args.to_vec();
        if args.get(1).is_some_and(|face| face == "daemon") {
            args.remove(1);
        }
        Ok(Self::try_parse_from(args)?)
    }

    /// Fills in defaults, makes paths absolute, and refuses contradictions. Touches nothing.
    pub fn resolve(self, args: &[OsString]) -> Result<Resolved, OptionError> {
        let defaults = if is_dockerd(args) { &DOCKER } else { &BERTH };
        let data_root = absolute(self.data_root.unwrap_or_else(|| defaults.data_root.into()))?;
        let exec_root = absolute(self.exec_root.unwrap_or_else(|| defaults.exec_root.into()))?;
        let pidfile = match (self.pidfile, defaults.pidfile) {
            (Some(path), _) => absolute(path)?,
            (None, Some(path)) => path.into(),
            (None, None) => exec_root.join("daemon.pid"),
        };
        if self.tls == Some(true) || self.tlsverify == Some(true) {
            return Err(OptionError::Tls);
        }
        let insecure_tcp = self.tls == Some(false) || self.tlsverify == Some(false);
        let mut hosts = Vec::with_capacity(self.hosts.len().max(1));
        for host in &self.hosts {
            hosts.push(Host::parse(host, Path::new(defaults.socket))?);
        }
        if hosts.is_empty() {
            hosts.push(Host::Unix(defaults.socket.into()));
        }
        if let (false, Some(tcp)) = (insecure_tcp, hosts.iter().find(|host| host.is_open())) {
            return Err(OptionError::InsecureTcp(tcp.clone()));
        }
        if self.bridge.as_deref() == Some("none") {
            return Err(OptionError::NoBridge);
        }
        if let Some(label) = self.labels.iter().find(|label| !label.contains('=')) {
            return Err(OptionError::Label(label.clone()));
        }

        let mut settings = Settings::new(data_root, exec_root);
        let driver = self.log_driver.unwrap_or_else(|| defaults.log_driver.to_owned());
        settings.log = log_defaults(driver, &self.log_options)?;
        if let Some(text) = self.keep_free {
            settings.keep_free_bytes = Some(size(&text).ok_or(OptionError::Size(text))?);
        }
        settings.live_restore = self.live_restore.unwrap_or(defaults.live_restore);
        settings.shutdown_timeout = Duration::from_secs(self.shutdown_timeout);
        settings.cgroup_parent = self.cgroup_parent.unwrap_or_else(|| defaults.cgroup_parent.to_owned());
        settings.labels = self.labels;
        settings.debug = self.debug || self.log_level == LogLevel::Debug;
        settings.registry.insecure = self.insecure_registry;
        settings.bridge.name = self.bridge.unwrap_or_else(|| defaults.bridge.to_owned());
        settings.bridge.gateway = self.bip;
        settings.bridge.masquerade = self.ip_masq;
        if let Some(mtu) = self.mtu {
            settings.bridge.mtu = mtu;
        }
        if let Some(address) = self.ip {
            settings.bridge.publish_address = address;
        }
        Ok(Resolved {
            hosts,
            insecure_tcp,
            group: self.group.map_or(SocketGroup::FirstOf(defaults.groups), SocketGroup::Named),
            pidfile,
            log_level: if self.debug { LogLevel::Debug } else { self.log_level },
            on_demand: self.on_demand,
            ready_fd: self.ready_fd,
            settings,
        })
    }
}

/// The daemon's log driver and its options.
fn log_defaults(driver: String, given: &[String]) -> Result<LogDefaults, OptionError> {
    let mut options = berth_engine::logging::Options::new();
    for option in given {
        let (name, value) = option.split_once('=').ok_or_else(|| {
            OptionError::Logging(format!("invalid logging options: {option}: expected NAME=VALUE"))
        })?;
        options.insert(name.to_owned(), value.to_owned());
    }
    berth_engine::logging::check(&driver, &options)
        .map_err(|error| OptionError::Logging(format!("failed to set log opts: {error}")))?;
    Ok(LogDefaults { driver, options })
}

/// A size in bytes, with Docker's suffixes: `512`, `64k`, `20m`, `2g`, `1t`, a `b` or `ib` after them.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn absolute(path: PathBuf) -> Result<PathBuf, OptionError> {
    std::path::absolute(&path).map_err(|source| OptionError::Path { path, source })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn resolve(args: &[&str]) -> Result<Resolved, OptionError> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Options::parse_from_args(&args)?.resolve(&args)
    }

    #[test]
    fn defaults_follow_the_program_name() {
        let berth = resolve(&["berth", "daemon"]).unwrap();
        assert_eq!(berth.settings.data_root, Path::new("/var/lib/berth"));
        assert_eq!(berth.hosts, [Host::Unix("/run/berth.sock".into())]);
        assert_eq!(berth.pidfile, Path::new("/run/berth/daemon.pid"));
        assert!(berth.settings.live_restore);

        let docker = resolve(&["/usr/bin/dockerd"]).unwrap();
        assert_eq!(docker.settings.data_root, Path::new("/var/lib/docker"));
        assert_eq!(docker.settings.exec_root, Path::new("/var/run/docker"));
        assert_eq!(docker.hosts, [Host::Unix("/var/run/docker.sock".into())]);
        assert_eq!(docker.settings.bridge.name, "docker0");
        assert!(!docker.settings.live_restore);
    }

    #[test]
    fn flags_are_read_as_dockerd_reads_them() {
        let options = resolve(&[
            "berth",
            "daemon",
            "-H",
            "unix:///tmp/a.sock",
            "-H=unix:///tmp/b.sock",
            "--data-root=/d",
            "--exec-root",
            "/e",
            "-D",
            "--live-restore=false",
            "--bip",
            "10.9.0.1/24",
            "--mtu=1400",
            "--ip-masq=false",
            "--insecure-registry",
            "r:5000",
            "--insecure-registry=10.0.0.0/8",
        ])
        .unwrap();
        assert_eq!(options.hosts.len(), 2);
        assert_eq!(options.log_level, LogLevel::Debug);
        assert!(
            options.settings.debug && !options.settings.live_restore && !options.settings.bridge.masquerade
        );
        assert_eq!(options.settings.bridge.gateway.unwrap().to_string(), "10.9.0.1/24");
        assert_eq!(options.settings.registry.insecure, ["r:5000", "10.0.0.0/8"]);
    }

    #[test]
    fn r23_tcp_without_tls_needs_insistence() {
        for host in ["tcp://0.0.0.0:2375", "tcp://[::]:2375", "tcp://192.0.2.1:2375", "tcp://:2375"] {
            let error = resolve(&["berth", "daemon", "-H", host]).unwrap_err();
            assert!(matches!(error, OptionError::InsecureTcp(_)), "{host}: {error}");
        }
        for host in ["tcp://127.0.0.1:2375", "tcp://[::1]:2375", "tcp://"] {
            let options = resolve(&["berth", "daemon", "-H", host]).unwrap();
            assert!(!options.insecure_tcp && matches!(options.hosts[0], Host::Tcp(_)), "{host}");
        }
        let options = resolve(&["berth", "daemon", "-H", "tcp://[::1]:2375", "--tls=false"]).unwrap();
        assert!(options.insecure_tcp);
        assert_eq!(options.hosts, [Host::Tcp(vec![SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 2375))])]);
        assert!(matches!(resolve(&["berth", "daemon", "--tlsverify"]), Err(OptionError::Tls)));
    }

    #[test]
    fn logs_and_the_free_space_are_bounded() {
        let options = resolve(&[
            "berth",
            "daemon",
            "--log-opt",
            "max-size=2m",
            "--log-opt=max-file=3",
            "--keep-free",
            "1g",
            "--log-driver=local",
        ])
        .unwrap();
        let log = &options.settings.log;
        assert_eq!(
            (log.driver.as_str(), log.options["max-size"].as_str(), log.options.len()),
            ("local", "2m", 2)
        );
        assert_eq!(resolve(&["dockerd"]).unwrap().settings.log.driver, "json-file");
        assert_eq!(options.settings.keep_free_bytes, Some(1 << 30));
        for bad in [
            "max-size",
            "max-size=0",
            "max-size=x",
            "max-file=0",
            "max-file=-1",
            "colour=red",
            "max-size=99999999p",
        ] {
            let error = resolve(&["berth", "daemon", "--log-opt", bad]).unwrap_err();
            assert!(matches!(error, OptionError::Logging(_)), "{bad}");
        }
        assert!(matches!(
            resolve(&["berth", "daemon", "--log-driver", "carrier-pigeon"]),
            Err(OptionError::Logging(_))
        ));
        assert!(matches!(
            resolve(&["berth", "daemon", "--keep-free", "-1"]),
            Err(OptionError::Size(_)) | Err(OptionError::Usage(_))
        ));
    }

    #[test]
    fn sizes_have_dockers_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64k", 64 << 10),
            ("20M", 20 << 20),
            ("2GiB", 2 << 30),
            (" 1 t", 1 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1.5g", "1x", "99999999999999999999", "99999999t"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [
            &["berth", "daemon", "--no-such-flag"][..],
            &["berth", "daemon", "positional"],
            &["berth", "daemon", "-H", "carrier-pigeon://x"],
            &["berth", "daemon", "--label", "novalue"],
            &["berth", "daemon", "--bip", "300.1.1.1/8"],
            &["berth", "daemon", "--log-level", "loud"],
            &["berth", "daemon", "--mtu", "-5"],
        ] {
            assert!(resolve(args).is_err(), "{args:?}");
        }
    }
}
