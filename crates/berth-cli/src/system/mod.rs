//! Commands about the daemon.

mod dial;
mod events;
mod info;
mod prune;
pub mod usage;
mod version;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;

/// Commands about the daemon that need no group's name before them.
pub fn commands() -> Vec<Command> {
    vec![version::command(), info::command(), events::command()]
}

/// Those of them in the group `system`.
pub fn group_commands() -> Vec<Command> {
    vec![info::command(), events::command(), prune::command(), usage::command(), dial::command()]
}

/// Whether a command without a group is about the daemon.
pub fn has(name: &str) -> bool {
    matches!(name, "version" | "info" | "events")
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "version" => version::run(context, matches).await,
        "dial-stdio" => dial::run(context).await,
        "df" => usage::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        "info" => info::run(context, matches).await,
        _ => events::run(context, matches).await,
    }
}
