//! The platforms of images: shown, and removed one by one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use berth_api::descriptor::Descriptor;
use berth_api::image::{AttestationData, DeleteItem, ImageData, ManifestSize, ManifestSummary, UnpackedSize};
use berth_image::{Content, Listed, Removed};
use berth_oci::{Digest, Platform};
use berth_storage::ImageRecord;

use crate::blocking::blocking;
use crate::descriptors::{described, platform};
use crate::engine::Parts;
use crate::event::ImageEvent;
use crate::inspect::to_signed;
use crate::{Engine, Error};

/// IDs of containers, by the ID of their image.
pub(super) type Users = HashMap<String, Vec<String>>;

/// The containers of all images.
pub(super) fn users(parts: &Parts) -> Users {
    let mut users = Users::new();
    for container in parts.containers.all() {
        users.entry(container.definition.image.clone()).or_default().push(container.id().to_owned());
    }
    users
}

/// What the names of an image point to, and what that lists; nothing for an image that no manifest tells of.
pub(super) fn summaries(
    parts: &Parts,
    record: &ImageRecord,
    users: &Users,
) -> Result<Option<(Descriptor, Vec<ManifestSummary>)>, Error> {
    let found = parts.images.listed(record)?;
    Ok(found.map(|(target, listed)| {
        (described(target), listed.into_iter().map(|one| summary(one, users)).collect())
    }))
}

fn summary(listed: Listed, users: &Users) -> ManifestSummary {
    let Listed { descriptor, available, stored, content } = listed;
    let mut summary = ManifestSummary {
        id: descriptor.digest.to_string(),
        descriptor: described(descriptor),
        available,
        size: ManifestSize { content: to_signed(stored), total: to_signed(stored) },
        kind: "unknown".into(),
        ..ManifestSummary::default()
    };
    match content {
        Content::Image { platform: made_for, record } => {
            let unpacked = record.as_ref().map_or(0, |record| to_signed(record.size));
            let containers = record.and_then(|record| users.get(&record.id.to_string()).cloned());
            summary.kind = "image".into();
            summary.size.total = summary.size.total.saturating_add(unpacked);
            summary.image_data = Some(ImageData {
                platform: made_for.map(platform).unwrap_or_default(),
                containers: containers.unwrap_or_default(),
                size: UnpackedSize { unpacked },
            });
        }
        Content::Attestation(about) => {
            summary.kind = "attestation".into();
            summary.attestation_data = Some(AttestationData { about: about.to_string() });
        }
        Content::Unknown => {}
    }
    summary
}

/// Bytes of the files of the other platforms of images, by the images whose names cover them.
pub(super) fn sizes(parts: &Parts, covered: &HashSet<Digest>) -> Result<HashMap<Digest, i64>, Error> {
    let mut sizes: HashMap<Digest, i64> = HashMap::new();
    for id in covered {
        let Some(record) = parts.storage.images().get(id)? else { continue };
        let names = parts.images.covering(id)?;
        let Some(name) = names.first() else { continue };
        if let Some(main) = parts.storage.images().by_name(&name.canonical())? {
            let size = sizes.entry(main.id).or_default();
            *size = size.saturating_add(to_signed(record.size));
        }
    }
    Ok(sizes)
}

impl Engine {
    /// Removes some platforms of an image; the others stay under its names.
    ///
    /// # Errors
    /// As [`berth_image::Images::remove_platforms`].
    pub async fn image_remove_platforms(
        &self,
        name: &str,
        platforms: Vec<Platform>,
        force: bool,
    ) -> Result<Vec<DeleteItem>, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || {
            let removed = parts.images.remove_platforms(&name, &platforms, force, |id| parts.users(id))?;
            let mut items = Vec::new();
            for variant in removed {
                for item in variant.removed {
                    items.push(match item {
                        Removed::Untagged { name, image, .. } => {
                            parts.image_event(&image, &image.to_string(), ImageEvent::Untag);
                            DeleteItem::Untagged(name)
                        }
                        Removed::Deleted(manifest) | Removed::Layer(manifest, _) => {
                            DeleteItem::Deleted(manifest.to_string())
                        }
                    });
                }
                parts.image_event(&variant.id, &variant.id.to_string(), ImageEvent::Delete);
            }
            Ok(items)
        })
        .await
    }
}
