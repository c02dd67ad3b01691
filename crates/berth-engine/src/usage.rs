//! How much room everything takes. What several images share counts once.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_api::container::{Status, Summary};
use berth_api::filter::Filters;
use berth_api::system::{DiskUsage, Usage};
use berth_api::volume::{UsageData, Volume};
use berth_api::{StringMap, image};
use berth_archive::tree;
use berth_oci::Digest;
use rustix::fs::{Mode, OFlags};

use crate::blocking::blocking;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::{Engine, Error, op};

impl Engine {
    /// How much room the kinds of objects take that are asked for.
    pub async fn disk_usage(&self, wanted: op::DiskUsage) -> Result<DiskUsage, Error> {
        let everything = op::List { all: true, size: true, ..op::List::default() };
        let containers = match wanted.containers {
            true => Some(containers(self.list(everything).await?)),
            false => None,
        };
        let images = match wanted.images {
            true => Some(self.image_list(true, Filters::default()).await?),
            false => None,
        };
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            Ok(DiskUsage {
                image_usage: images.map(|listed| measured(&parts, listed)).transpose()?,
                container_usage: containers,
                volume_usage: wanted.volumes.then(|| volumes(&parts)).transpose()?,
                // Nothing is built yet.
                build_cache_usage: wanted.build_cache.then(Usage::default),
            })
        })
        .await
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn containers(mut items: Vec<Summary>) -> Usage<Summary> {
    let mut usage = Usage { total_count: count(items.len()), ..Usage::default() };
    for container in &mut items {
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

/// The layers of images, each once, and how many images have each.
struct Layers {
    /// Size and parent, by chain ID.
    known: HashMap<Digest, (i64, Option<Digest>)>,
    users: HashMap<Digest, u32>,
}

impl Layers {
    fn of(&self, top: Option<&Digest>) -> Vec<Digest> {
        let mut chains = Vec::new();
        let mut next = top.cloned();
        while let Some(chain) = next {
            next = self.known.get(&chain).and_then(|(_, parent)| parent.clone());
            chains.push(chain);
        }
        chains
    }

    fn size(&self, chain: &Digest) -> i64 {
        self.known.get(chain).map_or(0, |(size, _)| *size)
    }
}

fn measured(parts: &Parts, mut items: Vec<image::Summary>) -> Result<Usage<image::Summary>, Error> {
    let known = parts.storage.layers().list()?.into_iter();
    let known = known.map(|layer| (layer.chain, (to_signed(layer.size), layer.parent))).collect();
    let mut layers = Layers { known, users: HashMap::new() };
    let records = parts.storage.images().list()?;
    let tops: HashMap<String, Option<Digest>> =
        records.into_iter().map(|record| (record.id.to_string(), record.chain)).collect();
    let top = |image: &image::Summary| tops.get(&image.id).and_then(Option::as_ref);
    for image in &items {
        for chain in layers.of(top(image)) {
            *layers.users.entry(chain).or_default() += 1;
        }
    }
    let total = layers.users.keys().map(|chain| layers.size(chain)).sum();
    let mut usage = Usage { total_count: count(items.len()), total_size: total, ..Usage::default() };
    for image in &mut items {
        let shared = |chain: &Digest| layers.users.get(chain).is_some_and(|users| *users > 1);
        let chains = layers.of(top(image)).into_iter().filter(shared);
        image.shared_size = chains.map(|chain| layers.size(&chain)).sum();
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
    fn layers_are_followed_to_the_bottom() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let known = HashMap::from([
            (digest("base"), (5, None)),
            (digest("middle"), (7, Some(digest("base")))),
            (digest("top"), (11, Some(digest("middle")))),
        ]);
        let layers = Layers { known, users: HashMap::new() };
        let chains = layers.of(Some(&digest("top")));
        assert_eq!(chains, [digest("top"), digest("middle"), digest("base")]);
        assert_eq!(chains.iter().map(|chain| layers.size(chain)).sum::<i64>(), 23);
        assert!(layers.of(None).is_empty());
    }

    #[test]
    fn only_what_does_not_run_can_be_reclaimed() {
        let container = |state, written| Summary { state, size_rw: Some(written), ..Summary::default() };
        let usage = containers(vec![
            container(Status::Running, 1),
            container(Status::Exited, 10),
            container(Status::Paused, 100),
            container(Status::Created, 1000),
        ]);
        assert_eq!((usage.active_count, usage.total_count), (2, 4));
        assert_eq!((usage.total_size, usage.reclaimable), (1111, 1010));
    }
}
