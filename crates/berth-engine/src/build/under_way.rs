//! Steps that are being made: whoever needs what another stage or another build makes already waits for it. And images
//! that builds use: none of them goes to make room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::Digest;
use tokio_util::sync::CancellationToken;

/// The steps that some build is making, by their keys, and the images that some build uses.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    steps: Arc<Steps>,
    images: Arc<Images>,
}

/// How many users each has.
type Images = Mutex<HashMap<Digest, usize>>;

/// With each, what is cancelled when it is over.
type Steps = Mutex<HashMap<Digest, CancellationToken>>;

fn lock(steps: &Steps) -> MutexGuard<'_, HashMap<Digest, CancellationToken>> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UnderWay {
    /// Takes a step on. If somebody else has, gives what is cancelled when that has come to an end, whichever.
    pub fn begin(&self, key: &Digest) -> Result<Claim, CancellationToken> {
        let mut steps = lock(&self.steps);
        if let Some(over) = steps.get(key) {
            return Err(over.clone());
        }
        steps.insert(key.clone(), CancellationToken::new());
        Ok(Claim { steps: Arc::clone(&self.steps), key: key.clone() })
    }

    /// Keeps an image from being removed as cache.
    pub fn use_image(&self, id: &Digest) -> ImageUse {
        *self.images().entry(id.clone()).or_default() += 1;
        ImageUse { images: Arc::clone(&self.images), id: id.clone() }
    }

    /// Whether a build uses an image.
    pub fn is_used(&self, id: &Digest) -> bool {
        self.images().contains_key(id)
    }

    /// Does something while no build begins to use an image; none if one does already. It can ask that of other images.
    pub fn unless_used<T>(&self, id: &Digest, work: impl FnOnce(&dyn Fn(&Digest) -> bool) -> T) -> Option<T> {
        let images = self.images();
        (!images.contains_key(id)).then(|| work(&|id| images.contains_key(id)))
    }

    fn images(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image that a build uses, until this is dropped.
#[derive(Debug)]
pub(crate) struct ImageUse {
    images: Arc<Images>,
    id: Digest,
}

impl Drop for ImageUse {
    fn drop(&mut self) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = images.get_mut(&self.id) {
            *users -= 1;
            if *users == 0 {
                images.remove(&self.id);
            }
        }
    }
}

/// A step that one build has taken on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    steps: Arc<Steps>,
    key: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(over) = lock(&self.steps).remove(&self.key) {
            over.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_on_once_at_a_time() {
        let (all, key) = (UnderWay::default(), Digest::of(b"step"));
        let claim = all.begin(&key).unwrap();
        let over = all.begin(&key).unwrap_err();
        assert!(all.begin(&Digest::of(b"other")).is_ok() && !over.is_cancelled());
        drop(claim);
        assert!(over.is_cancelled());
        assert!(all.begin(&key).is_ok());
    }

    #[test]
    fn an_image_is_used_until_the_last_build_is_over() {
        let (all, id) = (UnderWay::default(), Digest::of(b"image"));
        let (one, two) = (all.use_image(&id), all.use_image(&id));
        drop(one);
        let others = |is_used: &dyn Fn(&Digest) -> bool| is_used(&id);
        assert!(all.is_used(&id) && all.unless_used(&id, others).is_none());
        assert_eq!(all.unless_used(&Digest::of(b"other"), others), Some(true));
        drop(two);
        assert!(!all.is_used(&id));
        assert_eq!(all.unless_used(&id, others), Some(false));
    }
}
