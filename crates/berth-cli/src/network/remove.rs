//! `network rm`.

use berth_client::segment;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failures, Outcome};
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("rm").alias("remove").about("Removes networks").defer(|command| {
        command
            .arg(switch("force").short('f').help("One that does not exist is no error"))
            .arg(flags::operands("network").value_name("NETWORK"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = context.client().await?;
    let mut failures = Failures::default();
    for name in flags::list(matches, "network") {
        match client.delete(&format!("/networks/{}", segment(&name))).await {
            Ok(_) => outln!("{name}"),
            Err(error) if on(matches, "force") && error.is_not_found() => {}
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
