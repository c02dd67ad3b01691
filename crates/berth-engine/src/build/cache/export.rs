//! Writing caches.

use std::collections::HashSet;

use berth_api::build::{Cache, CacheKind, CacheMode};
use berth_build::solve::Image;
use berth_image::{Kept, PushLimits, STEP};
use berth_oci::Digest;
use tokio::sync::mpsc;

use super::super::executor::Worker;
use super::super::results;
use super::{QUEUE, Taken, mounts, reference, warn};
use crate::Error;

/// Writes the build's steps wherever the client wants them. Blocks.
pub(in super::super) fn export(worker: &mut Worker, image: &Image) -> Result<(), Error> {
    for cache in worker.request.cache_targets.clone() {
        worker.output.say(" ---> Exporting the cache\n")?;
        match one(worker, image, &cache) {
            Err(error) if cache.ignore_error => warn(worker, "the cache is not exported", &error)?,
            outcome => outcome?,
        }
    }
    Ok(())
}

fn one(worker: &mut Worker, image: &Image, cache: &Cache) -> Result<(), Error> {
    let taken = worker.caches.taken();
    let taken = match cache.mode {
        CacheMode::Max => taken,
        CacheMode::Min => chain(taken, &image.id),
    };
    let step = |one: Taken| Kept { image: one.image, annotation: STEP, key: one.key };
    let mut kept: Vec<Kept> = taken.into_iter().map(step).collect();
    if cache.mounts {
        kept.extend(mounts::images(worker)?);
    }
    let images = worker.parts().images.clone();
    match cache.kind {
        CacheKind::Local => {
            let unknown =
                |_| Error::InvalidParameter(format!("invalid number of an output: {:?}", cache.place));
            let number = cache.place.parse::<u32>().map_err(unknown)?;
            let saving = images.save_steps(&kept)?;
            results::stream(worker, number, move |_, out| Ok(saving.write_layout(out)?))
        }
        CacheKind::Registry => {
            let target = reference(&cache.place)?;
            let caller = worker.request.caller(&target).into();
            let (sender, mut messages) = mpsc::channel(QUEUE);
            worker.wait(async {
                let push = images.push_steps(&target, kept, caller, PushLimits::default(), sender);
                let (pushed, ()) = tokio::join!(push, async { while messages.recv().await.is_some() {} });
                Ok(pushed.map(drop)?)
            })
        }
    }
}

/// The steps that an image consists of.
fn chain(mut taken: Vec<Taken>, image: &Digest) -> Vec<Taken> {
    let (mut wanted, mut open) = (HashSet::new(), vec![image.clone()]);
    while let Some(image) = open.pop() {
        if wanted.insert(image.clone()) {
            let below =
                taken.iter().filter(|step| step.image == image).filter_map(|step| step.parent.clone());
            open.extend(below);
        }
    }
    taken.retain(|step| wanted.contains(&step.image));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_cache_has_what_the_image_consists_of() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let step = |key: &str, image: &str, parent: Option<&str>| Taken {
            key: digest(key),
            image: digest(image),
            parent: parent.map(digest),
        };
        let steps = vec![
            step("1", "a", None),
            step("2", "tool", Some("base")),
            step("3", "b", Some("a")),
            step("4", "c", Some("b")),
        ];
        let kept = chain(steps.clone(), &digest("b"));
        assert_eq!(kept, [steps[0].clone(), steps[2].clone()]);
    }
}
