//! The steps that an image was made in.

use std::sync::Arc;

use berth_api::image::HistoryItem;
use berth_image::ResolvedImage;
use berth_oci::Platform;

use super::names;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::{Engine, Error};

/// What stands for the image of a step that is no image here.
const MISSING: &str = "<missing>";

impl Engine {
    /// The steps an image was built in, the newest first, each with the image that it gave if that is still here.
    pub async fn image_history(
        &self,
        name: &str,
        platform: Option<Platform>,
    ) -> Result<Vec<HistoryItem>, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || history(&parts, &name, platform.as_ref())).await
    }
}

fn history(parts: &Parts, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryItem>, Error> {
    let ResolvedImage { record, config } = parts.images.resolve_for(name, platform)?;
    let mut sizes = Vec::new();
    for chain in berth_oci::chain_ids(&config.rootfs.diff_ids) {
        sizes.push(parts.storage.layers().get(&chain)?.map_or(0, |layer| layer.size));
    }
    let mut sizes = sizes.into_iter();
    let steps = config.history.iter().map(|step| {
        let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or_default() };
        let created = step.created.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        HistoryItem {
            comment: step.comment.clone(),
            created: created.map_or(0, jiff::Timestamp::as_second),
            created_by: step.created_by.clone(),
            id: MISSING.into(),
            size: to_signed(size),
            tags: None,
        }
    });
    let mut items: Vec<HistoryItem> = steps.collect();
    items.reverse();
    let mut image = Some(record);
    for item in &mut items {
        let Some(record) = image else { break };
        let (tags, _) = names(parts, &record.id)?;
        item.id = record.id.to_string();
        item.tags = Some(tags).filter(|tags| !tags.is_empty());
        image = record.parent.map(|parent| parts.storage.images().get(&parent)).transpose()?.flatten();
    }
    Ok(items)
}
