//! `diff`.

use berth_api::container::Change;
use berth_client::segment;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, one};
use crate::format::template::{self, Column};

const COLUMNS: [Column; 2] = [("Type", "CHANGE TYPE"), ("Path", "PATH")];

/// The command.
pub fn command() -> Command {
    Command::new("diff").about("Shows what a container changed of its image's files").defer(|command| {
        command
            .arg(one("format", "TEMPLATE").hide(true).help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(flags::operand("container"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = flags::text(matches, "container").unwrap_or_default();
    let path = format!("/containers/{}/changes", segment(name));
    let found: Option<Vec<Change>> = context.client().await?.get(&path).await?;
    let found = found.unwrap_or_default();
    let format = flags::text(matches, "format").unwrap_or("{{.Type}} {{.Path}}");
    out!("{}", template::rows(format, &COLUMNS, found.iter().map(row))?);
    Ok(())
}

fn row(change: &Change) -> serde_json::Map<String, serde_json::Value> {
    let kind = match change.kind {
        0 => "C",
        1 => "A",
        2 => "D",
        _ => "",
    };
    template::fields(serde_json::json!({ "Type": kind, "Path": change.path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_letters() {
        for (kind, letter) in [(0, "C"), (1, "A"), (2, "D"), (9, "")] {
            assert_eq!(row(&Change { path: "/x".into(), kind })["Type"], letter);
        }
    }
}
