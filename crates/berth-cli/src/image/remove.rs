//! `rmi`.

use berth_api::image::DeleteItem;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};

use super::platform;
use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, many, on, switch};

/// The command.
pub fn command() -> Command {
    Command::new("remove").about("Removes images").defer(|command| {
        command
            .arg(switch("force").short('f').help("Also with several names, or used by stopped containers"))
            .arg(many("platform", "OS/ARCH").help("Remove only these platforms of the images (with --force)"))
            .arg(switch("no-prune").help("Keep parents without names"))
            .arg(flags::operands("image"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let force = on(matches, "force");
    let platforms = platform::all(matches)?;
    let client = context.client().await?;
    let mut failures = Failures::default();
    for name in flags::list(matches, "image") {
        let mut query = Query::new().flag("force", force).flag("noprune", on(matches, "no-prune"));
        for platform in &platforms {
            query = query.set("platforms", platform);
        }
        let path = query.on(&format!("/images/{}", segment(&name)));
        match client.delete(&path).await {
            Ok(bytes) => {
                let items: Vec<DeleteItem> = serde_json::from_slice(&bytes)
                    .map_err(|error| Failure::new(format!("Error reading the answer: {error}")))?;
                for item in items {
                    match item {
                        DeleteItem::Untagged(name) => outln!("Untagged: {name}"),
                        DeleteItem::Deleted(id) => outln!("Deleted: {id}"),
                    }
                }
            }
            // What is to be gone is gone.
            Err(error) if force && error.is_not_found() => errln!("{error}"),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
