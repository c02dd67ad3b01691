//! `--cache-from` and `--cache-to`: steps that are kept in registries and in directories of clients.
//!
//! A cache is an index of the images that steps made ([`berth_image::STEP`]). It is read when the build begins, and an image
//! comes when a step is the one that made it. What a cache says of a step is believed only as far as it fits the step; one
//! that cannot be read is none.

mod directory;
mod export;
mod mounts;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use berth_api::build::{Cache, CacheKind};
use berth_build::solve::{Image, Probe};
use berth_image::{MOUNT, Pulling, STEP};
use berth_oci::{Descriptor, Digest, ImageConfig, Reference};
use tokio::sync::mpsc;

use super::executor::Worker;
use crate::usage::ceiling;
use crate::{Error, error};

pub(super) use directory::from_layout;
pub(super) use export::export;
pub(super) use mounts::fill;

/// Messages of a transfer that wait for whoever drops them.
const QUEUE: usize = 16;

/// The caches of one build, and what of it is to be kept.
#[derive(Default)]
pub(super) struct Caches {
    sources: OnceLock<Vec<Source>>,
    /// Images that steps may be taken from by their histories.
    images: OnceLock<Vec<String>>,
    taken: Mutex<Vec<Taken>>,
    mounts: Mutex<Vec<Digest>>,
    /// Whether a step was made.
    grown: AtomicBool,
}

/// A step of the build, done now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    key: Digest,
    image: Digest,
    parent: Option<Digest>,
}

/// A cache that steps are taken from.
struct Source {
    place: Place,
    /// Steps and mounts by their keys.
    steps: HashMap<Digest, Descriptor>,
    mounts: HashMap<Digest, Descriptor>,
    /// Whether something of it could not be had.
    failed: AtomicBool,
}

enum Place {
    Registry(Reference),
    /// A directory of the client, by its name in the session.
    Directory(String),
}

impl Caches {
    /// A step is done.
    pub fn took(&self, key: &Digest, image: &Digest, parent: Option<&Digest>) {
        let step = Taken { key: key.clone(), image: image.clone(), parent: parent.cloned() };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.contains(&step) {
            taken.push(step);
        }
    }

    /// The steps of the build, done now or before.
    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A step was not taken from a cache.
    pub fn made(&self) {
        self.grown.store(true, Ordering::Relaxed);
    }

    /// A step uses a cache mount.
    pub fn mounted(&self, key: &Digest) {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !mounts.contains(key) {
            mounts.push(key.clone());
        }
    }

    fn sources(&self) -> &[Source] {
        self.sources.get().map(Vec::as_slice).unwrap_or_default()
    }
}

