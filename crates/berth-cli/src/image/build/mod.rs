//! `build`: an image from a Dockerfile, made by the daemon.

mod arguments;
mod caches;
mod context;
mod metadata;
mod named;
mod offer;
mod output;
mod outputs;
mod send;
mod sinks;
mod warnings;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use berth_api::system::Ping;
use clap::{ArgMatches, Command};

use crate::container::proxies;
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, list, on};
use crate::image::progress::To;

use arguments::Extras;
use caches::Caches;
use context::Source;
use offer::{Keys, Offered};
use output::Style;
use outputs::Outputs;
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
    let files = ["iidfile", "metadata-file"].map(|flag| path(matches, flag));
    for path in files.iter().flatten() {
        // A build that fails leaves nothing of an old one behind.
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
    let wanted = Outputs::of(matches)?;
    let to = if wanted.takes_output() { To::Stderr } else { To::Stdout };
    // What is only looked at is not told of while it is sent.
    let style = match Style::of(matches)? {
        Style::Live | Style::Plain if on(matches, "check") => Style::Quiet,
        style => style,
    };
    let manner = Manner { compress: on(matches, "compress"), style, to };
    let client = context.client().await?;
    let ping = client.ping().await.unwrap_or_default();
    let (mut extras, offered) = extras(matches, wanted.names.clone(), &wanted)?;
    is_able(&ping, matches, &extras, &offered)?;
    extras.lint = match (ping.build_extensions.contains("check"), on(matches, "check")) {
        (false, _) => "",
        (true, true) => "only",
        (true, false) => "warn",
    };
    let variables = proxies::variables(&context.config.settings, client.host());
    let mut query = arguments::query(matches, variables, &extras)?;
    query = match source.dockerfile() {
        "" => query,
        name => query.set("dockerfile", name),
    };
    if let Source::Remote { address, .. } = &source {
        query = query.set("remote", address);
    }
    let query = query.set("version", "1");
    let accounts = credentials::all(&context.config).await?;
    // What is sent compressed is an archive; a daemon that says nothing of sessions has none.
    let is_directory = matches!(source, Source::Directory(_)) && !manner.compress;
    let build = if ping.client_session && (is_directory || !offered.is_empty()) {
        send::by_session(&client, query, source, offered, &accounts, manner).await?
    } else {
        send::send(&client, &query.on("/build"), source, &accounts, manner).await?
    };
    let name = if matches!(file, "" | "-") { "Dockerfile" } else { file };
    let built = output::show(build, name, manner).await?;
    if on(matches, "check") {
        return checked(&built.checked.unwrap_or_default(), name);
    }
    let mut digest = None;
    for name in &wanted.pushed {
        let quiet = manner.style == Style::Quiet;
        digest = super::push::by_name(context, name, if quiet { To::Nowhere } else { to }).await?.or(digest);
    }
    let [id_file, metadata_file] = files;
    if let Some(path) = id_file {
        if built.id.is_empty() {
            return Err(Failure::new(format!(
                "Server did not provide an image ID. Cannot write {}",
                path.display()
            )));
        }
        write(path, &built.id)?;
    }
    if let Some(path) = metadata_file {
        write(path, &metadata::text(&built.id, digest.as_deref(), &wanted)?)?;
    }
    if let Some(checked) = built.checked.filter(|_| !matches!(manner.style, Style::Quiet | Style::Raw)) {
        let _ = write!(io::stderr(), "{}", warnings::summary(&checked));
    }
    Ok(())
}

fn path<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a Path> {
    flags::text(matches, flag).filter(|path| !path.is_empty()).map(Path::new)
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| Failure::io(format!("open {}", path.display()), &error))
}

/// What flags ask for beside the image, and what is offered for it.
fn extras(matches: &ArgMatches, names: Vec<String>, wanted: &Outputs) -> Outcome<(Extras, Offered)> {
    let mut offered = Offered { keys: Keys::of(matches)?, ..Offered::default() };
    let mut extras = Extras { names, ..Extras::default() };
    for (stream, sink) in &wanted.streams {
        offered.output(sink.clone());
        extras.outputs.push(stream.clone());
    }
    extras.contexts = named::offer(&list(matches, "build-context"), &mut offered)?;
    extras.caches = Caches::of(&list(matches, "cache-from"), &list(matches, "cache-to"), &mut offered)?;
    Ok((extras, offered))
}

/// Whether the daemon can do what is asked for.
fn is_able(ping: &Ping, matches: &ArgMatches, extras: &Extras, offered: &Offered) -> Outcome {
    if !offered.keys.is_empty() && !ping.client_session {
        return Err(Failure::new("the daemon's builder takes neither secrets nor ssh agents"));
    }
    let caches = &extras.caches;
    let needed = [
        ("check", on(matches, "check"), "--check"),
        ("outputs", !extras.outputs.is_empty(), "--output"),
        ("contexts", !extras.contexts.is_empty(), "--build-context"),
        ("cache", !(caches.sources.is_empty() && caches.targets.is_empty()), "--cache-to and --cache-from"),
    ];
    let missing =
        |(name, _, _): &&(&str, bool, &str)| !ping.build_extensions.split(',').any(|own| own == *name);
    match needed.iter().filter(|(_, needed, _)| *needed).find(missing) {
        Some((_, _, flag)) => Err(Failure::new(format!("the daemon's builder does not know {flag}"))),
        None => Ok(()),
    }
}

/// Shows what is to be said of a Dockerfile. Fails if there is something.
fn checked(checked: &berth_api::build::Checked, file: &str) -> Outcome {
    out!("{}", warnings::report(checked, file));
    match checked.warnings.as_deref().unwrap_or_default() {
        [] => Ok(()),
        _ => Err(Failure::silent(1)),
    }
}
