//! `push`.

use std::collections::BTreeSet;

use berth_api::image::Inspect;
use berth_client::{Client, Query, segment};
use berth_oci::Reference;
use clap::{ArgMatches, Command};

use super::platform;
use super::progress::{self, To};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, one, switch};

/// The command.
pub fn command() -> Command {
    Command::new("push").about("Brings an image to a registry").defer(|command| {
        command
            .arg(switch("all-tags").short('a').help("Push all tags of the repository"))
            .arg(switch("disable-content-trust").hide(true))
            .arg(
                one("platform", "OS/ARCH")
                    .help("Push one platform as an image of its own (all, with their index)"),
            )
            .arg(switch("quiet").short('q').help("Print only the image's name"))
            .arg(flags::operand("image"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let (all, quiet) = (on(matches, "all-tags"), on(matches, "quiet"));
    let platform = platform::one(matches)?;
    let image = flags::text(matches, "image").unwrap_or_default();
    let given: Reference = image
        .parse()
        .map_err(|error: berth_oci::reference::ReferenceError| Failure::new(error.to_string()))?;
    let is_bare = given.tag().is_none() && given.digest().is_none();
    if all && !is_bare {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if given.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    let reference = if all { given } else { given.with_default_tag() };
    if !all && is_bare && !quiet {
        outln!("Using default tag: latest");
    }
    send(context, &reference, platform.as_deref(), if quiet { To::Nowhere } else { To::Stdout }).await?;
    if quiet {
        outln!("{}", reference.canonical());
    }
    Ok(())
}

/// Pushes what a name stands for. Gives the digest by which the registry knows it, if the daemon tells.
///
/// # Errors
/// What the daemon says.
pub async fn by_name(context: &Context, name: &str, to: To) -> Outcome<Option<String>> {
    let reference: Reference = name
        .parse()
        .map_err(|error: berth_oci::reference::ReferenceError| Failure::new(error.to_string()))?;
    let result = send(context, &reference.with_default_tag(), None, to).await?;
    Ok(result.and_then(|aux| aux["Digest"].as_str().map(str::to_owned)))
}

async fn send(
    context: &Context,
    reference: &Reference,
    platform: Option<&str>,
    to: To,
) -> Outcome<Option<serde_json::Value>> {
    let auth = credentials::header(&context.config, reference).await?;
    let client = context.client().await?;
    let path = Query::new()
        .set_some("tag", reference.tag())
        .set_some("platform", platform)
        .on(&format!("/images/{}/push", reference.familiar_repository()));
    // There is always one, as Docker's daemons want it.
    let auth = auth.unwrap_or_else(|| NOTHING.to_owned());
    let sources = credentials::of(&context.config, &sources(&client, reference).await).await;
    let accounts = credentials::encoded(&sources)?;
    let mut headers = vec![("x-registry-auth", auth.as_str())];
    if !sources.is_empty() {
        headers.push(("x-registry-config", accounts.as_str()));
    }
    let body = client.post_for_stream_with_all(&path, &headers).await?;
    progress::show_result(body, to).await
}

/// Other registries that an image is known to be in: what the daemon does not keep any more of its layers, it can have
/// from there.
async fn sources(client: &Client, reference: &Reference) -> BTreeSet<String> {
    let path = format!("/images/{}/json", segment(&reference.familiar()));
    // What cannot be pushed is told by the push itself.
    let image: Inspect = client.get(&path).await.unwrap_or_default();
    let names = image.repo_digests.iter().filter_map(|name| name.parse::<Reference>().ok());
    let domains = names.map(|name| name.domain().to_owned());
    domains.filter(|domain| domain != reference.domain()).collect()
}

/// `{}` as the header has it.
const NOTHING: &str = "e30=";
