//! `pull`.

use std::io::IsTerminal as _;

use berth_client::{Client, Query};
use berth_oci::Reference;
use clap::{ArgMatches, Command};

use super::estimate;
use super::progress::{self, To};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, one, switch};

/// The command.
pub fn command() -> Command {
    Command::new("pull").about("Brings an image from a registry").defer(|command| {
        command
            .arg(switch("all-tags").short('a').help("Pull all tags of the repository"))
            .arg(switch("disable-content-trust").hide(true))
            .arg(switch("estimate").help("Only tell what would be downloaded, and whether it fits"))
            .arg(one("platform", "OS/ARCH").help("Platform of the image"))
            .arg(switch("quiet").short('q').help("Print only the image's name"))
            .arg(flags::operand("image").value_name("NAME[:TAG|@DIGEST]"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let image = flags::text(matches, "image").unwrap_or_default();
    let reference = reference(image)?;
    let quiet = on(matches, "quiet");
    let platform = flags::platform(matches);
    let is_bare = reference.tag().is_none() && reference.digest().is_none();
    if on(matches, "all-tags") {
        if !is_bare {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        if on(matches, "estimate") {
            return Err(Failure::new("--estimate can't be used with --all-tags/-a"));
        }
        let client = context.client().await?;
        bring(
            context,
            &client,
            &reference,
            platform.as_deref(),
            if quiet { To::Nowhere } else { To::Stdout },
        )
        .await?;
        outln!("{}", reference.canonical());
        return Ok(());
    }
    if on(matches, "estimate") {
        let client = context.client().await?;
        let reference = reference.with_default_tag();
        let found = estimate::ask(context, &client, &reference, platform.as_deref()).await?;
        outln!("{}", estimate::text(&reference, &found));
        // A script learns from the exit code whether the pull would fit.
        return if found.fits { Ok(()) } else { Err(Failure { message: String::new(), code: 1 }) };
    }
    if !quiet && is_bare {
        outln!("Using default tag: latest");
    }
    let client = context.client().await?;
    pull(context, &client, image, platform.as_deref(), quiet, false).await?;
    outln!("{}", reference.with_default_tag().canonical());
    Ok(())
}

fn reference(image: &str) -> Outcome<Reference> {
    image.parse().map_err(|error: berth_oci::reference::ReferenceError| Failure::new(error.to_string()))
}

/// Brings an image. With `aside`, what happens is told on standard error.
pub async fn pull(
    context: &Context,
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
    aside: bool,
) -> Outcome {
    let reference = reference(image)?.with_default_tag();
    let to = match (quiet, aside) {
        (true, _) => To::Nowhere,
        (false, true) => To::Stderr,
        (false, false) => To::Stdout,
    };
    bring(context, client, &reference, platform, to).await
}

/// Has the daemon bring an image, or all of a repository for a reference without a tag.
async fn bring(
    context: &Context,
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
    to: To,
) -> Outcome {
    let tag = reference.digest().map(ToString::to_string).or_else(|| reference.tag().map(str::to_owned));
    let is_watched = match to {
        To::Nowhere => false,
        To::Stderr => std::io::stderr().is_terminal(),
        To::Stdout => std::io::stdout().is_terminal(),
    };
    let path = Query::new()
        .set("fromImage", &reference.familiar_repository())
        .set_some("tag", tag.as_deref())
        .set_some("platform", platform)
        // People want to know how much it will be; files have no use for it.
        .flag("estimate", is_watched && tag.is_some())
        .on("/images/create");
    let body = match credentials::header(&context.config, reference).await? {
        Some(auth) => client.post_for_stream_with(&path, "x-registry-auth", &auth).await?,
        None => client.post_for_stream(&path).await?,
    };
    progress::show(body, to).await
}
