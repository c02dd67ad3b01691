//! How much room everything takes. What several images share counts once.

mod cache;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_api::container::{Status, Summary};
use berth_api::system::{DiskUsage, Usage};
use berth_api::volume::{UsageData, Volume};
use berth_api::{StringMap, image};
use berth_archive::tree;
use rustix::fs::{Mode, OFlags};

use crate::blocking::blocking;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::images::list::list;
use crate::images::sharing::Sharing;
use crate::inspect::to_signed;
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

fn volumes(parts: &Parts) -> Result<Usage<Volume>, Error> {
    let mut users: HashMap<String, i64> = HashMap::new();
    let mut anonymous = HashSet::new();
    for container in parts.containers.all() {
        let mut own = HashSet::new();
        for plan in &container.definition.mounts {
            if let MountSource::Volume { name, anonymous: without_name } = &plan.source {
                own.insert(name.clone());
                if *without_name {
                    anonymous.insert(name.clone());
                }
            }
        }
        own.into_iter().for_each(|name| *users.entry(name).or_default() += 1);
    }
    let mut usage = Usage::default();
    for (name, size) in volume_sizes(parts)? {
        let ref_count = users.get(&name).copied().unwrap_or_default();
        usage.total_count += 1;
        usage.total_size += size;
        match ref_count {
            0 => usage.reclaimable += size,
            _ => usage.active_count += 1,
        }
        let marked = anonymous.contains(&name);
        usage.items.push(volume(parts, name, marked, UsageData { ref_count, size }));
    }
    Ok(usage)
}

fn volume(parts: &Parts, name: String, anonymous: bool, usage: UsageData) -> Volume {
    let mountpoint = parts.volume_dir(&name);
    let made = std::fs::metadata(mountpoint.parent().unwrap_or(&mountpoint)).and_then(|data| data.created());
    let label = || StringMap::from([("com.docker.volume.anonymous".to_owned(), String::new())]);
    Volume {
        created_at: made.ok().and_then(|time| jiff::Timestamp::try_from(time).ok()).map(Into::into),
        driver: "local".into(),
        labels: anonymous.then(label),
        mountpoint: mountpoint.display().to_string(),
        name,
        options: None,
        scope: "local".into(),
        usage_data: Some(usage),
    }
}

/// All volumes on the disk with the bytes of their files, by name.
fn volume_sizes(parts: &Parts) -> Result<Vec<(String, i64)>, Error> {
    let path: PathBuf = parts.settings.data_root.join("volumes");
    let failed = |source: std::io::Error| Error::Io { operation: format!("read {}", path.display()), source };
    let names = match std::fs::read_dir(&path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let mut sizes = Vec::new();
    for name in names {
        let Ok(name) = name.map_err(failed)?.file_name().into_string() else { continue };
        let Ok(c_name) = CString::new(name.as_bytes()) else { continue };
        let content = tree::open_directory(root.as_fd(), &c_name)
            .and_then(|volume| tree::open_directory(volume.as_fd(), c"_data"));
        // What holds no content is no volume, or is being removed.
        let Ok(content) = content else { continue };
        sizes.push((name, to_signed(tree::content_size(content.as_fd()).map_err(failed)?)));
    }
    sizes.sort();
    Ok(sizes)
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
