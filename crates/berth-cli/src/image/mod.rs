//! Commands about images.

mod history;
mod import;
mod list;
mod load;
mod progress;
mod prune;
pub mod pull;
mod remove;
mod save;
mod tag;

use clap::{ArgMatches, Command};

use crate::container;
use crate::context::Context;
use crate::failure::Outcome;

/// Commands about images that need no group's name before them.
pub fn commands() -> Vec<Command> {
    vec![
        list::command().name("images"),
        pull::command(),
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
    let inspect = Command::new("inspect").about("Shows all there is to know about images");
    vec![
        list::command().name("ls").alias("list"),
        pull::command(),
        load::command(),
        import::command(),
        save::command(),
        remove::command().name("rm").aliases(["remove", "rmi"]),
        tag::command(),
        history::command(),
        prune::command(),
        inspect
            .arg(crate::flags::one("format", "TEMPLATE").short('f').help("Show by a Go template, or json"))
            .arg(crate::flags::operands("name")),
    ]
}

/// Whether a command without a group is about images.
pub fn has(name: &str) -> bool {
    matches!(name, "images" | "pull" | "load" | "import" | "save" | "rmi" | "tag" | "history")
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
        "pull" => pull::run(context, matches).await,
        "load" => load::run(context, matches).await,
        "import" => import::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        "save" => save::run(context, matches).await,
        "rmi" => remove::run(context, matches).await,
        "tag" => tag::run(context, matches).await,
        "history" => history::run(context, matches).await,
        _ => container::inspect_image(context, matches).await,
    }
}
