//! `rm`.

use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failures, Outcome};
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("rm").alias("remove").about("Removes containers").defer(|command| {
        command
            .arg(switch("force").short('f').help("Also those that run: they are killed"))
            .arg(switch("link").short('l').help("Remove a link instead"))
            .arg(switch("volumes").short('v').help("Also their anonymous volumes"))
            .arg(flags::operands("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let force = on(matches, "force");
    let client = context.client().await?;
    let mut failures = Failures::default();
    for name in flags::list(matches, "container") {
        let path = Query::new()
            .flag("force", force)
            .flag("link", on(matches, "link"))
            .flag("v", on(matches, "volumes"))
            .on(&format!("/containers/{}", segment(name.trim_matches('/'))));
        match client.delete(&path).await {
            Ok(_) => outln!("{name}"),
            // What is to be gone is gone.
            Err(error) if force && error.is_not_found() => errln!("{error}"),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
