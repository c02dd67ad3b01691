//! Images, as clients list, fetch, name, save and remove them.

mod caller;
mod commit;
mod estimate;
mod history;
mod import;
mod layers;
pub(crate) mod list;
mod manifests;
mod messages;
pub(crate) mod pattern;
mod prune;
mod pull;
mod push;
mod save;
mod search;
pub(crate) mod sharing;
mod waiting;

use std::sync::Arc;

use berth_api::{image, progress};
use berth_image::{InUse, Removal, Removed, ResolvedImage};
use berth_oci::{Digest, Platform, Reference};
use berth_storage::Driver;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::create::image_defaults;
use crate::engine::Parts;
use crate::event::{Event, ImageEvent};
use crate::{Engine, Error, op};

pub use caller::Caller;
pub(crate) use commit::{freeze, is_left_frozen, pack, thaw};
pub(crate) use list::truth;

/// Progress of layers that waits for a slow client.
const QUEUE: usize = 64;

impl Engine {
    /// Everything about an image, for a platform if one is given; with `manifests`, all its platforms too.
    pub async fn image_inspect(
        &self,
        name: &str,
        platform: Option<Platform>,
        manifests: bool,
    ) -> Result<image::Inspect, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || inspect(&parts, &name, platform.as_ref(), manifests)).await
    }

    /// Loads the images of an archive, which is read by a thread of its own; only those for `platforms` if any are given.
    pub async fn image_load(
        &self,
        archive: Box<dyn std::io::Read + Send>,
        platforms: Vec<Platform>,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let parts = Arc::clone(&self.parts);
        let load = self.parts.paced.run(move || Ok(parts.images.load(archive, &platforms, &sender)?));
        let (loaded, ()) = tokio::join!(load, messages::loading(receiver, &progress));
        for image in loaded? {
            messages::loaded(&image, &progress).await;
            let parts = Arc::clone(&self.parts);
            let told = blocking(move || {
                parts.image_event(&image.id, &image.id.to_string(), ImageEvent::Load);
                Ok(())
            });
            told.await?;
        }
        Ok(())
    }

    /// Removes a name of an image, and with its last one the image and its parents without names.
    pub async fn image_remove(
        &self,
        name: &str,
        remove: op::ImageRemove,
    ) -> Result<Vec<image::DeleteItem>, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || {
            let how = Removal { force: remove.force, parents: !remove.keep_parents };
            let removed = parts.images.remove(&name, how, &|id| parts.users(id))?;
            Ok(removed_items(&parts, removed))
        })
        .await
    }

    /// Gives an image one more name.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        let (repository, tag) = (repository.to_owned(), tag.to_owned());
        blocking(move || {
            let image = parts.images.tag(&name, &repository, &tag)?;
            let shown =
                if tag.is_empty() { format!("{repository}:latest") } else { format!("{repository}:{tag}") };
            let shown = shown.parse::<Reference>().map_or(shown, |name| name.familiar());
            parts.image_event(&image.id, &shown, ImageEvent::Tag);
            Ok(())
        })
        .await
    }
}

impl Parts {
    pub(crate) fn image_event(&self, id: &Digest, name: &str, event: ImageEvent) {
        let labels = self.image_labels(id);
        self.events.publish(Event::Image { id: id.to_string(), name: name.to_owned(), labels, event });
    }

    /// The labels of an image; none if it is gone.
    fn image_labels(&self, id: &Digest) -> berth_api::StringMap {
        self.images.config(id).map(|config| config.config.labels.into_iter().collect()).unwrap_or_default()
    }

    /// The containers of an image.
    pub(crate) fn users(&self, id: &Digest) -> Vec<InUse> {
        let id = id.to_string();
        let users = self.containers.all().into_iter().filter(|container| container.definition.has_image(&id));
        users
            .map(|container| InUse {
                container: container.id().to_owned(),
                running: container.state().running().is_some(),
            })
            .collect()
    }
}

/// What is gone, as clients are told, with its events.
pub(crate) fn removed_items(parts: &Parts, removed: Vec<Removed>) -> Vec<image::DeleteItem> {
    let items = removed.into_iter().map(|item| match item {
        Removed::Untagged { name, image, along } => {
            if !along {
                parts.image_event(&image, &image.to_string(), ImageEvent::Untag);
            }
            image::DeleteItem::Untagged(name)
        }
        Removed::Deleted(image) => {
            parts.image_event(&image, &image.to_string(), ImageEvent::Delete);
            image::DeleteItem::Deleted(image.to_string())
        }
        Removed::Layer(chain, _) => image::DeleteItem::Deleted(chain.to_string()),
    });
    items.collect()
}

/// Tags and digests of an image, as people write them.
fn names(parts: &Parts, id: &Digest) -> Result<(Vec<String>, Vec<String>), Error> {
    Ok(familiar(&parts.images.references(id)?))
}

/// The same with those of which it is one platform.
fn all_names(parts: &Parts, id: &Digest) -> Result<(Vec<String>, Vec<String>), Error> {
    Ok(familiar(&parts.images.covering(id)?))
}

fn familiar(references: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<_>, Vec<_>) = references.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

fn inspect(
    parts: &Parts,
    name: &str,
    platform: Option<&Platform>,
    manifests: bool,
) -> Result<image::Inspect, Error> {
    let ResolvedImage { record, config } = parts.images.resolve_for(name, platform)?;
    let (repo_tags, repo_digests) = all_names(parts, &record.id)?;
    let (descriptor, manifests) = match manifests {
        true => manifests::summaries(parts, &record, &manifests::users(parts))?.unzip(),
        false => (None, None),
    };
    let diffs: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    Ok(image::Inspect {
        id: record.id.to_string(),
        repo_tags,
        repo_digests,
        parent: record.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: comment(&config),
        created: config.created.as_deref().and_then(|time| time.parse().ok()),
        author: config.author.clone(),
        config: Some(image_defaults(&config)),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        os: config.os.clone(),
        os_version: config.os_version.clone().unwrap_or_default(),
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        graph_driver: Some(graph_driver(parts, record.chain.as_ref())?),
        root_fs: image::RootFs {
            kind: "layers".into(),
            layers: Some(diffs).filter(|diffs| !diffs.is_empty()),
        },
        metadata: image::Metadata {
            last_tag_time: parts.storage.images().named_at(&record.id)?.map(Into::into).unwrap_or_default(),
        },
        descriptor,
        manifests,
    })
}

/// The image's comment, or that of its last step.
fn comment(config: &berth_oci::ImageConfig) -> String {
    match config.history.last() {
        Some(step) if config.comment.is_empty() => step.comment.clone(),
        _ => config.comment.clone(),
    }
}

fn graph_driver(parts: &Parts, chain: Option<&Digest>) -> Result<berth_api::container::GraphDriver, Error> {
    let name = parts.storage.driver().name().to_owned();
    if parts.storage.driver() == Driver::Copy {
        return Ok(berth_api::container::GraphDriver { name, data: None });
    }
    let mut data = berth_api::StringMap::new();
    if let Some(chain) = chain {
        let paths = parts.storage.layers().paths(chain)?;
        let mut paths = paths.iter().map(|path| path.display().to_string());
        if let Some(top) = paths.next() {
            data.insert("UpperDir".into(), top);
        }
        let lower: Vec<String> = paths.collect();
        if !lower.is_empty() {
            data.insert("LowerDir".into(), lower.join(":"));
        }
    }
    Ok(berth_api::container::GraphDriver { name, data: Some(data) })
}
