//! `context ls`.

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::look_up;
use super::store::{DEFAULT, Metadata};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, on};
use crate::format::human::ellipsis;
use crate::format::natural;
use crate::format::template::{self, Column};

const TABLE: &str =
    "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
const COLUMNS: [Column; 5] = [
    ("Name", "NAME"),
    ("Current", ""),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
];
/// Longest error that is shown, in characters.
const LONGEST: usize = 45;

/// Runs it.
pub fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let current = context.name();
    let mut all = context.store().list().map_err(|error| failed_to_list(&error))?;
    let mut default = look_up(context, DEFAULT)?;
    default.describe("Current DOCKER_HOST based configuration");
    all.push(default);
    let mut rows: Vec<_> = all.iter().map(|found| row(found, found.name == current)).collect();
    if all.iter().all(|found| found.name != current) {
        let reason = look_up(context, current).err().map_or_else(String::new, |failure| failure.message);
        rows.push(fields(current, true, "", "", &reason));
    }
    let name = |row: &Map<String, Value>| row["Name"].as_str().unwrap_or_default().to_owned();
    rows.sort_by(|a, b| natural::compare(&name(a), &name(b)));
    let format = match flags::text(matches, "format") {
        _ if on(matches, "quiet") => "{{.Name}}",
        None | Some("" | "table") => TABLE,
        Some(format) => format,
    };
    out!("{}", template::rows(format, &COLUMNS, rows)?);
    if let Some(variable) = context.overriding() {
        errln!(
            "Warning: {variable} environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset {variable} environment variable."
        );
    }
    Ok(())
}

fn failed_to_list(error: &super::store::StoreError) -> crate::Failure {
    crate::Failure::new(format!("failed to read metadata: {error}"))
}

fn row(found: &Metadata, current: bool) -> Map<String, Value> {
    let (host, reason) = match found.docker() {
        Ok(endpoint) => (endpoint.host, String::new()),
        Err(error) => (String::new(), error.to_string()),
    };
    fields(&found.name, current, found.description(), &host, &reason)
}

fn fields(name: &str, current: bool, description: &str, host: &str, reason: &str) -> Map<String, Value> {
    template::fields(json!({
        "Name": name,
        "Current": current,
        "Description": description,
        "DockerEndpoint": host,
        "Error": ellipsis(reason, LONGEST),
    }))
}
