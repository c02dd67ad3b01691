//! How much room everything takes. What several images share counts once.

mod cache;

pub(crate) use cache::ceiling;

use std::sync::Arc;

use berth_api::container::{Status, Summary};
use berth_api::image;
use berth_api::system::{DiskUsage, Usage};
use berth_api::volume::{UsageData, Volume};

use crate::blocking::blocking;
use crate::engine::Parts;
use crate::images::list::list;
use crate::images::sharing::Sharing;
use crate::inspect::to_signed;
use crate::volumes::LOCAL;
use crate::{Engine, Error, op};

impl Engine {
    /// How much room the kinds of objects take that are asked for.
    pub async fn disk_usage(&self, wanted: op::DiskUsage) -> Result<DiskUsage, Error> {
        let everything = op::List { all: true, size: true, ..op::List::default() };
        let containers = match wanted.containers {
            true => Some(self.list(everything).await?),
            false => None,
        };
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let containers = containers.map(|items| containers_with(items, |id| log_size(&parts, id)));
            Ok(DiskUsage {
                image_usage: wanted.images.then(|| images(&parts)).transpose()?,
                container_usage: containers,
                volume_usage: wanted.volumes.then(|| volumes(&parts)).transpose()?,
                build_cache_usage: wanted.build_cache.then(|| cache::usage(&parts)).transpose()?,
            })
        })
        .await
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Bytes of a container's log; none if that cannot be told any more.
pub(crate) fn log_size(parts: &Parts, id: &str) -> u64 {
    parts.storage.snapshots().log_size(id).unwrap_or_default()
}

/// What containers take: what they have written, and, other than in lists, their logs.
fn containers_with(mut items: Vec<Summary>, log_size: impl Fn(&str) -> u64) -> Usage<Summary> {
    let mut usage = Usage { total_count: count(items.len()), ..Usage::default() };
    for container in &mut items {
        let logged = to_signed(log_size(&container.id));
        container.size_rw = container.size_rw.map(|written| written + logged);
        // As in Docker, this is shown elsewhere.
        container.image_manifest_descriptor = None;
        let written = container.size_rw.unwrap_or_default();
        usage.total_size += written;
        match container.state {
            Status::Running | Status::Paused | Status::Restarting => usage.active_count += 1,
            _ => usage.reclaimable += written,
        }
    }
    usage.items = items;
    usage
}

fn images(parts: &Parts) -> Result<Usage<image::Summary>, Error> {
    let all = parts.storage.images().listed()?;
    let sharing = Sharing::of(parts, &all)?;
    let items = list(parts, &op::ImageList::default(), all, Some(&sharing))?;
    let mut usage =
        Usage { total_count: count(items.len()), total_size: sharing.total(), ..Usage::default() };
    for image in &items {
        match image.containers {
            0 => usage.reclaimable += image.size - image.shared_size,
            _ => usage.active_count += 1,
        }
    }
    usage.items = items;
    Ok(usage)
}

/// Volumes that are mounted from elsewhere are left out, as in Docker: they take no room here.
fn volumes(parts: &Parts) -> Result<Usage<Volume>, Error> {
    let users = parts.storage.volumes().users()?;
    let mut usage = Usage::default();
    for record in parts.storage.volumes().list()? {
        if record.driver != LOCAL || record.options.as_ref().is_some_and(|options| !options.is_empty()) {
            continue;
        }
        let ref_count = users.get(&record.name).map_or(0, |users| count(users.len()));
        let size = crate::volumes::size(parts, &record.name).map_or(-1, to_signed);
        usage.total_count += 1;
        usage.total_size += size.max(0);
        match ref_count {
            0 => usage.reclaimable += size.max(0),
            _ => usage.active_count += 1,
        }
        let usage_data = Some(UsageData { ref_count, size });
        usage.items.push(Volume { usage_data, ..parts.shown_volume(record) });
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_run_can_be_reclaimed() {
        let container = |state, written| Summary { state, size_rw: Some(written), ..Summary::default() };
        let usage = containers_with(
            vec![
                container(Status::Running, 1),
                container(Status::Exited, 10),
                container(Status::Paused, 100),
                container(Status::Created, 1000),
            ],
            |_| 20_000,
        );
        assert_eq!((usage.active_count, usage.total_count), (2, 4));
        assert_eq!((usage.total_size, usage.reclaimable), (81_111, 41_010));
    }
}
