//! `manifest inspect`.

use berth_oci::Reference;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use super::entry::{self, Entry, Listed};
use super::push::check_registry;
use super::reference;
use super::remote::{self, Found};
use super::store::{self, Store};
use crate::container::laid_out;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("inspect").about("Shows the manifest of an image, or a manifest list").defer(|command| {
        command
            .arg(
                switch("insecure")
                    .help("Allow a registry without TLS, or with a certificate that is not trusted"),
            )
            .arg(switch("verbose").short('v').help("Also show the platform and the layers of each image"))
            .arg(Arg::new("manifest").required(true).num_args(1..=2).value_name("[MANIFEST_LIST] MANIFEST"))
    })
}

/// Runs it.
pub async fn run(context: &Context, store: &Store, matches: &ArgMatches) -> Outcome {
    let verbose = on(matches, "verbose");
    let names = flags::list(matches, "manifest");
    if let [list, image] = names.as_slice() {
        let (list, image) = (reference(list)?, reference(image)?);
        let found = store.get(&list, &image)?.ok_or_else(|| store::none(&image))?;
        return show(&found, verbose);
    }
    let name = reference(names.first().map_or("", String::as_str))?;
    if let Ok(Some(entries)) = store.list(&name) {
        if verbose {
            return document(&entries);
        }
        for entry in &entries {
            check_registry(entry, &name)?;
        }
        return show_list(&entries.into_iter().map(|entry| entry.descriptor).collect::<Vec<_>>());
    }
    let client = remote::client(context, &name, on(matches, "insecure")).await;
    match remote::look(&client, &name).await? {
        Found::Image(entry) => show(&entry, verbose),
        Found::List(list) if verbose => document(&remote::images(&client, &name, &list).await?),
        Found::List(list) => show_list(&list),
    }
}

fn show(entry: &Entry, verbose: bool) -> Outcome {
    if verbose {
        return document(entry);
    }
    outln!("{}", laid_out(entry.json()?, Some("\t")));
    Ok(())
}

fn show_list(entries: &[Listed]) -> Outcome {
    outln!("{}", entry::list(entries)?.1);
    Ok(())
}

fn document<T: Serialize>(value: &T) -> Outcome {
    let text = serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
    outln!("{}", laid_out(&text, Some("\t")));
    Ok(())
}

/// The image's name, which is kept in full.
pub fn named(entry: &Entry) -> Outcome<Reference> {
    entry.name.parse().map_err(|error| Failure::new(format!("{}: {error}", entry.name)))
}
