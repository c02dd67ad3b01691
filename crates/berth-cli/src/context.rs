//! What every command starts from: the daemon's address, and the connection to it.

use std::ffi::OsString;

use berth_client::{Client, Host};
use clap::{Arg, ArgAction, ArgMatches};

use crate::failure::{Failure, Outcome};
use crate::{flags, grammar, on_demand, tls};

/// The daemon's address if nothing says otherwise.
const BERTH_SOCKET: &str = "/run/berth.sock";
/// The same under Docker's name.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Flags before the command.
pub fn flags() -> Vec<Arg> {
    vec![
        flags::one("host", "HOST").short('H').help("Daemon to talk to: unix://PATH or tcp://HOST:PORT"),
        flags::switch("tls").help("Use TLS over TCP; implied by --tlsverify"),
        flags::switch("tlsverify")
            .help("Use TLS over TCP and believe only servers that the authority vouches for"),
        flags::one("tlscacert", "FILE").help("The authority's certificate").hide_short_help(true),
        flags::one("tlscert", "FILE").help("The client's certificate").hide_short_help(true),
        flags::one("tlskey", "FILE").help("Key of the client's certificate").hide_short_help(true),
        flags::switch("debug").short('D').help("Print more").hide(true),
        flags::one("log-level", "LEVEL")
            .short('l')
            .default_value("info")
            .hide(true)
            .help("Accepted for compatibility"),
        flags::one("config", "DIR").hide(true).help("Accepted for compatibility"),
        Arg::new("help").long("help").global(true).action(ArgAction::Help).help("Print help"),
    ]
}

/// The settings of one run of the program.
pub struct Context {
    /// Name that the program was started under, for its messages.
    pub program: &'static str,
    host: Host,
    /// Nobody chose the daemon: one is started when none runs.
    may_start: bool,
}

impl Context {
    /// Finds the daemon: a flag, the environment, or the default.
    pub fn new(arguments: &[OsString], matches: &ArgMatches) -> Outcome<Self> {
        let program = grammar::program(arguments);
        let docker = program == "docker";
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let chosen = flags::text(matches, "host")
            .map(str::to_owned)
            .or_else(|| environment("BERTH_HOST"))
            .or_else(|| environment("DOCKER_HOST"));
        let default = if docker { DOCKER_SOCKET } else { BERTH_SOCKET };
        let host = match &chosen {
            Some(text) => Host::parse(text).map_err(|error| Failure::with_code(125, error.to_string()))?,
            None => Host::Unix(default.into()),
        };
        let host = match tls::files(matches) {
            Some(files) => host.with_tls(files),
            None => host,
        };
        Ok(Self { program, host, may_start: chosen.is_none() && !docker })
    }

    /// Connects to the daemon, and starts one if none runs and nobody asked for a particular one.
    pub async fn client(&self) -> Outcome<Client> {
        match Client::connect(&self.host).await {
            Err(error) if self.may_start && on_demand::is_absent(&error) => {
                on_demand::start(&self.host).await
            }
            outcome => Ok(outcome?),
        }
    }

    /// Connects again after the daemon went away.
    pub async fn reconnect(&self) -> Result<Client, berth_client::Error> {
        Client::connect(&self.host).await
    }
}
