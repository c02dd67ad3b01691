//! `load`.

use std::fs::File;
use std::io::{self, Read};

use berth_client::Query;
use bytes::Bytes;
use clap::{ArgMatches, Command};
use tokio::sync::mpsc;

use super::platform;
use super::progress::{self, To};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};
use crate::session::terminal;

/// Bytes read at once. The allocator keeps buffers of this size; larger ones are made of new pages each time.
const PART: usize = 24 << 10;
/// Parts that may wait for the connection.
const QUEUE: usize = 32;

/// The command.
pub fn command() -> Command {
    Command::new("load")
        .about("Loads images from an archive: what docker save writes, or an OCI layout")
        .defer(|command| {
            command
                .arg(one("input", "FILE").short('i').help("Read a file instead of standard input"))
                .arg(many("platform", "OS/ARCH").help("Load only these platforms (all in the archive)"))
                .arg(switch("quiet").short('q').help("Do not show progress"))
        })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let input: Box<dyn Read + Send> = match flags::text(matches, "input") {
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::io(format!("open {path}"), &error))?;
            if file.metadata().is_ok_and(|meta| meta.is_dir()) {
                return Err(Failure::new(format!("read {path}: is a directory")));
            }
            Box::new(file)
        }
        None if terminal::is_input() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        None => Box::new(io::stdin()),
    };
    let mut query = Query::new().flag("quiet", on(matches, "quiet"));
    for platform in platform::all(matches)? {
        query = query.set("platform", &platform);
    }
    let client = context.client().await?;
    let path = query.on("/images/load");
    let body = client.post_stream(&path, "application/x-tar", parts(input)).await?;
    progress::show(body, To::Stdout).await
}

/// The parts of a file, read by a thread.
pub(crate) fn parts(
    mut input: Box<dyn Read + Send>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0; PART];
            let part = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    buffer.truncate(count);
                    Ok(Bytes::from(buffer))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = part.is_err();
            if sender.blocking_send(part).is_err() || failed {
                return;
            }
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    })
}
