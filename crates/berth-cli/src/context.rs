//! What every command starts from: the user's settings, the daemon's address, and the connection to it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use berth_api::version::{ApiVersion, Build};
use berth_client::{Client, Hijacked, Host, TlsFiles, Trust};
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::ConfigFile;
use crate::contexts::endpoint::Endpoint;
use crate::contexts::store::{DEFAULT, DOCKER, Store};
use crate::failure::{Failure, Outcome};
use crate::{flags, grammar, headers, on_demand, tls};

/// The daemon's address if nothing says otherwise.
const BERTH_SOCKET: &str = "/run/berth.sock";
/// The same under Docker's name.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Variables that name the daemon; the first that is set wins.
const HOST_VARIABLES: [&str; 2] = ["BERTH_HOST", "DOCKER_HOST"];

/// Flags before the command.
pub fn flags() -> Vec<Arg> {
    vec![
        flags::one("config", "DIR").help("Directory of the user's settings and contexts"),
        flags::one("context", "NAME").short('c').help("Context whose daemon is talked to"),
        flags::switch("debug").short('D').help("Say how the daemon is reached"),
        flags::many("host", "HOST")
            .short('H')
            .help("Daemon to talk to: unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT][/PATH]"),
        flags::one("log-level", "LEVEL")
            .short('l')
            .default_value("info")
            .help("debug (as --debug), info, warn, error or fatal"),
        flags::switch("tls").help("Use TLS over TCP; implied by --tlsverify"),
        flags::switch("tlsverify")
            .help("Use TLS over TCP and believe only servers that the authority vouches for"),
        flags::one("tlscacert", "FILE").help("The authority's certificate").hide_short_help(true),
        flags::one("tlscert", "FILE").help("The client's certificate").hide_short_help(true),
        flags::one("tlskey", "FILE").help("Key of the client's certificate").hide_short_help(true),
        Arg::new("help").long("help").global(true).action(ArgAction::Help).help("Print help"),
    ]
}

/// The settings of one run of the program.
pub struct Context {
    /// Name that the program was started under, for its messages.
    pub program: &'static str,
    /// The user's settings.
    pub config: ConfigFile,
    /// What the program was made of.
    pub build: Build,
    /// Name of the current context.
    name: String,
    /// Daemons that flags name; one at most makes sense.
    hosts: Vec<String>,
    tls: Option<TlsFiles>,
    debug: bool,
}

