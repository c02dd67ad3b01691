//! `commit`.

use berth_api::image::CommitResponse;
use berth_client::Query;
use berth_oci::Reference;
use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};

/// The command.
pub fn command() -> Command {
    Command::new("commit").about("Makes an image of what a container has changed").defer(|command| {
        command
            .arg(one("author", "TEXT").short('a').help("Who made it"))
            .arg(
                many("change", "INSTRUCTION")
                    .short('c')
                    .help("Change the image's configuration by a Dockerfile's instruction"),
            )
            .arg(one("message", "TEXT").short('m').help("A comment for its history"))
            .arg(
                switch("pause")
                    .short('p')
                    .default_value("true")
                    .help("Freeze the container meanwhile (true)"),
            )
            .arg(switch("no-pause").help("Do not freeze it").overrides_with("pause"))
            .arg(flags::operand("container"))
            .arg(Arg::new("name").help("The image's name, with or without a tag"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let (repository, tag) = new_name(flags::text(matches, "name"))?;
    let pause = on(matches, "pause") && !on(matches, "no-pause");
    let mut query = Query::new()
        .set("container", flags::text(matches, "container").unwrap_or_default())
        .set("repo", &repository)
        .set("tag", &tag)
        .set("comment", &flags::or_empty(matches, "message"))
        .set("author", &flags::or_empty(matches, "author"))
        .set("pause", if pause { "1" } else { "0" });
    for change in flags::list(matches, "change") {
        query = query.set("changes", &change);
    }
    let answer: CommitResponse =
        context.client().await?.post(&query.on("/commit"), &serde_json::Value::Null).await?;
    outln!("{}", answer.id);
    Ok(())
}

/// Repository and tag of a new image; both empty without a name.
pub fn new_name(name: Option<&str>) -> Outcome<(String, String)> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Default::default()) };
    let reference: Reference = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    if reference.digest().is_some() {
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    let reference = reference.with_default_tag();
    Ok((reference.familiar_repository(), reference.tag().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(new_name(None).ok(), Some(pair("", "")));
        assert_eq!(new_name(Some("a")).ok(), Some(pair("a", "latest")));
        assert_eq!(new_name(Some("host:5000/a:v1")).ok(), Some(pair("host:5000/a", "v1")));
        assert!(new_name(Some("A")).is_err());
        assert!(new_name(Some(&format!("a@sha256:{}", "0".repeat(64)))).is_err());
    }
}
