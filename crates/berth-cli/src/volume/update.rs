//! `volume update`, which is for volumes of a swarm alone.

use berth_api::volume::Volume;
use berth_client::segment;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, one};

/// The command.
pub fn command() -> Command {
    Command::new("update").about("Changes a volume of a swarm").defer(|command| {
        command
            .arg(one("availability", "STATE").default_value("active").help("active, pause or drain"))
            .arg(flags::operand("volume"))
    })
}

/// Runs it: there are none here.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::or_empty(matches, "volume");
    let _: Volume = context.client().await?.get(&format!("/volumes/{}", segment(&name))).await?;
    Err(Failure::new("can only update cluster volumes"))
}
