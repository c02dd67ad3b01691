//! `inspect`, of containers and images.

use berth_client::{Client, Query, segment};
use clap::{ArgMatches, Command};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, on, one, switch};
use crate::format::template;

/// The command.
pub fn command() -> Command {
    Command::new("inspect").defer(|command| {
        command
            .arg(one("format", "TEMPLATE").short('f').help("Show by a Go template, or json"))
            .arg(switch("size").short('s').help("Also sizes of containers"))
            .arg(one("type", "KIND").help("Only of a kind: container or image"))
            .arg(flags::operands("name"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let kinds: &[&str] = match flags::text(matches, "type") {
        None => &["container", "image", "network"],
        Some("container") => &["container"],
        Some("image") => &["image"],
        Some("network") => &["network"],
        Some(kind) => return Err(Failure::new(format!("{kind:?} is not a valid value for --type"))),
    };
    of(context, matches, kinds).await
}

/// Inspects what is of one of some kinds.
pub async fn of(context: &Context, matches: &ArgMatches, kinds: &[&str]) -> Outcome {
    let client = context.client().await?;
    let size = matches.try_get_one::<bool>("size").ok().flatten().is_some() && on(matches, "size");
    let (mut found, mut failures) = (Vec::new(), Failures::default());
    for name in flags::list(matches, "name") {
        match look_up(&client, &name, kinds, size).await {
            Ok(object) => found.push(object),
            Err(failure) => failures.push(failure),
        }
    }
    match flags::text(matches, "format") {
        Some(format) => {
            for object in &found {
                outln!("{}", template::object(format, object)?);
            }
        }
        None => {
            let mut text = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut text, formatter);
            serde::Serialize::serialize(&found, &mut writer)
                .map_err(|error| Failure::new(format!("showing the result: {error}")))?;
            outln!("{}", String::from_utf8_lossy(&text));
        }
    }
    failures.finish()
}

async fn look_up(client: &Client, name: &str, kinds: &[&str], size: bool) -> Outcome<Value> {
    let mut last = None;
    for kind in kinds {
        let path = match *kind {
            "image" => format!("/images/{}/json", segment(name)),
            "network" => format!("/networks/{}", segment(name)),
            _ => Query::new().flag("size", size).on(&format!("/containers/{}/json", segment(name))),
        };
        match client.get::<Value>(&path).await {
            Ok(object) => return Ok(object),
            Err(error) if error.is_not_found() || kinds.len() > 1 && is_no_name(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match (kinds, last) {
        ([_], Some(error)) => Err(error.into()),
        _ => Err(Failure::new(format!("Error: No such object: {name}"))),
    }
}

/// Names of containers need not be names of images.
fn is_no_name(error: &berth_client::Error) -> bool {
    error.to_string().contains("invalid reference format")
}
