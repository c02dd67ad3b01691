//! `cp`: files into and out of containers, by Docker's rules for what becomes of which name.

mod local;
mod progress;
mod resource;

use std::io::{self, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_api::container::PathStat;
use berth_archive::copy::path;
use berth_client::{Client, Query, ResponseBody, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, given, on, switch};
use crate::session::terminal;
use local::Source;
use progress::Progress;
use resource::{Prepared, Resource, prepare};

const STAT: &str = "x-docker-container-path-stat";

/// The command.
pub fn command() -> Command {
    Command::new("cp").about("Copies files between a container and this machine").defer(|command| {
        command
            .arg(switch("archive").short('a').help("Give the files to the container's user and group"))
            .arg(switch("follow-link").short('L').help("Copy what a symbolic link leads to"))
            .arg(
                switch("quiet")
                    .short('q')
                    .help("Do not show progress, which is shown only on a terminal anyway"),
            )
            .arg(flags::operand("source").help("CONTAINER:PATH, PATH, or - for a tar on standard input"))
            .arg(
                flags::operand("destination").help("CONTAINER:PATH, PATH, or - for a tar on standard output"),
            )
    })
}

/// What was asked for.
struct Wanted {
    container: String,
    source: Vec<u8>,
    destination: Vec<u8>,
    follow: bool,
    own: bool,
    quiet: bool,
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let source = flags::text(matches, "source").unwrap_or_default();
    let destination = flags::text(matches, "destination").unwrap_or_default();
    if source.is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if destination.is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    let (from, source) = split(source);
    let (to, destination) = split(destination);
    let wanted = Wanted {
        container: from.or(to).unwrap_or_default().to_owned(),
        source: source.as_bytes().to_vec(),
        destination: destination.as_bytes().to_vec(),
        follow: on(matches, "follow-link"),
        own: on(matches, "archive"),
        quiet: if given(matches, "quiet") { on(matches, "quiet") } else { !terminal::is_output() },
    };
    match (from, to) {
        (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")),
        (None, None) => Err(Failure::new("must specify at least one container source")),
        (Some(_), None) => wanted.outward(context).await,
        (None, Some(_)) => wanted.inward(context).await,
    }
}

/// A container and its path, or a path of this machine, which a slash or a dot at its beginning makes plain.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((container, path)) if !container.is_empty() && !argument.starts_with(['/', '.']) => {
            (Some(container), path)
        }
        // As in Docker, nothing before the colon is no container either.
        Some(("", path)) => (None, path),
        _ => (None, argument),
    }
}

impl Wanted {
    fn request(&self) -> String {
        format!("/containers/{}/archive", segment(&self.container))
    }

    fn at(&self, path: &[u8]) -> Query {
        Query::new().set("path", &String::from_utf8_lossy(path))
    }

    async fn look(&self, client: &Client, path: &[u8]) -> Outcome<PathStat> {
        decode(&client.head(&self.at(path).on(&self.request()), STAT).await?)
    }

    async fn outward(&self, context: &Context) -> Outcome {
        let piped = self.destination == b"-";
        let to = if piped { Vec::new() } else { absolute(&self.destination)? };
        if !piped {
            local::check_output(&to)?;
        }
        let client = context.client().await?;
        let (mut source, mut rebased) = (self.source.clone(), Vec::new());
        if self.follow
            && let Ok(stat) = self.look(&client, &source).await
            && stat.is_symlink()
        {
            let target = beside(&source, stat.link_target.as_bytes());
            (source, rebased) = resource::rebased(&self.source, target);
        }
        let archive = client.get_stream(&self.at(&source).on(&self.request())).await?;
        let stat = decode(&archive.header(STAT))?;
        if piped {
            return to_output(archive).await;
        }
        let from = Resource { path: source, exists: true, directory: stat.is_directory(), name: rebased };
        let progress = Progress::start("Copying from container - ", self.quiet);
        let outcome = local::unpack(archive, &from, &to, &progress).await;
        let moved = progress.end();
        let size = if stat.is_directory() { moved } else { stat.size };
        progress.summary(size, &String::from_utf8_lossy(&to));
        outcome
    }

