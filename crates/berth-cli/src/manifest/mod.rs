//! Manifest lists: made of images that registries have, kept in `manifests` beside `config.json` as Docker's client
//! keeps them, and put into registries. No daemon takes part.

mod create;
mod entry;
mod inspect;
mod push;
mod remote;
mod store;

use berth_oci::Reference;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags;
use store::Store;

/// The commands.
pub fn group_commands() -> Vec<Command> {
    vec![create::command(), inspect::command(), create::annotate_command(), push::command(), remove_command()]
}

fn remove_command() -> Command {
    Command::new("rm")
        .about("Removes manifest lists that are kept here")
        .defer(|command| command.arg(flags::operands("list").value_name("MANIFEST_LIST")))
}

/// Runs one of them.
pub async fn run(context: &Context, name: &str, matches: &ArgMatches) -> Outcome {
    let store = Store::new(context.config.directory());
    match name {
        "create" => create::create(context, &store, matches).await,
        "annotate" => create::annotate(&store, matches),
        "inspect" => inspect::run(context, &store, matches).await,
        "push" => push::run(context, &store, matches).await,
        _ => remove(&store, matches),
    }
}

fn remove(store: &Store, matches: &ArgMatches) -> Outcome {
    let mut failures = Failures::default();
    for name in flags::list(matches, "list") {
        let outcome = reference(&name).and_then(|list| {
            store.list(&list)?.ok_or_else(|| store::none(&list))?;
            store.remove(&list)
        });
        if let Err(failure) = outcome {
            failures.push(failure);
        }
    }
    failures.finish()
}

/// A name as it is kept: in full, with a tag or a digest.
fn reference(text: &str) -> Outcome<Reference> {
    let parsed: Result<Reference, _> = text.parse();
    parsed.map(Reference::with_default_tag).map_err(|error| Failure::new(error.to_string()))
}
