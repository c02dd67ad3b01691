//! `manifest push`.

use berth_oci::Reference;
use berth_registry::{Client, Mount};
use clap::{ArgMatches, Command};

use super::entry::{self, Entry, Listed};
use super::inspect::named;
use super::store::{self, Store};
use super::{reference, remote};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("push").about("Puts a manifest list into its registry").defer(|command| {
        command
            .arg(
                switch("insecure")
                    .help("Allow a registry without TLS, or with a certificate that is not trusted"),
            )
            .arg(switch("purge").short('p').help("Remove the list here afterwards"))
            .arg(flags::operand("list").value_name("MANIFEST_LIST"))
    })
}

/// Runs it.
pub async fn run(context: &Context, store: &Store, matches: &ArgMatches) -> Outcome {
    let target = reference(flags::text(matches, "list").unwrap_or_default())?;
    let entries = store.list(&target)?.ok_or_else(|| store::none(&target))?;
    if entries.is_empty() {
        return Err(Failure::new(format!("{} not found", target.canonical())));
    }
    // What is wrong here is told before anything is sent.
    let mut elsewhere = Vec::new();
    for entry in &entries {
        check_platform(entry)?;
        check_registry(entry, &target)?;
        let name = named(entry)?;
        if name.path() != target.path() {
            elsewhere.push((entry, name, entry.bytes()?));
        }
    }
    let client = remote::client(context, &target, on(matches, "insecure")).await;
    for (entry, from, _) in &elsewhere {
        mount(&client, &target, entry, from).await?;
    }
    for (entry, _, bytes) in elsewhere {
        let at = target.at(entry.descriptor.digest.clone());
        let put = client.put_manifest(&at, &entry.descriptor.media_type, bytes).await;
        let digest = put.map_err(|error| remote::failure(&at, &error))?;
        outln!("Pushed ref {} with digest: {digest}", at.canonical());
    }
    let listed: Vec<Listed> = entries.into_iter().map(|entry| entry.descriptor).collect();
    let (media_type, text) = entry::list(&listed)?;
    let put = client.put_manifest(&target, media_type, text.into_bytes()).await;
    outln!("{}", put.map_err(|error| remote::failure(&target, &error))?);
    if on(matches, "purge") {
        store.remove(&target)?;
    }
    Ok(())
}

fn check_platform(entry: &Entry) -> Outcome {
    let platform = entry.descriptor.platform.as_ref();
    if platform.is_some_and(|platform| !platform.os.is_empty() && !platform.architecture.is_empty()) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "manifest {} must have an OS and Architecture to be pushed to a registry",
        entry.name
    )))
}

/// Refuses a list of images of another registry: nothing is copied between registries.
pub fn check_registry(entry: &Entry, target: &Reference) -> Outcome {
    let name = named(entry)?;
    if name.domain() == target.domain() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "cannot use source images from a different registry than the target image: {} != {}",
        name.domain(),
        target.domain()
    )))
}

/// Has the target's repository take an image's blobs from the image's own.
async fn mount(client: &Client, target: &Reference, entry: &Entry, from: &Reference) -> Outcome {
    let manifest = entry.manifest()?;
    let is_windows = entry.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "windows");
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let mounted = client.mount(target, &blob.digest, from.path()).await;
        match mounted.map_err(|error| remote::failure(target, &error))? {
            Mount::Mounted => {}
            // Layers of Windows may be nowhere but at their maker's.
            Mount::Begun(_) if is_windows => {}
            Mount::Begun(_) => {
                return Err(Failure::new(format!(
                    "error mounting {}@{} to {}",
                    from.path(),
                    blob.digest,
                    target.canonical()
                )));
            }
        }
    }
    Ok(())
}