    async fn inward(&self, context: &Context) -> Outcome {
        let piped = self.source == b"-";
        let source = if piped { Vec::new() } else { absolute(&self.source)? };
        let client = context.client().await?;
        let to = self.target(&client).await?;
        let (content, directory, size) = if piped {
            if !to.directory {
                let path = String::from_utf8_lossy(&self.destination);
                let message = format!("destination \"{}:{path}\" must be a directory", self.container);
                return Err(Failure::new(message));
            }
            (Source::Input, to.path.clone(), None)
        } else {
            let from = local::source(&source, self.follow)?;
            let size = local::content_size(&from.path);
            let Prepared { directory, name } = prepare(&from, &to)?;
            let base = path::split_entry(&from.path).1;
            let own = if from.name.is_empty() { base } else { from.name.clone() };
            let name = name.map_or(own, |rename| rename.to);
            (Source::Tree { path: from.path, name }, directory, size)
        };
        let query = self.at(&directory).set("noOverwriteDirNonDir", "true");
        let query = if self.own { query.set("copyUIDGID", "true") } else { query };
        let progress = Progress::start("Copying to container - ", self.quiet);
        let sent = content.send(&client, &query.on(&self.request()), &progress).await;
        let moved = progress.end();
        let place = format!("{}:{}", self.container, String::from_utf8_lossy(&to.path));
        progress.summary(size.unwrap_or(moved), &place);
        sent
    }

    /// What the destination is. If that cannot be told, the daemon will say what is wrong with it.
    async fn target(&self, client: &Client) -> Outcome<Resource> {
        let mut to = Resource { path: self.destination.clone(), ..Resource::default() };
        let Ok(mut stat) = self.look(client, &to.path).await else { return Ok(to) };
        if stat.is_symlink() {
            to.path = beside(&self.destination, stat.link_target.as_bytes());
            match self.look(client, &to.path).await {
                Ok(target) => stat = target,
                Err(_) => return Ok(to),
            }
        }
        if stat.is_device() {
            let path = String::from_utf8_lossy(&self.destination);
            return Err(Failure::new(format!(
                "destination \"{}:{path}\" must be a directory or a regular file: got a device",
                self.container
            )));
        }
        (to.exists, to.directory) = (true, stat.is_directory());
        Ok(to)
    }
}

/// Where a link of a container leads.
fn beside(link: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") { target.to_vec() } else { path::join(&path::split_entry(link).0, target) }
}

fn decode(header: &str) -> Outcome<PathStat> {
    let failed = |why: String| Failure::new(format!("unable to decode container path stat header: {why}"));
    let json = STANDARD.decode(header).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| failed(error.to_string()))
}

/// A path of this machine, with the trailing slash or dot that it was given.
fn absolute(given: &[u8]) -> Outcome<Vec<u8>> {
    if given.starts_with(b"/") {
        return Ok(path::preserved(path::absolute(given), given));
    }
    let here = std::env::current_dir()?.into_os_string().into_vec();
    Ok(path::preserved(path::join(&here, given), given))
}

/// A byte path as one of the system's.
fn native(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

async fn to_output(mut archive: ResponseBody) -> Outcome {
    let mut out = io::stdout().lock();
    while let Some(chunk) = archive.chunk().await? {
        out.write_all(&chunk).map_err(|error| Failure::io("write to standard output", &error))?;
    }
    out.flush().map_err(|error| Failure::io("write to standard output", &error))
}

/// Standard input, read by a thread.
fn input() -> Box<dyn Read + Send> {
    Box::new(io::stdin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_paths_are_told_apart() {
        assert_eq!(split("c:/etc"), (Some("c"), "/etc"));
        assert_eq!(split("c:rel:x"), (Some("c"), "rel:x"));
        assert_eq!(split("c:"), (Some("c"), ""));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("plain"), (None, "plain"));
        assert_eq!(split(":x"), (None, "x"));
        assert_eq!(split("-"), (None, "-"));
    }

    #[test]
    fn links_lead_from_where_they_are() {
        assert_eq!(beside(b"/a/link", b"../b"), b"/b");
        assert_eq!(beside(b"link", b"/b"), b"/b");
    }
}
