//! `--squash`: one layer for all that a build added to its base.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use berth_archive::marks::Marks;
use berth_archive::overlay::Overlay;
use berth_archive::pack::layer;
use berth_build::solve::Image;
use berth_oci::ImageConfig;
use berth_oci::config::History;
use jiff::Timestamp;

use super::borrowed::Borrowed;
use super::cancel::Cancelling;
use super::executor::Worker;
use super::mounted::Mounted;
use crate::Error;

/// Makes the image that has the same files as `image`, in one layer on top of its first `base` layers. Blocks.
pub(super) fn squash(worker: &mut Worker, image: Image, base: usize) -> Result<Image, Error> {
    let layers = &image.config.rootfs.diff_ids;
    if layers.len() <= base + 1 {
        return Ok(image);
    }
    let mut config = image.config.clone();
    config.rootfs.diff_ids.truncate(base);
    let borrowed = Borrowed::new(worker.parts(), &config)?;
    let lower = borrowed.snapshot()?.image()?;
    let mounted = Mounted::new(worker.parts(), Some(&image.config))?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.root()?.as_raw_fd()));
    let whole = Overlay::open_marked([(root, Marks::Whole { made: None })])?;
    let latest = worker.request.epoch();
    let options = layer::Options { latest, ..layer::Options::default() };
    let write = |out: &mut dyn std::io::Write| {
        layer::pack(&whole, &lower, &options, Cancelling::new(out, &worker.cancelled))
    };
    let made = worker.parts().images.layer_from("squash", write);
    let made = made.map_err(|error| worker.reason(error.into()))?;
    let now = latest.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    let steps = steps_of(&config, base);
    for step in config.history.iter_mut().skip(steps) {
        step.empty_layer = true;
    }
    config.history.push(History {
        created: Some(now.to_string()),
        comment: format!("merge {} to its base", image.id),
        ..History::default()
    });
    worker.compose(config, Some(made), None)
}

/// How many entries of the history stand for the first layers.
fn steps_of(config: &ImageConfig, layers: usize) -> usize {
    let mut full = config.history.iter().enumerate().filter(|(_, step)| !step.empty_layer);
    layers.checked_sub(1).and_then(|last| full.nth(last)).map_or(0, |(place, _)| place + 1)
}
