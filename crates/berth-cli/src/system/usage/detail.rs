//! `system df -v`: every object.

use berth_api::container::Summary;
use berth_api::image;
use berth_api::system::{CacheRecord, DiskUsage};
use berth_api::time::Time;
use berth_api::volume::Volume;
use serde_json::{Map, Value, json};

use crate::failure::Outcome;
use crate::format::human::{ago, long_size, quoted, short_id, size};
use crate::format::template::{self, Column};

const IMAGES: [Column; 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const CONTAINERS: [Column; 8] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Size", "SIZE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];
const VOLUMES: [Column; 3] = [("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
const RECORDS: [Column; 7] = [
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];

type Rows = Vec<Map<String, Value>>;

fn rows<T>(items: Option<&[T]>, row: impl Fn(&T) -> Value) -> Rows {
    items.unwrap_or_default().iter().map(|item| template::fields(row(item))).collect()
}

struct Parts {
    images: Rows,
    containers: Rows,
    volumes: Rows,
    records: Rows,
}

fn parts(usage: &DiskUsage) -> Parts {
    Parts {
        images: rows(usage.image_usage.as_ref().map(|usage| usage.items.as_slice()), image),
        containers: rows(usage.container_usage.as_ref().map(|usage| usage.items.as_slice()), container),
        volumes: rows(usage.volume_usage.as_ref().map(|usage| usage.items.as_slice()), volume),
        records: rows(usage.build_cache_usage.as_ref().map(|usage| usage.items.as_slice()), record),
    }
}

/// All tables, one after the other.
pub fn table(usage: &DiskUsage) -> Outcome<String> {
    let parts = parts(usage);
    let records = usage.build_cache_usage.iter().flat_map(|usage| &usage.items);
    // What images have, too, is counted there.
    let kept: i64 = records.filter(|item| !item.shared).map(|item| item.size).sum();
    let of = |columns: &[Column], rows: Rows| template::rows("table", columns, rows);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        of(&IMAGES, parts.images)?,
        of(&CONTAINERS, parts.containers)?,
        of(&VOLUMES, parts.volumes)?,
        long_size(kept),
        of(&RECORDS, parts.records)?,
    ))
}

/// All of it as one object, for templates.
pub fn object(usage: &DiskUsage) -> Value {
    let parts = parts(usage);
    json!({
        "Images": parts.images,
        "Containers": parts.containers,
        "Volumes": parts.volumes,
        "BuildCache": parts.records,
    })
}

fn image(image: &image::Summary) -> Value {
    let named = image.repo_tags.first().and_then(|name| name.rsplit_once(':'));
    let (repository, tag) = named.unwrap_or(("<none>", "<none>"));
    let known = |bytes: i64| if bytes == -1 { "N/A".to_owned() } else { long_size(bytes) };
    let unique = match (image.size, image.shared_size) {
        (-1, _) | (_, -1) => -1,
        (all, shared) => all - shared,
    };
    json!({
        "Repository": repository,
        "Tag": tag,
        "ID": short_id(&image.id),
        "CreatedSince": ago(image.created),
        "Size": size(image.size),
        "SharedSize": known(image.shared_size),
        "UniqueSize": known(unique),
        "Containers": if image.containers == -1 { "N/A".to_owned() } else { image.containers.to_string() },
    })
}

fn container(container: &Summary) -> Value {
    let names: Vec<&str> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    let volumes = container.mounts.iter().filter(|mount| mount.kind == "volume").count();
    json!({
        "ID": short_id(&container.id),
        "Image": container.image,
        "Command": quoted(&container.command),
        "LocalVolumes": volumes.to_string(),
        "Size": size(container.size_rw.unwrap_or_default()),
        "RunningFor": ago(container.created),
        "Status": container.status,
        "Names": names.join(","),
    })
}

fn volume(volume: &Volume) -> Value {
    let known = volume.usage_data;
    json!({
        "Name": volume.name,
        "Links": known.map_or("N/A".to_owned(), |data| data.ref_count.to_string()),
        "Size": known.map_or("N/A".to_owned(), |data| long_size(data.size)),
    })
}

fn since(time: &Option<Time>) -> String {
    time.as_ref().map(|time| ago(time.0.as_second())).unwrap_or_default()
}

fn record(record: &CacheRecord) -> Value {
    json!({
        "ID": record.id.get(..12).unwrap_or(&record.id),
        "CacheType": record.kind,
        "Size": long_size(record.size),
        "CreatedSince": since(&record.created_at),
        "LastUsedSince": since(&record.last_used_at),
        "UsageCount": record.usage_count.to_string(),
        "Shared": record.shared.to_string(),
    })
}
