//! `volume ls`.

use berth_api::volume::{ListResponse, Volume};
use berth_client::Query;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, many, on, one, switch};
use crate::format::natural;
use crate::format::template::{self, Column};
use crate::values::filter;

const COLUMNS: [Column; 2] = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")];
const FURTHER: [Column; 8] = [
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];
/// Each volume in lines of its own.
const RAW: &str = "name: {{.Name}}\ndriver: {{.Driver}}\n";

/// The command.
pub fn command() -> Command {
    Command::new("ls").alias("list").about("Lists volumes").defer(|command| {
        command
            .arg(switch("cluster").hide(true).help("Only volumes of a swarm"))
            .arg(
                many("filter", "NAME=VALUE")
                    .short('f')
                    .value_parser(filter::filter)
                    .help("Only some: dangling=BOOL, driver=DRIVER, label=NAME[=VALUE], name=NAME"),
            )
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("quiet").short('q').help("Show names only"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let path = Query::new().filters(&filter::filters(&filter::given(matches))).on("/volumes");
    let mut found: ListResponse = context.client().await?.get(&path).await?;
    for warning in found.warnings.iter().flatten() {
        errln!("WARNING: {warning}");
    }
    if on(matches, "cluster") {
        // There is no swarm.
        found.volumes.clear();
    }
    found.volumes.sort_by(|a, b| natural::compare(&a.name, &b.name));
    let format = flags::format(matches, &context.config.settings.volumes_format).unwrap_or("table");
    if on(matches, "quiet") && matches!(format, "table" | "raw") {
        let raw = if format == "raw" { "name: " } else { "" };
        found.volumes.iter().for_each(|volume| outln!("{raw}{}", volume.name));
        return Ok(());
    }
    let mut columns = COLUMNS.to_vec();
    if format != "table" {
        columns.extend(FURTHER);
    }
    let format = if format == "raw" { RAW } else { format };
    out!("{}", template::rows(format, &columns, found.volumes.iter().map(row))?);
    Ok(())
}

fn row(volume: &Volume) -> Map<String, Value> {
    let labels = volume.labels.iter().flatten().map(|(name, value)| format!("{name}={value}"));
    template::fields(json!({
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": labels.collect::<Vec<_>>().join(","),
        // Only `system df` knows.
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": "N/A",
        "Status": "N/A",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_fields() {
        let volume = Volume {
            name: "data".into(),
            driver: "local".into(),
            labels: Some([("b", "2"), ("a", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..Volume::default()
        };
        let row = row(&volume);
        assert_eq!(
            (&row["Name"], &row["Labels"], &row["Size"]),
            (&json!("data"), &json!("a=1,b=2"), &json!("N/A"))
        );
        let table = template::rows("table", &COLUMNS, [row]).unwrap();
        assert_eq!(table, "DRIVER    VOLUME NAME\nlocal     data\n");
    }
}
