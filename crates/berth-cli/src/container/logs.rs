//! `logs`.

mod follow;

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
    let answer = client.get_stream(&format!("/containers/{}/json", segment(name))).await?;
    let is_berth = answer.header("server").starts_with("Berth/");
    let found: Inspect = answer.json().await?;
    let timestamps = on(matches, "timestamps");
    let query = Query::new()
        .flag("stdout", true)
        .flag("stderr", true)
        .flag("follow", on(matches, "follow"))
        .flag("details", on(matches, "details"))
        .set_some("until", until.as_deref());
    let tail = flags::text(matches, "tail");
    // Other daemons have times within lines, and their containers mostly end with them.
    if on(matches, "follow") && is_berth {
        let wanted = follow::Wanted { found, query, since, tail: tail.map(str::to_owned), timestamps };
        return follow::run(context, client, wanted).await;
    }
    let path = query
        .flag("timestamps", timestamps)
        .set_some("since", since.as_deref())
        .set_some("tail", tail)
        .on(&format!("/containers/{}/logs", segment(&found.id)));
    let body = client.get_stream(&path).await?;
    streams::show(body, !found.config.tty).await
}
