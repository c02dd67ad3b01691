//! `volume rename`. Beyond Docker.

use berth_api::volume::Volume;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags;

/// The command.
pub fn command() -> Command {
    Command::new("rename")
        .about("Gives a volume that no container has another name")
        .defer(|command| command.arg(flags::operand("volume")).arg(flags::operand("new_name")))
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let (old, new) = (flags::or_empty(matches, "volume"), flags::or_empty(matches, "new_name"));
    let path = Query::new().set("name", &new).on(&format!("/volumes/{}/rename", segment(&old)));
    let renamed = context.client().await?.post_for_stream(&path).await?;
    let _: Volume = renamed.json().await?;
    Ok(())
}
