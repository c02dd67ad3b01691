//! `volume export`. Beyond Docker.

use berth_client::segment;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, one};
use crate::place::Place;

/// The command.
pub fn command() -> Command {
    Command::new("export").about("Writes all files of a volume as a tar archive").defer(|command| {
        command
            .arg(one("output", "FILE").short('o').help("Write to a file (standard output)"))
            .arg(flags::operand("volume"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let place = Place::choose(flags::text(matches, "output"), "failed to export volume")?;
    let name = flags::or_empty(matches, "volume");
    let path = format!("/volumes/{}/archive", segment(&name));
    let archive = context.client().await?.get_stream(&path).await?;
    place.write(archive).await
}
