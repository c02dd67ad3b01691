//! `build`: an image from a Dockerfile, made by the daemon.

mod arguments;
mod context;
mod offer;
mod output;
mod send;

use std::fs;
use std::io;
use std::path::Path;

use berth_client::Client;
use clap::{ArgMatches, Command};

use crate::container::proxies;
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on};

use context::Source;
use offer::Keys;
use output::Style;
use send::Manner;

/// The command.
pub fn command() -> Command {
    Command::new("build").about("Builds an image from a Dockerfile").defer(|command| {
        command.args(arguments::flags()).arg(flags::operand("context").value_name("PATH | URL | -").help(
            "A directory, an address (http, https, Git), or - for a tar or a Dockerfile from standard input",
        ))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let id_file = flags::text(matches, "iidfile").filter(|path| !path.is_empty()).map(Path::new);
    if let Some(path) = id_file {
        // A build that fails leaves no old ID behind.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::io("Removing image ID file", &error));
            }
            _ => {}
        }
    }
    let given = flags::text(matches, "context").unwrap_or_default();
    let file = flags::text(matches, "file").unwrap_or_default();
    let source = context::find(given, file)?;
    let client = context.client().await?;
    let variables = proxies::variables(&context.config.settings, client.host());
    let mut query = arguments::query(matches, variables)?;
    query = match source.dockerfile() {
        "" => query,
        name => query.set("dockerfile", name),
    };
    if let Source::Remote { address, .. } = &source {
        query = query.set("remote", address);
    }
    let query = query.set("version", "1");
    let accounts = credentials::all(&context.config).await?;
    let style = Style::of(matches)?;
    let manner = Manner { compress: on(matches, "compress"), style };
    let keys = Keys::of(matches)?;
    let build = if by_session(&client, &source, &keys, manner).await? {
        send::by_session(&client, query, source, keys, &accounts, manner).await?
    } else {
        send::send(&client, &query.on("/build"), source, &accounts, manner).await?
    };
    let id = output::show(build, style).await?;
    if let Some(path) = id_file {
        if id.is_empty() {
            return Err(Failure::new(format!(
                "Server did not provide an image ID. Cannot write {}",
                path.display()
            )));
        }
        fs::write(path, &id).map_err(|error| Failure::io(format!("open {}", path.display()), &error))?;
    }
    Ok(())
}

/// Whether the daemon is offered a session: for keys always, for a directory if daemon and user do not object.
async fn by_session(client: &Client, source: &Source, keys: &Keys, manner: Manner) -> Outcome<bool> {
    // What is sent compressed is an archive.
    let is_directory = matches!(source, Source::Directory(_)) && !manner.compress;
    if keys.is_empty() && !is_directory {
        return Ok(false);
    }
    // A daemon that does not say so has no such thing; whatever else is wrong shows with the build.
    let takes = client.ping().await.is_ok_and(|ping| ping.client_session);
    match takes || keys.is_empty() {
        true => Ok(takes),
        false => Err(Failure::new("the daemon's builder takes neither secrets nor ssh agents")),
    }
}
