//! `top`.

use berth_api::container::TopResponse;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags;
use crate::format::table;

/// Least width of a column, as Docker's.
const LEAST: usize = 20;

/// The command.
pub fn command() -> Command {
    Command::new("top").about("Shows the processes of a container, as the host sees them").defer(|command| {
        command
            .arg(flags::operand("container"))
            .arg(flags::command(false).value_name("ps OPTIONS").help("Options of ps"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let options = flags::list(matches, "command").join(" ");
    let options = Some(options.as_str()).filter(|options| !options.is_empty());
    let path = Query::new().set_some("ps_args", options).on(&format!("/containers/{}/top", segment(name)));
    let client = context.client().await?;
    let found: TopResponse = client.get(&path).await?;
    let rows: Vec<String> =
        [&found.titles].into_iter().chain(&found.processes).map(|row| row.join("\t")).collect();
    out!("{}", table::align_to(&rows, LEAST));
    Ok(())
}
