//! Commands about containers.

mod attach;
mod commit;
mod copy;
mod create;
mod devices;
mod diff;
pub mod environment;
mod exec;
mod exit;
mod export;
mod inspect;
mod join;
mod list;
mod logs;
mod mount;
mod network;
mod options;
mod port;
mod ports;
mod process;
pub mod proxies;
mod prune;
mod remove;
mod request;
mod run;
mod start;
mod stats;
mod top;
mod update;

use clap::{ArgMatches, Command};

pub use commit::new_name as new_image_name;
pub use inspect::KINDS;
pub use request::ulimit;
pub use stats::Figures;

use crate::context::Context;
use crate::failure::Outcome;

/// Commands about containers that need no group's name before them.
pub fn commands() -> Vec<Command> {
    let list = list::command().name("ps").alias("list");
    all(list, inspect::command_of_all())
}

/// The same in the group `container`.
pub fn group_commands() -> Vec<Command> {
    let list = list::command().name("ls").aliases(["ps", "list"]);
    let mut all = all(list, inspect::command());
    all.push(prune::command());
    all
}

fn all(list: Command, inspect: Command) -> Vec<Command> {
    let mut all = vec![
        run::command(),
        create::command(),
        start::command(),
        attach::command(),
        exec::command(),
        logs::command(),
        list,
        inspect,
        top::command(),
        stats::command(),
        update::command(),
        remove::command(),
        diff::command(),
        export::command(),
        port::command(),
        commit::command(),
        copy::command(),
    ];
    all.extend(process::commands());
    all
}

/// Runs one of those in the group `container`.
pub async fn run_of_group(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "inspect" => inspect::of(context, matches, &["container"]).await,
        name => run(context, name, matches).await,
    }
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    match name {
        "run" => run::run(context, matches).await,
        "create" => create::run(context, matches).await,
        "start" => start::run(context, matches).await,
        "attach" => attach::run(context, matches).await,
        "exec" => exec::run(context, matches).await,
        "logs" => logs::run(context, matches).await,
        "ps" | "ls" => list::run(context, matches).await,
        "inspect" => inspect::run(context, matches).await,
        "stats" => stats::run(context, matches).await,
        "top" => top::run(context, matches).await,
        "update" => update::run(context, matches).await,
        "rm" => remove::run(context, matches).await,
        "diff" => diff::run(context, matches).await,
        "export" => export::run(context, matches).await,
        "port" => port::run(context, matches).await,
        "cp" => copy::run(context, matches).await,
        "commit" => commit::run(context, matches).await,
        "prune" => prune::run(context, matches).await,
        name => process::run(context, name, matches).await,
    }
}

pub use inspect::laid_out;

/// The command `image inspect`.
pub fn inspect_command_of_images() -> Command {
    inspect::command_of_images()
}

/// `volume inspect`.
pub fn inspect_command_of_volumes() -> Command {
    inspect::command_of_volumes()
}

/// Runs `volume inspect`.
pub async fn inspect_volume(context: &Context, matches: &ArgMatches) -> Outcome {
    inspect::of(context, matches, &["volume"]).await
}

/// The command `network inspect`.
pub fn inspect_command_of_networks() -> Command {
    inspect::command_of_networks()
}

/// Runs `network inspect`.
pub async fn inspect_network(context: &Context, matches: &ArgMatches) -> Outcome {
    inspect::of(context, matches, &["network"]).await
}

/// Runs `image inspect`.
pub async fn inspect_image(context: &Context, matches: &ArgMatches) -> Outcome {
    inspect::of(context, matches, &["image"]).await
}