impl Context {
    /// Reads flags, environment and settings.
    ///
    /// # Errors
    /// Flags contradict each other or make no sense.
    pub fn new(arguments: &[OsString], matches: &ArgMatches) -> Outcome<Self> {
        let level = flags::text(matches, "log-level").unwrap_or("info");
        if !is_level(level) {
            return Err(Failure::new(format!("Unable to parse logging level: {level}")));
        }
        let hosts = flags::list(matches, "host");
        let chosen = flags::text(matches, "context").filter(|name| !name.is_empty());
        if chosen.is_some() && !hosts.is_empty() {
            return Err(Failure::new("conflicting options: cannot specify both --host and --context"));
        }
        let config = ConfigFile::read(directory(flags::text(matches, "config")));
        if let Some(fault) = config.fault() {
            errln!("WARNING: Error {fault}");
        }
        let named =
            || environment("DOCKER_CONTEXT").or_else(|| Some(config.settings.current_context.clone()));
        let name = match chosen {
            Some(name) => name.to_owned(),
            None if !hosts.is_empty() || overriding().is_some() => DEFAULT.to_owned(),
            None => named().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT.to_owned()),
        };
        Ok(Self {
            program: grammar::program(arguments),
            config,
            build: Build::UNKNOWN,
            name,
            hosts,
            tls: tls::files(matches),
            debug: flags::on(matches, "debug") || level.eq_ignore_ascii_case("debug"),
        })
    }

    /// Name of the current context; there need not be any of that name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Contexts that have names.
    pub fn store(&self) -> Store {
        Store::new(self.config.directory())
    }

    /// The variable of the environment that names a daemon.
    pub fn overriding(&self) -> Option<&'static str> {
        overriding()
    }

    /// Where the default context leads to.
    pub fn default_endpoint(&self) -> Outcome<Endpoint> {
        let skip_verification = self.tls.as_ref().is_some_and(|files| files.trust == Trust::Anyone);
        Ok(Endpoint { host: self.default_host()?.to_string(), skip_verification })
    }

    /// The certificates that the default context uses, by the names that they have in the store.
    pub fn default_certificates(&self) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let Some(files) = &self.tls else { return Ok(BTreeMap::new()) };
        let mut paths: Vec<(&str, &PathBuf)> = Vec::new();
        if let Trust::Authority(path) = &files.trust {
            paths.push(("ca.pem", path));
        }
        if let Some((certificate, key)) = &files.identity {
            paths.extend([("cert.pem", certificate), ("key.pem", key)]);
        }
        let read = |(name, path): (&str, &PathBuf)| {
            let bytes = std::fs::read(path)
                .map_err(|error| Failure::io(format!("open {}", path.display()), &error))?;
            Ok((name.to_owned(), bytes))
        };
        paths.into_iter().map(read).collect()
    }

    /// The daemon that flags or environment name, or the usual one.
    fn default_host(&self) -> Outcome<Host> {
        if self.hosts.len() > 1 {
            return Err(Failure::new("Specify only one -H"));
        }
        let chosen = self.hosts.first().cloned().or_else(|| overriding().and_then(environment));
        match chosen.filter(|host| !host.is_empty()) {
            Some(text) => parse(&text),
            None => Ok(self.usual_host()),
        }
    }

    fn usual_host(&self) -> Host {
        Host::Unix(if self.program == "docker" { DOCKER_SOCKET } else { BERTH_SOCKET }.into())
    }

    /// The daemon of the current context.
    fn host(&self) -> Outcome<Host> {
        let found = self.resolve();
        let host = found.map_err(|failure| {
            Failure::new(format!("Failed to initialize: unable to resolve docker endpoint: {failure}"))
        })?;
        // Docker's client asks for nothing but `docker`, wherever it comes.
        Ok(if self.program == "docker" { host } else { host.preferring_berth() })
    }

    fn resolve(&self) -> Outcome<Host> {
        if self.name == DEFAULT {
            let host = self.default_host()?;
            return Ok(match &self.tls {
                Some(files) => host.with_tls(files.clone()),
                None => host,
            });
        }
        let store = self.store();
        let endpoint = store.get(&self.name)?.docker()?;
        let host = if endpoint.host.is_empty() { self.usual_host() } else { parse(&endpoint.host)? };
        Ok(match endpoint.tls(&store.tls_directory(&self.name).join(DOCKER)) {
            Some(files) => host.with_tls(files),
            None => host,
        })
    }

    /// The daemon as plugins have to be told of it; none if they read from the command line or the environment
    /// where it is.
    pub fn host_for_plugins(&self) -> Outcome<Option<Host>> {
        let theirs = self.program == "docker" || self.name != DEFAULT || !self.hosts.is_empty();
        if theirs { Ok(None) } else { self.default_host().map(Some) }
    }

    /// Nobody chose the daemon: one is started when none runs.
    fn may_start(&self) -> bool {
        self.program != "docker" && self.name == DEFAULT && self.hosts.is_empty() && overriding().is_none()
    }

    /// Connects to the daemon, and starts one if none runs and nobody asked for a particular one.
    pub async fn client(&self) -> Outcome<Client> {
        let host = self.host()?;
        self.tell(&host);
        let client = match Client::connect(&host).await {
            Err(error) if self.may_start() && on_demand::is_absent(&error) => on_demand::start(&host).await?,
            outcome => outcome?,
        };
        self.dress(client).map_err(|failure| Failure::new(format!("Failed to initialize: {failure}")))
    }

    /// Connects to the daemon only if it runs.
    pub async fn existing(&self) -> Outcome<Client> {
        self.dress(Client::connect(&self.host()?).await?)
    }

    /// Connects again after the daemon went away.
    ///
    /// # Errors
    /// Nothing answers, or flags and settings no longer lead anywhere.
    pub async fn reconnect(&self, client: &Client) -> Result<Client, berth_client::Error> {
        let again = Client::connect(client.host()).await?;
        // They were read once already.
        Ok(match (headers::read(&self.config.settings.http_headers), version()) {
            (Ok(headers), Ok(None)) => again.with_headers(headers),
            (Ok(headers), Ok(Some(version))) => again.with_headers(headers).pin_version(version),
            _ => again,
        })
    }

    /// A connection to the daemon for someone else to talk over.
    pub async fn dial(&self) -> Outcome<Hijacked> {
        let host = self.host()?;
        self.tell(&host);
        match Client::dial(&host).await {
            Err(error) if self.may_start() && on_demand::is_absent(&error) => {
                on_demand::start(&host).await?;
                Ok(Client::dial(&host).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Gives a client the headers and the version that the user wants.
    fn dress(&self, client: Client) -> Outcome<Client> {
        let client = client.with_headers(headers::read(&self.config.settings.http_headers)?);
        Ok(match version()? {
            Some(version) => client.pin_version(version),
            None => client,
        })
    }

    fn tell(&self, host: &Host) {
        if !self.debug {
            return;
        }
        match host {
            Host::Ssh(ssh) => errln!("DEBUG: context {:?}: running ssh {:?}", self.name, ssh.arguments()),
            host => errln!("DEBUG: context {:?}: connecting to {host}", self.name),
        }
    }
}

fn parse(text: &str) -> Outcome<Host> {
    Host::parse(text).map_err(|error| Failure::new(error.to_string()))
}

/// The directory of the user's settings, which a flag may name.
pub fn directory(given: Option<&str>) -> PathBuf {
    match given.filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => environment("DOCKER_CONFIG").map_or_else(home, PathBuf::from),
    }
}

fn home() -> PathBuf {
    environment("HOME").map_or_else(|| "/root".into(), PathBuf::from).join(".docker")
}

/// A variable that is set to something.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn overriding() -> Option<&'static str> {
    HOST_VARIABLES.into_iter().find(|name| environment(name).is_some())
}

/// The version of the API that the user insists on.
pub fn version() -> Outcome<Option<ApiVersion>> {
    let Some(text) = environment("DOCKER_API_VERSION") else { return Ok(None) };
    match text.strip_prefix('v').unwrap_or(&text).parse() {
        Ok(version) => Ok(Some(version)),
        Err(_) => {
            Err(Failure::new(format!("invalid API version ({text}): must be formatted <major>.<minor>")))
        }
    }
}

fn is_level(level: &str) -> bool {
    const LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"];
    level.is_empty() || LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
}
