//! `ps`.

use berth_api::StringMap;
use berth_api::container::{MountPoint, Summary};
use berth_api::network::PortSummary;
use berth_client::Query;
use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, many, on, one, switch};
use crate::format::human::{ago, ellipsis, moment, quoted, short_id, size};
use crate::format::template::{self, Column};
use crate::values;
use crate::values::filter;

const COLUMNS: [Column; 7] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
];
/// Headings of what only templates show.
const FURTHER: [Column; 9] = [
    ("CreatedAt", "CREATED AT"),
    ("State", "STATE"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("HealthStatus", "HEALTH STATUS"),
];

/// Each container in lines of its own.
const RAW: &str = "\
container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
";

/// The command.
pub fn command() -> Command {
    Command::new("list").about("Lists containers").defer(|command| {
        command
            .arg(switch("all").short('a').help("Also those that do not run"))
            .arg(many("filter", "NAME=VALUE").short('f').value_parser(filter::filter).help("Only some"))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(
                one("last", "NUMBER")
                    .short('n')
                    .value_parser(values::integer)
                    .default_value("-1")
                    .help("Only the last created, whatever their state"),
            )
            .arg(switch("latest").short('l').help("Only the last created"))
            .arg(switch("no-trunc").help("Show everything in full"))
            .arg(switch("quiet").short('q').help("Show IDs only"))
            .arg(switch("size").short('s').help("Show sizes"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let pairs = filter::given(matches);
    let last = match on(matches, "latest") {
        true if flags::number(matches, "last") == -1 => 1,
        _ => flags::number(matches, "last"),
    };
    let quiet = on(matches, "quiet");
    if quiet && flags::text(matches, "format").is_some_and(|format| !format.is_empty()) {
        errln!("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let format = flags::format(matches, &context.config.settings.ps_format);
    // Sizes take time: they are asked for only where they are shown.
    let shown = format.is_some_and(|format| format.contains(".Size")) && !quiet;
    let with_size = on(matches, "size") || shown && !flags::given(matches, "size");
    let path = Query::new()
        .flag("all", on(matches, "all"))
        .flag("size", with_size)
        .set_some("limit", (last > 0).then(|| last.to_string()).as_deref())
        .filters(&filter::filters(&pairs))
        .on("/containers/json");
    let client = context.client().await?;
    let found: Vec<Summary> = client.get(&path).await?;
    let whole = on(matches, "no-trunc");
    if quiet {
        for container in &found {
            let raw = if format == Some("raw") { "container_id: " } else { "" };
            outln!("{raw}{}", if whole { &container.id } else { short_id(&container.id) });
        }
        return Ok(());
    }
    let rows = found.iter().map(|container| row(container, whole));
    let mut columns = COLUMNS.to_vec();
    if with_size {
        columns.push(("Size", "SIZE"));
    }
    let format = format.unwrap_or("table");
    if format != "table" {
        columns.extend(FURTHER.iter().filter(|column| column.0 != "Size" || !with_size));
    }
    let labels: Vec<StringMap> = found.iter().map(|container| container.labels.clone()).collect();
    let format = match format {
        "raw" => &format!("{RAW}{}", if with_size { "size: {{.Size}}\n" } else { "" }),
        format => format,
    };
    out!("{}", template::labelled(format, &columns, rows, &labels)?);
    Ok(())
}

fn row(container: &Summary, whole: bool) -> Map<String, Value> {
    let id = if whole { &container.id } else { short_id(&container.id) };
    let image = if whole { container.image.clone() } else { shown_image(&container.image) };
    let names = names(container, whole);
    let labels: Vec<String> =
        container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let networks: Vec<&str> = container.network_settings.networks.keys().map(String::as_str).collect();
    let mounts: Vec<String> = container.mounts.iter().map(|mount| shown_mount(mount, whole)).collect();
    let volumes = container.mounts.iter().filter(|mount| mount.kind == "volume").count();
    let row = json!({
        "ID": id,
        "Image": image,
        "Command": if whole { format!("\"{}\"", container.command) } else { quoted(&container.command) },
        "CreatedAt": moment(container.created),
        "RunningFor": ago(container.created),
        "Status": container.status,
        "State": container.state.as_str(),
        "Ports": ports(&container.ports),
        "Names": names.join(","),
        "Size": sizes(container),
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": networks.join(","),
        "Platform": "linux",
        "HealthStatus": health(container),
    });
    template::fields(row)
}

/// A container's names: its own, and in a row that shows everything also those of links to it.
fn names(container: &Summary, whole: bool) -> Vec<&str> {
    let all = || container.names.iter().map(|name| name.trim_start_matches('/'));
    match all().find(|name| !name.contains('/')) {
        Some(own) if !whole => vec![own],
        _ => all().collect(),
    }
}

/// The health as it is told apart, or, by older daemons, in the status: `Up 2 hours (healthy)`.
fn health(container: &Summary) -> &str {
    let told = container.health.as_ref().map(|health| health.status.as_str());
    let status = told.filter(|status| !status.is_empty()).or_else(|| {
        let (_, rest) = container.status.split_once('(')?;
        let rest = rest.strip_suffix(')')?;
        Some(rest.strip_prefix("health: ").unwrap_or(rest))
    });
    status.filter(|status| matches!(*status, "healthy" | "unhealthy" | "starting")).unwrap_or_default()
}

/// An image that is named by its ID alone is shown short.
fn shown_image(image: &str) -> String {
    if image.starts_with("sha256:") { short_id(image).to_owned() } else { image.to_owned() }
}

fn shown_mount(mount: &MountPoint, whole: bool) -> String {
    let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
    if whole { name.clone() } else { ellipsis(name, 15) }
}

fn sizes(container: &Summary) -> String {
    let written = size(container.size_rw.unwrap_or_default());
    match container.size_root_fs {
        Some(all) if all > 0 => format!("{written} (virtual {})", size(all)),
        _ => written,
    }
}

/// Ports as Docker shows them, ranges joined: `0.0.0.0:8080-8081->80-81/tcp, 9000/tcp`.
pub fn ports(ports: &[PortSummary]) -> String {
    let mut sorted: Vec<&PortSummary> = ports.iter().collect();
    sorted.sort_by(|a, b| {
        (a.private_port, &a.ip, a.public_port, &a.protocol).cmp(&(
            b.private_port,
            &b.ip,
            b.public_port,
            &b.protocol,
        ))
    });
    let mut runs: Vec<(u16, Option<u16>, &PortSummary)> = Vec::new();
    for port in sorted {
        // A run goes on if both sides do.
        let next = runs.iter_mut().find(|(last, public, first)| {
            first.ip == port.ip
                && first.protocol == port.protocol
                && last.checked_add(1) == Some(port.private_port)
                && public.and_then(|public| public.checked_add(1)) == port.public_port
        });
        match next {
            Some((last, public, _)) => (*last, *public) = (port.private_port, port.public_port),
            None => runs.push((port.private_port, port.public_port, port)),
        }
    }
    let range =
        |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let shown = runs.iter().map(|(last, last_public, first)| {
        let inside = format!("{}/{}", range(first.private_port, *last), first.protocol);
        match (first.public_port, last_public) {
            (Some(public), Some(last)) => {
                let ip = if first.ip.contains(':') { format!("[{}]", first.ip) } else { first.ip.clone() };
                format!("{ip}:{}->{inside}", range(public, *last))
            }
            _ => inside,
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private_port: u16, public_port: Option<u16>) -> PortSummary {
        PortSummary { ip: ip.to_owned(), private_port, public_port, protocol: "tcp".to_owned() }
    }

    #[test]
    fn ports_are_joined_to_ranges() {
        assert_eq!(ports(&[]), "");
        assert_eq!(ports(&[port("", 80, None)]), "80/tcp");
        assert_eq!(
            ports(&[
                port("0.0.0.0", 81, Some(8081)),
                port("0.0.0.0", 80, Some(8080)),
                port("::", 80, Some(8080))
            ]),
            "0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp"
        );
    }

    #[test]
    fn rows_have_dockers_names() {
        let container = Summary {
            id: "0123456789abcdef".into(),
            names: vec!["/web".into()],
            command: "sleep 1000".into(),
            status: "Up 2 seconds".into(),
            ..Summary::default()
        };
        let row = row(&container, false);
        assert_eq!(row["ID"], "0123456789ab");
        assert_eq!(row["Command"], "\"sleep 1000\"");
        assert_eq!(row["Names"], "web");
    }
}
