//! Commands about networks.

mod connect;
mod create;
mod list;
mod prune;
mod remove;
mod subnets;

use clap::{ArgMatches, Command};

use crate::container;
use crate::context::Context;
use crate::failure::Outcome;

/// The commands of the group `network`.
pub fn group_commands() -> Vec<Command> {
    vec![
        create::command(),
        list::command(),
        container::inspect_command_of_networks(),
        connect::command(),
        connect::command_of_disconnect(),
        remove::command(),
        prune::command(),
    ]
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "create" => create::run(context, matches).await,
        "ls" => list::run(context, matches).await,
        "connect" => connect::run(context, matches).await,
        "disconnect" => connect::disconnect(context, matches).await,
        "rm" => remove::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        _ => container::inspect_network(context, matches).await,
    }
}
