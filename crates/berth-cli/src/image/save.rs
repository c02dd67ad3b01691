//! `save`.

use berth_client::Query;
use clap::{ArgMatches, Command};

use super::platform;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, many, one};
use crate::place::Place;

/// The command.
pub fn command() -> Command {
    Command::new("save")
        .about("Writes images as an archive that docker load takes and that is an OCI layout")
        .defer(|command| {
            command
                .arg(one("output", "FILE").short('o').help("Write to a file (standard output)"))
                .arg(
                    many("platform", "OS/ARCH")
                        .help("Save only these platforms of the images (all that are kept)"),
                )
                .arg(flags::operands("image"))
        })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let place = Place::choose(flags::text(matches, "output"), "failed to save image")?;
    let mut query = Query::new();
    for platform in platform::all(matches)? {
        query = query.set("platform", &platform);
    }
    for image in flags::list(matches, "image") {
        query = query.set("names", &image);
    }
    let archive = context.client().await?.get_stream(&query.on("/images/get")).await?;
    place.write(archive).await
}
