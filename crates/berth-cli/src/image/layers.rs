//! `image layers`: what the layers of an image add, change and waste.

use berth_api::image::layers::{Layer, Layers, Tally};
use berth_client::segment;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, one, switch};
use crate::format::human::{ellipsis, short_id, size};
use crate::format::template::{self, Column};

const COLUMNS: [Column; 8] = [
    ("Number", "LAYER"),
    ("Size", "SIZE"),
    ("Added", "ADDED"),
    ("Changed", "CHANGED"),
    ("Removed", "REMOVED"),
    ("Wasted", "WASTED"),
    ("Images", "IMAGES"),
    ("CreatedBy", "CREATED BY"),
];
const FURTHER: [Column; 2] = [("DiffID", "DIFF ID"), ("ChainID", "CHAIN ID")];
const FILES: [Column; 4] =
    [("Size", "SIZE"), ("Layer", "LAYER"), ("HiddenBy", "HIDDEN BY"), ("Path", "PATH")];

/// The command.
pub fn command() -> Command {
    Command::new("layers").about("Shows what the layers of an image add, change and waste").defer(|command| {
        command
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("no-trunc").help("Show everything in full"))
            .arg(flags::operand("image"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "image").unwrap_or_default();
    let client = context.client().await?;
    let answer = client.get(&format!("/berth/images/{}/layers", segment(name))).await;
    let found: Layers = answer.map_err(|error| {
        let foreign = error.is_not_found() && error.to_string().contains("page not found");
        let why = "the daemon cannot tell what layers cost: it is not Berth's, or an older one";
        if foreign { Failure::new(why) } else { error.into() }
    })?;
    let whole = on(matches, "no-trunc");
    match flags::text(matches, "format").unwrap_or("table") {
        "json" => outln!("{}", json!(found)),
        "table" => out!("{}", table(&found, whole)?),
        format => {
            let columns = [&COLUMNS[..], &FURTHER[..]].concat();
            out!("{}", template::rows(format, &columns, rows(&found, whole))?);
        }
    }
    Ok(())
}

fn table(found: &Layers, whole: bool) -> Outcome<String> {
    let mut text = template::rows("table", &COLUMNS, rows(found, whole))?;
    let percent = i128::from(found.wasted) * 100 / i128::from(found.size.max(1));
    text += &format!("\nWasted: {} of {} ({percent}%)\n", size(found.wasted), size(found.size));
    if !found.largest.is_empty() {
        let files = found.largest.iter().map(|file| {
            template::fields(json!({
                "Size": size(file.size), "Layer": file.layer, "HiddenBy": file.hidden_by, "Path": printable(&file.path),
            }))
        });
        text += &format!("\n{}", template::rows("table", &FILES, files)?);
    }
    Ok(text)
}

/// A path of an image may hold anything, also what a terminal would obey.
fn printable(path: &str) -> String {
    path.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

fn rows(found: &Layers, whole: bool) -> impl Iterator<Item = Map<String, Value>> + '_ {
    found.layers.iter().enumerate().map(move |(index, layer)| row(index + 1, layer, whole))
}

fn row(number: usize, layer: &Layer, whole: bool) -> Map<String, Value> {
    let tally = |tally: Tally| match tally.entries {
        0 => "-".to_owned(),
        entries => format!("{entries} ({})", size(tally.bytes)),
    };
    let by = printable(&layer.created_by);
    let id = |id: &str| if whole { id.to_owned() } else { short_id(id).to_owned() };
    template::fields(json!({
        "Number": number.to_string(),
        "Size": size(layer.size),
        "Added": tally(layer.added),
        "Changed": tally(layer.changed),
        "Removed": tally(layer.removed),
        "Wasted": size(layer.wasted),
        "Images": layer.images.to_string(),
        "CreatedBy": if whole { by } else { ellipsis(&by, 45) },
        "DiffID": id(&layer.diff_id),
        "ChainID": id(&layer.chain_id),
    }))
}

#[cfg(test)]
mod tests {
    use berth_api::image::layers::WastedFile;

    use super::*;

    #[test]
    fn tables_show_layers_and_waste() {
        let base = Layer {
            size: 3000,
            images: 2,
            added: Tally { entries: 2, bytes: 3000 },
            wasted: 1000,
            created_by: "ADD\tbase".into(),
            ..Layer::default()
        };
        let top = Layer { images: 1, removed: Tally { entries: 1, bytes: 1000 }, ..Layer::default() };
        let file = WastedFile { path: "/a\u{1b}b".into(), size: 1000, layer: 1, hidden_by: 2 };
        let found = Layers {
            size: 3000,
            wasted: 1000,
            layers: vec![base, top],
            largest: vec![file],
            ..Layers::default()
        };
        let expected = "\
LAYER     SIZE      ADDED     CHANGED   REMOVED   WASTED    IMAGES    CREATED BY
1         3kB       2 (3kB)   -         -         1kB       2         ADD?base
2         0B        -         -         1 (1kB)   0B        1         

Wasted: 1kB of 3kB (33%)

SIZE      LAYER     HIDDEN BY   PATH
1kB       1         2           /a?b
";
        assert_eq!(table(&found, false).unwrap(), expected);
    }
}
