//! `history`.

use berth_api::image::HistoryItem;
use berth_client::{Query, segment};
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::platform;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, on, one, switch};
use crate::format::human::{ago, ellipsis, moment, short_id, size};
use crate::format::template::{self, Column};

const COLUMNS: [Column; 5] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// The command.
pub fn command() -> Command {
    Command::new("history").about("Shows how an image came to be").defer(|command| {
        command
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("human").short('H').default_value("true").help("Show sizes and dates for people"))
            .arg(one("platform", "OS/ARCH").help("Of this platform of the image"))
            .arg(switch("no-trunc").help("Show everything in full"))
            .arg(switch("quiet").short('q').help("Show IDs only"))
            .arg(flags::operand("image"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "image").unwrap_or_default();
    let platform = platform::one(matches)?;
    let path = Query::new()
        .set_some("platform", platform.as_deref())
        .on(&format!("/images/{}/history", segment(name)));
    let client = context.client().await?;
    let found: Vec<HistoryItem> = client.get(&path).await?;
    let (whole, people) = (on(matches, "no-trunc"), on(matches, "human"));
    if on(matches, "quiet") {
        for item in &found {
            outln!("{}", if whole { &item.id } else { short_id(&item.id) });
        }
        return Ok(());
    }
    let rows = found.iter().map(|item| row(item, whole, people));
    let format = flags::text(matches, "format").unwrap_or("table");
    out!("{}", template::rows(format, &COLUMNS, rows)?);
    Ok(())
}

fn row(item: &HistoryItem, whole: bool, people: bool) -> Map<String, Value> {
    let by = item.created_by.replace('\t', " ");
    let row = json!({
        "ID": if whole { item.id.as_str() } else { short_id(&item.id) },
        "CreatedSince": if people { ago(item.created) } else { moment(item.created) },
        "CreatedAt": moment(item.created),
        "CreatedBy": if whole { by } else { ellipsis(&by, 45) },
        "Size": if people { size(item.size) } else { item.size.to_string() },
        "Comment": item.comment,
    });
    template::fields(row)
}
