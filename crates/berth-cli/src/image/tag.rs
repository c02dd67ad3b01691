//! `tag`.

use berth_client::{Query, segment};
use berth_oci::Reference;
use berth_oci::reference::ReferenceError;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags;

/// The command.
pub fn command() -> Command {
    Command::new("tag").about("Gives an image one more name").defer(|command| {
        command
            .arg(flags::operand("image").value_name("SOURCE_IMAGE[:TAG]"))
            .arg(flags::operand("name").value_name("TARGET_IMAGE[:TAG]"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let image = flags::text(matches, "image").unwrap_or_default();
    let name = flags::text(matches, "name").unwrap_or_default();
    let reference: Reference = name.parse().map_err(|error: ReferenceError| {
        Failure::new(format!("Error parsing reference: {name:?} is not a valid repository/tag: {error}"))
    })?;
    let path = Query::new()
        .set("repo", &reference.familiar_repository())
        .set("tag", reference.tag().unwrap_or_default())
        .on(&format!("/images/{}/tag", segment(image)));
    context.client().await?.post_empty(&path).await?;
    Ok(())
}
