//! Commands about volumes.

mod create;
mod export;
mod import;
mod list;
mod prune;
mod remove;
mod rename;
mod snapshot;
mod update;

use clap::{ArgMatches, Command};

use crate::container;
use crate::context::Context;
use crate::failure::Outcome;

/// The commands of the group `volume`.
pub fn group_commands() -> Vec<Command> {
    vec![
        create::command(),
        export::command(),
        import::command(),
        container::inspect_command_of_volumes(),
        list::command(),
        prune::command(),
        remove::command(),
        rename::command(),
        snapshot::command(),
        update::command(),
    ]
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "create" => create::run(context, matches).await,
        "export" => export::run(context, matches).await,
        "import" => import::run(context, matches).await,
        "ls" => list::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        "rm" => remove::run(context, matches).await,
        "rename" => rename::run(context, matches).await,
        "snapshot" => snapshot::run(context, matches).await,
        "update" => update::run(context, matches).await,
        _ => container::inspect_volume(context, matches).await,
    }
}
