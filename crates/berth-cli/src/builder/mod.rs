//! Commands about builds and their cache.

mod du;
mod prune;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::image::build;

/// The commands of the group.
pub fn group_commands() -> Vec<Command> {
    vec![build::command(), du::command(), prune::command()]
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "build" => build::run(context, matches).await,
        "du" => du::run(context, matches).await,
        _ => prune::run(context, matches).await,
    }
}
