//! `system df`.

mod detail;

use berth_api::container::Summary;
use berth_api::system::{DiskUsage, LegacyDiskUsage, Usage};
use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, on, one, switch};
use crate::format::human::long_size;
use crate::format::template::{self, Column};

const COLUMNS: [Column; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Each kind in lines of its own.
const RAW: &str = "\
type: {{.Type}}
total: {{.TotalCount}}
active: {{.Active}}
size: {{.Size}}
reclaimable: {{.Reclaimable}}
";

/// The command.
pub fn command() -> Command {
    Command::new("df").about("Shows how much room images, containers and volumes take").defer(|command| {
        command
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("verbose").short('v').help("Show each of them"))
    })
}

/// Either form of the answer; daemons before API 1.52 know only the old one.
#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    new: DiskUsage,
    #[serde(flatten)]
    old: LegacyDiskUsage,
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let format = flags::text(matches, "format").filter(|format| !matches!(*format, "" | "table"));
    let verbose = on(matches, "verbose");
    if verbose && format.is_some_and(|format| format.starts_with("table")) {
        return Err(Failure::new("the table format is not supported with the verbose option"));
    }
    let usage = fetch(context, "/system/df?verbose=1").await?;
    match (verbose, format) {
        (true, None) => out!("{}", detail::table(&usage)?),
        (true, Some(format)) => outln!("{}", template::object(format, &detail::object(&usage))?),
        (false, Some("raw")) => out!("{}", template::rows(RAW, &COLUMNS, rows(&usage))?),
        (false, format) => out!("{}", template::rows(format.unwrap_or("table"), &COLUMNS, rows(&usage))?),
    }
    Ok(())
}

/// Asks for what takes how much; `path` says of which kinds.
pub async fn fetch(context: &Context, path: &str) -> Outcome<DiskUsage> {
    Ok(settled(context.client().await?.get(path).await?))
}

/// The new form of either.
fn settled(answer: Answer) -> DiskUsage {
    let Answer { new, old } = answer;
    DiskUsage {
        image_usage: new.image_usage.or(old.images.map(|items| Usage {
            items,
            total_size: old.layers_size,
            ..Usage::default()
        })),
        container_usage: new.container_usage.or(old.containers.map(list)),
        volume_usage: new.volume_usage.or(old.volumes.map(list)),
        build_cache_usage: new.build_cache_usage.or(old.build_cache.map(list)),
    }
}

fn list<T>(items: Vec<T>) -> Usage<T> {
    Usage { items, ..Usage::default() }
}

/// What is counted of one kind.
struct Line {
    kind: &'static str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
    /// Whether the share of what can be reclaimed is shown.
    share: bool,
}

fn rows(usage: &DiskUsage) -> Vec<Map<String, Value>> {
    [images(usage), containers(usage), volumes(usage), build_cache(usage)].into_iter().map(row).collect()
}

fn row(line: Line) -> Map<String, Value> {
    let mut reclaimable = long_size(line.reclaimable);
    if line.share && line.size > 0 {
        let percent = i128::from(line.reclaimable) * 100 / i128::from(line.size);
        reclaimable = format!("{reclaimable} ({percent}%)");
    }
    template::fields(json!({
        "Type": line.kind,
        "TotalCount": line.total.to_string(),
        "Active": line.active.to_string(),
        "Size": long_size(line.size),
        "Reclaimable": reclaimable,
    }))
}

fn images(usage: &DiskUsage) -> Line {
    let usage = usage.image_usage.as_ref();
    let items = usage.map(|usage| usage.items.as_slice()).unwrap_or_default();
    let size = usage.map_or(0, |usage| usage.total_size);
    let used = items.iter().filter(|image| image.containers != 0);
    let unique = used.clone().filter(|image| image.size != -1 && image.shared_size != -1);
    let used_size: i64 = unique.map(|image| image.size - image.shared_size).sum();
    Line {
        kind: "Images",
        total: items.len(),
        active: used.count(),
        size,
        reclaimable: size - used_size,
        share: true,
    }
}

fn is_active(container: &Summary) -> bool {
    matches!(container.state.as_str(), "running" | "paused" | "restarting")
}

fn containers(usage: &DiskUsage) -> Line {
    let items = usage.container_usage.as_ref().map(|usage| usage.items.as_slice()).unwrap_or_default();
    let written = |container: &Summary| container.size_rw.unwrap_or_default();
    Line {
        kind: "Containers",
        total: items.len(),
        active: items.iter().filter(|container| is_active(container)).count(),
        size: items.iter().map(written).sum(),
        reclaimable: items.iter().filter(|container| !is_active(container)).map(written).sum(),
        share: true,
    }
}

fn volumes(usage: &DiskUsage) -> Line {
    let items = usage.volume_usage.as_ref().map(|usage| usage.items.as_slice()).unwrap_or_default();
    let known = || items.iter().filter_map(|volume| volume.usage_data).filter(|data| data.size != -1);
    Line {
        kind: "Local Volumes",
        total: items.len(),
        active: items.iter().filter_map(|volume| volume.usage_data).filter(|data| data.ref_count > 0).count(),
        size: known().map(|data| data.size).sum(),
        reclaimable: known().filter(|data| data.ref_count == 0).map(|data| data.size).sum(),
        share: true,
    }
}

fn build_cache(usage: &DiskUsage) -> Line {
    let items = usage.build_cache_usage.as_ref().map(|usage| usage.items.as_slice()).unwrap_or_default();
    let own = || items.iter().filter(|record| !record.shared);
    Line {
        kind: "Build Cache",
        total: items.len(),
        active: items.iter().filter(|record| record.in_use).count(),
        size: own().map(|record| record.size).sum(),
        reclaimable: own().filter(|record| !record.in_use).map(|record| record.size).sum(),
        share: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood_and_add_up() {
        let image = json!({"Id": "sha256:abc", "Containers": 1, "Size": 100, "SharedSize": 40});
        let unused = json!({"Id": "sha256:def", "Containers": 0, "Size": 60, "SharedSize": 40});
        let volume = json!({"Name": "v", "UsageData": {"RefCount": 0, "Size": 5}});
        let old =
            json!({"LayersSize": 120, "Images": [image, unused], "Containers": [], "Volumes": [volume]});
        let new = json!({
            "ImageUsage": {"Items": [image, unused], "TotalSize": 120}, "ContainerUsage": {},
            "VolumeUsage": {"Items": [volume], "TotalSize": 5},
        });
        for document in [old, new] {
            let rows = rows(&settled(serde_json::from_value(document).unwrap()));
            let shown = |index: usize, name: &str| rows[index][name].as_str().unwrap().to_owned();
            assert_eq!(shown(0, "TotalCount") + &shown(0, "Active"), "21");
            assert_eq!((shown(0, "Size"), shown(0, "Reclaimable")), ("120B".into(), "60B (50%)".into()));
            assert_eq!((shown(1, "Size"), shown(1, "Reclaimable")), ("0B".into(), "0B".into()));
            assert_eq!((shown(2, "Size"), shown(2, "Reclaimable")), ("5B".into(), "5B (100%)".into()));
            assert_eq!((shown(3, "Size"), shown(3, "Reclaimable")), ("0B".into(), "0B".into()));
        }
    }
}
