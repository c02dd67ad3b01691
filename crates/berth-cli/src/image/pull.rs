//! `pull`.

use berth_client::{Client, Query};
use berth_oci::Reference;
use clap::{ArgMatches, Command};

use super::progress::{self, To};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, one, switch};

/// The command.
pub fn command() -> Command {
    Command::new("pull").about("Brings an image from a registry").defer(|command| {
        command
            .arg(switch("all-tags").short('a').hide(true))
            .arg(switch("disable-content-trust").hide(true))
            .arg(one("platform", "OS/ARCH").help("Platform of the image"))
            .arg(switch("quiet").short('q').help("Print only the image's name"))
            .arg(flags::operand("image").value_name("NAME[:TAG|@DIGEST]"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let image = flags::text(matches, "image").unwrap_or_default();
    if on(matches, "all-tags") {
        return Err(Failure::new("--all-tags is not supported yet"));
    }
    let reference = reference(image)?;
    let quiet = on(matches, "quiet");
    if !quiet && reference.tag().is_none() && reference.digest().is_none() {
        outln!("Using default tag: latest");
    }
    let client = context.client().await?;
    pull(context, &client, image, flags::platform(matches).as_deref(), quiet, false).await?;
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
    let tag = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let path = Query::new()
        .set("fromImage", &reference.familiar_repository())
        .set("tag", &tag)
        .set_some("platform", platform)
        .on("/images/create");
    let body = match credentials::header(&context.config, &reference).await? {
        Some(auth) => client.post_for_stream_with(&path, "x-registry-auth", &auth).await?,
        None => client.post_for_stream(&path).await?,
    };
    let to = match (quiet, aside) {
        (true, _) => To::Nowhere,
        (false, true) => To::Stderr,
        (false, false) => To::Stdout,
    };
    progress::show(body, to).await
}
