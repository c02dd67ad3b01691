//! `volume rm`.

use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failures, Outcome};
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("rm").alias("remove").about("Removes volumes that no container has").defer(|command| {
        command
            .arg(switch("force").short('f').help("That there is none is no error"))
            .arg(flags::operands("volume"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client().await?;
    let mut failures = Failures::default();
    for name in flags::list(matches, "volume") {
        let path =
            Query::new().flag("force", on(matches, "force")).on(&format!("/volumes/{}", segment(&name)));
        match client.delete(&path).await {
            Ok(_) => outln!("{name}"),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
