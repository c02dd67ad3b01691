//! Commands about registries and accounts there.

mod login;
mod logout;
mod prompt;
mod search;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;

/// The commands.
pub fn commands() -> Vec<Command> {
    vec![login::command(), logout::command(), search::command()]
}

/// Whether a command is about registries.
pub fn has(name: &str) -> bool {
    matches!(name, "login" | "logout" | "search")
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "login" => login::run(context, matches).await,
        "search" => search::run(context, matches).await,
        _ => logout::run(context, matches).await,
    }
}
