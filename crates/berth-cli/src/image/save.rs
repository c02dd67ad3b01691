//! `save`.

use berth_client::Query;
use berth_oci::Platform;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, one};
use crate::place::Place;

/// The command.
pub fn command() -> Command {
    Command::new("save")
        .about("Writes images as an archive that docker load takes and that is an OCI layout")
        .defer(|command| {
            command
                .arg(one("output", "FILE").short('o').help("Write to a file (standard output)"))
                .arg(one("platform", "OS/ARCH").help("Only if the images are for this platform"))
                .arg(flags::operands("image"))
        })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let place = Place::choose(flags::text(matches, "output"), "failed to save image")?;
    let platform = flags::text(matches, "platform").map(as_json).transpose()?;
    let mut query = Query::new().set_some("platform", platform.as_deref());
    for image in flags::list(matches, "image") {
        query = query.set("names", &image);
    }
    let archive = context.client().await?.get_stream(&query.on("/images/get")).await?;
    place.write(archive).await
}

/// A platform as the API takes it.
fn as_json(text: &str) -> Outcome<String> {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(format!("invalid platform: {error}"));
    let platform: Platform = text.parse().map_err(|error| invalid(&error))?;
    serde_json::to_string(&platform).map_err(|error| invalid(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_sent_as_an_object() {
        assert_eq!(
            as_json("linux/arm64/v8").unwrap(),
            r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
        );
        assert!(as_json("linux/").unwrap_err().message.starts_with("invalid platform: "));
    }
}
