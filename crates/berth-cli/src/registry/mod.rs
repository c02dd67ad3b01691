//! Commands about accounts of registries.

mod login;
mod logout;
mod prompt;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;

/// The commands.
pub fn commands() -> Vec<Command> {
    vec![login::command(), logout::command()]
}

/// Whether a command is about accounts.
pub fn has(name: &str) -> bool {
    matches!(name, "login" | "logout")
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "login" => login::run(context, matches).await,
        _ => logout::run(context, matches).await,
    }
}
