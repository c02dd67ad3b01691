//! `network ls`.

use berth_api::network::Network;
use berth_client::Query;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, many, on, one, switch};
use crate::format::human::{moment, short_id};
use crate::format::natural;
use crate::format::template::{self, Column};
use crate::values::filter;

const COLUMNS: [Column; 4] =
    [("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];
const FURTHER: [Column; 5] = [
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];
/// Each network in lines of its own.
const RAW: &str = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n";

/// The command.
pub fn command() -> Command {
    Command::new("ls").alias("list").about("Lists networks").defer(|command| {
        command
            .arg(many("filter", "NAME=VALUE").short('f').value_parser(filter::filter).help("Only some"))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("no-trunc").help("Show everything in full"))
            .arg(switch("quiet").short('q').help("Show IDs only"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let path = Query::new().filters(&filter::filters(&filter::given(matches))).on("/networks");
    let mut found: Vec<Network> = context.client().await?.get(&path).await?;
    found.sort_by(|one, other| natural::compare(&one.name, &other.name));
    let whole = on(matches, "no-trunc");
    let format = flags::format(matches, &context.config.settings.networks_format);
    if on(matches, "quiet") && matches!(format, None | Some("raw" | "table")) {
        let raw = if format == Some("raw") { "network_id: " } else { "" };
        for network in &found {
            outln!("{raw}{}", if whole { &network.id } else { short_id(&network.id) });
        }
        return Ok(());
    }
    let format = match format.unwrap_or("table") {
        "raw" => RAW,
        format => format,
    };
    let mut columns = COLUMNS.to_vec();
    if format != "table" {
        columns.extend(FURTHER);
    }
    out!("{}", template::rows(format, &columns, found.iter().map(|network| row(network, whole)))?);
    Ok(())
}

fn row(network: &Network, whole: bool) -> Map<String, Value> {
    let labels: Vec<String> = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    template::fields(json!({
        "ID": if whole { network.id.as_str() } else { short_id(&network.id) },
        "Name": network.name,
        "Driver": network.driver,
        "Scope": network.scope,
        "IPv4": network.enable_ipv4.to_string(),
        "IPv6": network.enable_ipv6.to_string(),
        "Internal": network.internal.to_string(),
        "Labels": labels.join(","),
        "CreatedAt": moment(network.created.0.as_second()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_row() {
        let network = Network {
            id: "ab".repeat(32),
            name: "mine".into(),
            driver: "bridge".into(),
            scope: "local".into(),
            enable_ipv4: true,
            labels: [("a".to_owned(), "1".to_owned())].into(),
            ..Network::default()
        };
        let shown = row(&network, false);
        assert_eq!((&shown["ID"], &shown["Labels"]), (&json!("abababababab"), &json!("a=1")));
        assert_eq!((&shown["IPv4"], &shown["Internal"]), (&json!("true"), &json!("false")));
    }
}
