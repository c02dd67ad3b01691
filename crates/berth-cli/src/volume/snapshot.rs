//! `volume snapshot`. Beyond Docker.

use berth_api::volume::Volume;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("snapshot").about("Makes a volume that shares the files of another, as they are now").defer(
        |command| {
            command
                .arg(switch("no-pause").help("Do not freeze containers that have it meanwhile"))
                .arg(flags::operand("volume"))
                .arg(flags::operand("new_name"))
        },
    )
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let (old, new) = (flags::or_empty(matches, "volume"), flags::or_empty(matches, "new_name"));
    let query = Query::new().set("name", &new).set("pause", if on(matches, "no-pause") { "0" } else { "1" });
    let path = query.on(&format!("/volumes/{}/snapshot", segment(&old)));
    let made: Volume = context.client().await?.post_for_stream(&path).await?.json().await?;
    outln!("{}", made.name);
    Ok(())
}
