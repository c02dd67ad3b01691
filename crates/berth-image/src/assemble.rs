//! From unpacked layers to a recorded image.

use std::os::fd::AsFd;
use std::path::PathBuf;

use berth_archive::extract::fixup;
use berth_oci::{Digest, ImageConfig, chain_ids};
use berth_storage::{ImageRecord, Layer, Lease, Source, Storage, Tag};
use jiff::Timestamp;

use crate::unpack::Unpacked;
use crate::{Error, Result, variants};

/// The layers of an image, lowest first: those that are stored already, and those to be brought.
#[derive(Debug)]
pub(crate) struct Plan {
    pub diffs: Vec<Digest>,
    pub chains: Vec<Digest>,
    /// How many of the lowest are stored; the lease holds them.
    pub present: usize,
    /// The image that it is made from here, if it is.
    pub parent: Option<Digest>,
}

impl Plan {
    /// Finds and holds what is there.
    pub fn new(storage: &Storage, config: &ImageConfig, lease: &mut Lease) -> Result<Self> {
        let diffs = config.rootfs.diff_ids.clone();
        let chains = chain_ids(&diffs);
        let mut present = 0;
        // The topmost stored layer holds all below it.
        for (index, chain) in chains.iter().enumerate().rev() {
            if storage.layers().hold(chain, lease)? {
                present = index + 1;
                break;
            }
        }
        Ok(Self { diffs, chains, present, parent: None })
    }
}

/// Puts the layers in place from the bottom upwards, each completed by those below it. `layers` are all that
/// [`Plan::present`] leaves, in order. Blocks.
pub(crate) fn place(storage: &Storage, plan: &Plan, layers: Vec<Unpacked>, lease: &mut Lease) -> Result<()> {
    if layers.is_empty() {
        return Ok(());
    }
    let mut below: Vec<PathBuf> = match plan.present.checked_sub(1) {
        Some(top) => storage.layers().paths(&plan.chains[top])?,
        None => Vec::new(),
    };
    let mut copied = Vec::new();
    for layer in &layers {
        let directory = layer.staging.open()?;
        let bytes = fixup(directory.as_fd(), &layer.fixups, &below)
            .map_err(|source| Error::Unpack { layer: layer.diff.short().to_owned(), source })?;
        copied.push(bytes);
        below.insert(0, layer.staging.path());
    }
    // Copies from below are in no tar, with which the store could compare them after a power cut.
    if copied.iter().any(|bytes| *bytes > 0) {
        storage.layers().sync()?;
    }
    for ((index, layer), copied) in (plan.present..).zip(layers).zip(copied) {
        let record = Layer {
            chain: plan.chains[index].clone(),
            parent: index.checked_sub(1).map(|parent| plan.chains[parent].clone()),
            diff: layer.diff,
            size: layer.size + copied,
        };
        storage.layers().commit(layer.staging, &record, lease)?;
    }
    Ok(())
}

/// Records the image, whose documents and layers are stored and held. Names of an index lead to its image for this
/// machine if that is kept, and to the one that came last otherwise.
pub(crate) fn record(
    storage: &Storage,
    id: &Digest,
    config: &ImageConfig,
    plan: &Plan,
    sources: &[Source],
    names: &[Tag],
) -> Result<()> {
    let mut size = 0;
    for chain in &plan.chains {
        size += storage.layers().get(chain)?.map_or(0, |layer| layer.size);
    }
    let created = config.created.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let record = ImageRecord {
        id: id.clone(),
        chain: plan.chains.last().cloned(),
        size,
        created,
        parent: plan.parent.clone(),
        labels: Some(config.config.labels.clone()),
    };
    let images = storage.images();
    let Some(index) = sources.iter().find_map(|source| source.index.as_ref()) else {
        return Ok(images.put(&record, sources, names)?);
    };
    let holder = variants::holder(storage, index, (id, &config.platform()))?;
    let (own, other): (Vec<Tag>, Vec<Tag>) =
        names.iter().cloned().partition(|name| holder == *id || name.target != *index);
    images.put(&record, sources, &own)?;
    for name in &other {
        images.tag(&holder, name)?;
    }
    Ok(images.prefer(index, &holder)?)
}