/// Reads what the caches hold that the client names. One that cannot be read is told of, and passed over. Blocks.
pub(super) fn open(worker: &mut Worker) -> Result<(), Error> {
    let (mut sources, mut images) = (Vec::new(), Vec::new());
    for cache in worker.request.cache_sources.clone() {
        let found = match read(worker, &cache) {
            // An image is a cache, too: its history says of which steps.
            Ok(None) => worker.find_image(&cache.place, None).map(|_| images.push(cache.place.clone())),
            Ok(Some(source)) => {
                sources.push(source);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = found {
            warn(worker, &format!("the cache {} cannot be used", cache.place), &error)?;
        }
    }
    // They are set once: builds open their caches once.
    let _ = (worker.caches.sources.set(sources), worker.caches.images.set(images));
    Ok(())
}

/// What a cache holds; none for an image.
fn read(worker: &Worker, cache: &Cache) -> Result<Option<Source>, Error> {
    let (place, entries) = match cache.kind {
        CacheKind::Registry => {
            let reference = reference(&cache.place)?;
            let caller = worker.request.caller(&reference).into();
            let entries =
                worker.wait(async { Ok(worker.parts().images.entries_at(&reference, caller).await?) })?;
            if !entries.iter().any(|entry| entry.annotations.contains_key(STEP)) {
                return Ok(None);
            }
            (Place::Registry(reference), entries)
        }
        CacheKind::Local => {
            (Place::Directory(cache.place.clone()), directory::entries(worker, &cache.place)?)
        }
    };
    let by = |annotation: &str| {
        let key = |entry: &Descriptor| entry.annotations.get(annotation)?.parse::<Digest>().ok();
        entries.iter().filter_map(|entry| Some((key(entry)?, entry.clone()))).collect()
    };
    Ok(Some(Source { place, steps: by(STEP), mounts: by(MOUNT), failed: AtomicBool::new(false) }))
}

fn reference(text: &str) -> Result<Reference, Error> {
    let invalid = |error: berth_oci::reference::ReferenceError| Error::InvalidParameter(error.to_string());
    text.parse::<Reference>().map(Reference::with_default_tag).map_err(invalid)
}

/// Tells of something without which the build goes on.
fn warn(worker: &mut Worker, what: &str, error: &Error) -> Result<(), Error> {
    worker.check()?;
    worker.output.say(&format!(" ---> [Warning] {what}: {}\n", error::chain(error)))
}

/// The build is over: its steps were used now, so that those go first that no build needs any more, and the cache has to be
/// under its ceiling. Blocks.
pub(super) fn close(worker: &Worker) {
    let keys: Vec<Digest> = worker.caches.taken().into_iter().map(|step| step.key).collect();
    if !keys.is_empty()
        && let Err(error) = worker.parts().storage.build_steps().touch(&keys)
    {
        tracing::warn!(%error, "the use of build steps is not noted");
    }
    if worker.caches.grown.load(Ordering::Relaxed) {
        ceiling::look(worker.parts(), &worker.handle, true);
    }
}

/// What a step made, if a cache has it. Blocks.
pub(super) fn find(worker: &mut Worker, probe: &Probe<'_>) -> Result<Option<Image>, Error> {
    let caches = std::sync::Arc::clone(&worker.caches);
    for source in caches.sources() {
        let Some(entry) = source.steps.get(probe.key) else { continue };
        let below = probe.parent.map_or(0, |image| image.config.rootfs.diff_ids.len());
        let found = source.bring(worker, entry, below).and_then(|image| {
            if !fits(probe, &image.config) {
                return Err(Error::Files(format!("{} is not what the step makes", entry.digest)));
            }
            worker.hold(&image).map(|()| image)
        });
        match found {
            Ok(image) => {
                if let Some(parent) = probe.parent {
                    worker.parts().storage.images().adopt(&image.id, &parent.id)?;
                }
                worker.parts().storage.build_steps().put(probe.key, &image.id)?;
                return Ok(Some(image));
            }
            Err(error) => source.fails(worker, &error)?,
        }
    }
    worker.cached_from(caches.images.get().map(Vec::as_slice).unwrap_or_default(), probe)
}

/// Whether an image can be what a step made: its own layer, and nothing else, is more than what was there.
fn fits(probe: &Probe<'_>, config: &ImageConfig) -> bool {
    let same = |one: &ImageConfig| serde_json::to_value(&one.config).unwrap_or_default();
    let (own, wanted) = (&config.rootfs.diff_ids, &probe.config.rootfs.diff_ids);
    same(config) == same(probe.config)
        && config.author == probe.config.author
        && config.platform() == probe.config.platform()
        && config.history.len() == probe.config.history.len() + 1
        && config.history.last().is_some_and(|last| last.created_by == probe.history)
        && own.starts_with(wanted)
        && own.len() <= wanted.len() + 1
}

impl Source {
    fn name(&self) -> String {
        match &self.place {
            Place::Registry(reference) => reference.familiar(),
            Place::Directory(name) => name.clone(),
        }
    }

    /// Tells of the first failure: whatever cannot be had is done again.
    fn fails(&self, worker: &mut Worker, error: &Error) -> Result<(), Error> {
        match self.failed.swap(true, Ordering::Relaxed) {
            true => worker.check(),
            false => warn(worker, &format!("the cache {} is incomplete", self.name()), error),
        }
    }

    /// Brings an image, whose first `below` layers are here. Blocks.
    fn bring(&self, worker: &Worker, entry: &Descriptor, below: usize) -> Result<Image, Error> {
        match &self.place {
            Place::Directory(name) => directory::bring(worker, name, entry, below),
            Place::Registry(reference) => {
                let how = Pulling {
                    caller: worker.request.caller(reference).into(),
                    unnamed: true,
                    ..Pulling::default()
                };
                let (sender, mut messages) = mpsc::channel(QUEUE);
                let images = worker.parts().images.clone();
                let reference = reference.at(entry.digest.clone());
                let id = worker.wait(async {
                    let pull = images.pull(&reference, how, sender);
                    let (pulled, ()) = tokio::join!(pull, async { while messages.recv().await.is_some() {} });
                    Ok(pulled?.id)
                })?;
                Ok(Image { config: images.config(&id)?, id })
            }
        }
    }
}
