//! `builder du`.

use berth_api::system::CacheRecord;
use berth_api::time::Time;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{many, on, one, switch, text};
use crate::format::human::{ago, long_size};
use crate::format::template::{self, Column};
use crate::system;
use crate::values::filter;

const COLUMNS: [Column; 4] =
    [("ID", "ID"), ("Reclaimable", "RECLAIMABLE"), ("Size", "SIZE"), ("LastAccessed", "LAST ACCESSED")];

/// Each record in lines of its own.
const VERBOSE: &str = "\
ID:\t\t{{.ID}}
Created at:\t{{.CreatedAt}}
Reclaimable:\t{{.Reclaimable}}
Shared:\t\t{{.Shared}}
Size:\t\t{{.Size}}
Description:\t{{.Description}}
Usage count:\t{{.UsageCount}}
Last used:\t{{.LastAccessed}}
Type:\t\t{{.Type}}
";

/// The command.
pub fn command() -> Command {
    Command::new("du").about("Shows how much room the build cache takes").defer(|command| {
        let filters = "Only some: id=ID, type=TYPE, description=TEXT, inuse=BOOL, shared=BOOL, private=BOOL";
        command
            .arg(many("filter", "NAME=VALUE").value_parser(filter::filter).help(filters))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("verbose").short('v').help("Show all that is known of each record"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let format = text(matches, "format").filter(|format| !format.is_empty());
    let verbose = on(matches, "verbose");
    if verbose && format.is_some() {
        return Err(Failure::new("--format and --verbose cannot be used together"));
    }
    let filters = filter::given(matches);
    for (name, value) in &filters {
        check(name, value)?;
    }
    let usage = system::usage::fetch(context, "/system/df?verbose=1&type=build-cache").await?;
    let mut records = usage.build_cache_usage.map(|usage| usage.items).unwrap_or_default();
    records.retain(|record| has(&filters, record));
    records.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let rows = records.iter().map(row);
    match (verbose, format) {
        (true, _) => out!("{}", template::rows(VERBOSE, &COLUMNS, rows)?),
        (false, Some(format)) => {
            out!("{}", template::rows(format, &COLUMNS, rows)?);
            // Whoever asks for a form reads that.
            return Ok(());
        }
        (false, None) => out!("{}", template::rows("table", &COLUMNS, rows)?),
    }
    out!("{}", total(&records));
    Ok(())
}

fn check(name: &str, value: &str) -> Outcome {
    match name {
        "id" | "type" | "description" => Ok(()),
        "inuse" | "shared" | "private" if truth(value).is_some() => Ok(()),
        "inuse" | "shared" | "private" => {
            Err(Failure::new(format!("invalid filter '{name}={value}': it is true or false")))
        }
        _ => Err(Failure::new(format!("invalid filter '{name}'"))),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Whether a record satisfies all filters; several of one name are alternatives.
fn has(filters: &[(String, String)], record: &CacheRecord) -> bool {
    let is = |name: &str, value: &str| match name {
        "id" => record.id.starts_with(value),
        "type" => record.kind == value,
        "description" => record.description.contains(value),
        "inuse" => truth(value) == Some(record.in_use),
        "shared" => truth(value) == Some(record.shared),
        _ => truth(value) == Some(!record.shared),
    };
    filters.iter().all(|(name, _)| filters.iter().any(|(other, value)| name == other && is(name, value)))
}

fn row(record: &CacheRecord) -> Map<String, Value> {
    let since = |time: &Option<Time>| time.as_ref().map(|time| ago(time.0.as_second())).unwrap_or_default();
    let shared = if record.shared { "*" } else { "" };
    template::fields(json!({
        "ID": record.id,
        "Reclaimable": (!record.in_use).to_string(),
        "Size": format!("{}{shared}", long_size(record.size)),
        "LastAccessed": since(&record.last_used_at),
        "CreatedAt": record.created_at.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
        "Shared": record.shared.to_string(),
        "Description": record.description,
        "UsageCount": record.usage_count.to_string(),
        "Type": record.kind,
    }))
}

/// What all of them take; what images have, too, goes only with those.
fn total(records: &[CacheRecord]) -> String {
    let sum = |wanted: &dyn Fn(&CacheRecord) -> bool| {
        long_size(records.iter().filter(|record| wanted(record)).map(|record| record.size).sum())
    };
    let mut lines = Vec::new();
    if records.iter().any(|record| record.shared) {
        lines.push(("Shared", sum(&|record| record.shared)));
        lines.push(("Private", sum(&|record| !record.shared)));
    }
    lines.push(("Reclaimable", sum(&|record| !record.in_use && !record.shared)));
    lines.push(("Total", sum(&|_| true)));
    lines.into_iter().map(|(name, size)| format!("{:<16}{size}\n", format!("{name}:"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, size: i64, shared: bool, in_use: bool) -> CacheRecord {
        CacheRecord { id: id.into(), kind: "regular".into(), size, shared, in_use, ..CacheRecord::default() }
    }

    #[test]
    fn records_are_summed_up() {
        assert_eq!(total(&[]), "Reclaimable:    0B\nTotal:          0B\n");
        let records =
            [record("a", 1000, false, false), record("b", 20, true, false), record("c", 3, false, true)];
        let expected =
            "Shared:         20B\nPrivate:        1.003kB\nReclaimable:    1kB\nTotal:          1.023kB\n";
        assert_eq!(total(&records), expected);
        assert_eq!(row(&records[1])["Size"], "20B*");
    }

    #[test]
    fn filters_are_alternatives_of_one_name() {
        let filters = |all: &[&str]| all.iter().map(|text| filter::filter(text).unwrap()).collect::<Vec<_>>();
        let one = record("abc", 1, true, false);
        for (given, shown) in [
            (&[][..], true),
            (&["id=ab"], true),
            (&["id=x"], false),
            (&["id=x", "id=abc"], true),
            (&["type=regular", "shared=false"], false),
            (&["private=0", "inuse=false"], true),
        ] {
            assert_eq!(has(&filters(given), &one), shown, "{given:?}");
        }
        assert_eq!(
            check("shared", "perhaps").unwrap_err().message,
            "invalid filter 'shared=perhaps': it is true or false"
        );
        assert_eq!(check("colour", "red").unwrap_err().message, "invalid filter 'colour'");
    }
}
