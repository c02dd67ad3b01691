//! `--cache-from`: steps that images from elsewhere were made by, known by their histories.

use berth_build::solve::{Image, Probe};
use berth_oci::ImageConfig;
use jiff::Timestamp;

use super::executor::Worker;
use crate::Error;

impl Worker {
    /// What a step made, as an image says that the build may take from: its own history goes on with the step.
    pub(super) fn cached_from(&self, names: &[String], probe: &Probe<'_>) -> Result<Option<Image>, Error> {
        let epoch = self.request.epoch();
        for name in names.iter().filter(|_| probe.told) {
            // One that is not here is none.
            let Ok(found) = self.parts().images.resolve(name) else { continue };
            let Some(taken) = taken(probe, &found.config, epoch) else { continue };
            if taken != found.config {
                let parent = probe.parent.map(|image| &image.id);
                return self.compose(taken, None, parent).map(Some);
            }
            let image = Image { id: found.record.id, config: found.config };
            self.hold(&image)?;
            return Ok(Some(image));
        }
        Ok(None)
    }
}

/// The configuration of the step's image, if `source` was made by it, and at the time that all is to be done at, if there
/// is one.
fn taken(probe: &Probe<'_>, source: &ImageConfig, epoch: Option<i64>) -> Option<ImageConfig> {
    if source.platform() != probe.config.platform() {
        return None;
    }
    let before = probe.config.history.len();
    let (past, rest) = source.history.split_at_checked(before)?;
    let same =
        past.iter().zip(&probe.config.history).all(|(theirs, ours)| theirs.created_by == ours.created_by);
    let step = rest.first().filter(|step| same && step.created_by == probe.history)?;
    let created = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    if epoch.is_some_and(|epoch| created.is_none_or(|created| created.as_second() != epoch)) {
        return None;
    }
    let layers = probe.config.rootfs.diff_ids.len() + usize::from(!step.empty_layer);
    let below = source.rootfs.diff_ids.get(..layers)?;
    if !below.starts_with(&probe.config.rootfs.diff_ids) {
        return None;
    }
    if rest.len() == 1 {
        // The last step: the image itself, if it is what the step would make.
        let same = source.config == probe.config.config && source.author == probe.config.author;
        return same.then(|| source.clone());
    }
    let mut config = probe.config.clone();
    config.created.clone_from(&step.created);
    config.comment.clear();
    config.history.push(step.clone());
    config.rootfs.diff_ids = below.to_vec();
    Some(config)
}
