//! Commands about images.

pub mod build;
mod copy;
mod estimate;
mod history;
mod import;
mod layers;
mod list;
mod load;
pub mod platform;
mod progress;
mod prune;
pub mod pull;
mod push;
mod remove;
mod save;
mod tag;
mod tree;

pub(crate) use load::parts;

use clap::{ArgMatches, Command};

use crate::container;
use crate::context::Context;
use crate::failure::Outcome;

/// Commands about images that need no group's name before them.
pub fn commands() -> Vec<Command> {
    vec![
        list::command().name("images"),
        build::command(),
        pull::command(),
        push::command(),
        load::command(),
        import::command(),
        save::command(),
        remove::command().name("rmi"),
        tag::command(),
        history::command(),
    ]
}

/// The same in the group `image`.
pub fn group_commands() -> Vec<Command> {
    vec![
        list::command().name("ls").alias("list"),
        build::command(),
        pull::command(),
        push::command(),
        load::command(),
        import::command(),
        save::command(),
        remove::command().name("rm").aliases(["remove", "rmi"]),
        tag::command(),
        history::command(),
        layers::command(),
        container::inspect_command_of_images(),
        copy::command(),
        prune::command(),
    ]
}

/// Whether a command without a group is about images.
pub fn has(name: &str) -> bool {
    matches!(
        name,
        "images" | "build" | "pull" | "push" | "load" | "import" | "save" | "rmi" | "tag" | "history"
    )
}

/// What a command of the group is called without it.
pub fn of_group(name: &str) -> &str {
    match name {
        "ls" => "images",
        "rm" => "rmi",
        name => name,
    }
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "images" => list::run(context, matches).await,
        "build" => build::run(context, matches).await,
        "pull" => pull::run(context, matches).await,
        "push" => push::run(context, matches).await,
        "load" => load::run(context, matches).await,
        "import" => import::run(context, matches).await,
        "copy" => copy::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        "save" => save::run(context, matches).await,
        "rmi" => remove::run(context, matches).await,
        "tag" => tag::run(context, matches).await,
        "history" => history::run(context, matches).await,
        "layers" => layers::run(context, matches).await,
        _ => container::inspect_image(context, matches).await,
    }
}
