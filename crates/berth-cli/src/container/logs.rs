//! `logs`.

use berth_api::container::Inspect;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, on, one, switch};
use crate::session::streams;

/// The command.
pub fn command() -> Command {
    Command::new("logs").about("Shows what a container has written").defer(|command| {
        command
            .arg(switch("details").help("Show the attributes that the log driver was asked for"))
            .arg(switch("follow").short('f').help("Go on with what it writes from now on"))
            .arg(one("since", "TIME").help("Nothing older: a time, or a duration such as 42m"))
            .arg(one("until", "TIME").help("Nothing newer"))
            .arg(
                one("tail", "NUMBER").short('n').default_value("all").help("Only that many lines of the end"),
            )
            .arg(switch("timestamps").short('t').help("Show when each line was written"))
            .arg(flags::operand("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let (since, until) = (flags::moment(matches, "since")?, flags::moment(matches, "until")?);
    let client = context.client().await?;
    let found: Inspect = client.get(&format!("/containers/{}/json", segment(name))).await?;
    let path = Query::new()
        .flag("stdout", true)
        .flag("stderr", true)
        .flag("follow", on(matches, "follow"))
        .flag("timestamps", on(matches, "timestamps"))
        .flag("details", on(matches, "details"))
        .set_some("since", since.as_deref())
        .set_some("until", until.as_deref())
        .set_some("tail", flags::text(matches, "tail"))
        .on(&format!("/containers/{}/logs", segment(&found.id)));
    let body = client.get_stream(&path).await?;
    streams::show(body, !found.config.tty).await
}
