//! What an image's layers cost and waste.

use std::sync::Arc;

use berth_api::image::layers::{Layer, Layers, Tally, WastedFile};
use berth_archive::waste;
use berth_image::ResolvedImage;

use super::sharing::Sharing;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::{Engine, Error};

/// Wasted files that are named.
const LARGEST: usize = 20;

impl Engine {
    /// What each layer of an image adds, changes and removes, and what it wastes.
    pub async fn image_layers(&self, name: &str) -> Result<Layers, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || layers(&parts, &name)).await
    }
}

fn layers(parts: &Parts, name: &str) -> Result<Layers, Error> {
    let image = parts.images.resolve(name)?;
    // They stay while they are read.
    let _held = parts.images.hold(&image.record.id, &image.config)?;
    let ResolvedImage { record, config } = image;
    let mut paths = match &record.chain {
        Some(top) => parts.storage.layers().paths(top)?,
        None => Vec::new(),
    };
    paths.reverse();
    let report = waste::report(&paths, parts.storage.layers().marks(), LARGEST)?;
    let sharing = Sharing::of(parts, &parts.storage.images().listed()?)?;
    let mut steps = config.history.iter().filter(|step| !step.empty_layer);
    let chains = berth_oci::chain_ids(&config.rootfs.diff_ids);
    let mut layers = Vec::new();
    for ((diff, chain), share) in config.rootfs.diff_ids.iter().zip(chains).zip(&report.layers) {
        layers.push(Layer {
            diff_id: diff.to_string(),
            size: parts.storage.layers().get(&chain)?.map_or(0, |layer| to_signed(layer.size)),
            images: sharing.users(&chain),
            chain_id: chain.to_string(),
            created_by: steps.next().map(|step| step.created_by.clone()).unwrap_or_default(),
            added: tally(share.added),
            changed: tally(share.changed),
            removed: tally(share.removed),
            wasted: to_signed(share.wasted),
        });
    }
    let largest = report.largest.into_iter().map(|file| WastedFile {
        path: format!("/{}", String::from_utf8_lossy(&file.path)),
        size: to_signed(file.bytes),
        layer: file.layer + 1,
        hidden_by: file.hidden_by + 1,
    });
    Ok(Layers {
        id: record.id.to_string(),
        size: to_signed(record.size),
        wasted: layers.iter().map(|layer| layer.wasted).sum(),
        layers,
        largest: largest.collect(),
    })
}

fn tally(tally: waste::Tally) -> Tally {
    Tally { entries: tally.entries, bytes: to_signed(tally.bytes) }
}
