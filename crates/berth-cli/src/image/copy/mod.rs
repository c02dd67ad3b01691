//! `image copy`: from a registry or archive to another, without a daemon and without unpacking anything.
//!
//! Documents and blobs stay byte for byte what they were, so digests do, too. What a copy that was interrupted has brought
//! over is not brought again.

mod archive;
mod document;
mod files;
mod layout;
mod place;
mod sink;
mod source;
mod transfer;

use berth_oci::Platform;
use berth_registry::{Client, Credentials, Proxies, RegistryConfig};
use clap::{ArgMatches, Command};

use super::progress::To;
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};

use place::Place;
use sink::Sink;
use source::Source;
use transfer::Transfer;

/// The command.
pub fn command() -> Command {
    Command::new("copy").about("Copies an image between registries and archives, without a daemon").defer(
        |command| {
            command
                .arg(switch("all-platforms").help("Copy an index with all that it lists, as it is"))
                .arg(
                    many("insecure-registry", "REGISTRY")
                        .help("Registry that may do without TLS: HOST[:PORT] or a network (repeatable)"),
                )
                .arg(
                    one("platform", "OS/ARCH")
                        .help("Platform to copy of an index; this machine's if none is named"),
                )
                .arg(switch("quiet").short('q').help("Print only the digest"))
                .arg(flags::operand("source").value_name("SOURCE").help(place::HELP))
                .arg(
                    flags::operand("destination")
                        .value_name("DESTINATION")
                        .help("The same; a name needs a tag"),
                )
        },
    )
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let place = |name| flags::text(matches, name).unwrap_or_default().parse::<Place>().map_err(Failure::new);
    let (from, to) = (place("source")?, place("destination")?);
    let all = on(matches, "all-platforms");
    let platform = flags::platform(matches);
    if all && platform.is_some() {
        return Err(Failure::new("conflicting options: --all-platforms and --platform"));
    }
    let platform = platform.map(|text| text.parse::<Platform>()).transpose();
    let platform = platform.map_err(|error| Failure::new(error.to_string()))?;
    let config = RegistryConfig {
        insecure: flags::list(matches, "insecure-registry"),
        proxies: Proxies::from_environment(),
        ..RegistryConfig::default()
    };
    let quiet = on(matches, "quiet");
    let screen = transfer::Screen::new(if quiet { To::Nowhere } else { To::Stdout });
    let client = Client::new(config);
    let client = client.telling({
        let screen = screen.clone();
        move |pause| screen.line(&pause.to_string())
    });
    let source = Source::open(&from, with_account(context, &client, &from).await).await?;
    let sink = Sink::open(&to, with_account(context, &client, &to).await, &from).await?;
    let platform = if all { None } else { Some(platform.unwrap_or_else(Platform::host)) };
    let mut transfer = Transfer { source, sink, screen: screen.clone() };
    let outcome = transfer.run(platform).await;
    screen.end();
    let copied = outcome?;
    if quiet {
        outln!("{}", copied.digest);
    } else {
        outln!("{to}: digest: {} size: {}", copied.digest, copied.size);
    }
    Ok(())
}

/// The client with what the user has for the registry of a place.
async fn with_account(context: &Context, client: &Client, place: &Place) -> Client {
    let Place::Registry(reference) = place else { return client.clone() };
    let found = credentials::find(&context.config, credentials::address(reference.domain())).await;
    let account = if !found.registrytoken.is_empty() {
        Credentials::Token(found.registrytoken)
    } else if !found.identitytoken.is_empty() {
        Credentials::Identity(found.identitytoken)
    } else if !found.username.is_empty() {
        Credentials::Password { user: found.username, password: found.password }
    } else {
        return client.clone();
    };
    client.with_credentials(reference.domain(), account)
}
