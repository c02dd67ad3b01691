//! Steps that are being made: whoever needs what another stage or another build makes already waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::Digest;
use tokio_util::sync::CancellationToken;

/// The steps that some build is making, by their keys.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Arc<Steps>);

/// With each, what is cancelled when it is over.
type Steps = Mutex<HashMap<Digest, CancellationToken>>;

fn lock(steps: &Steps) -> MutexGuard<'_, HashMap<Digest, CancellationToken>> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UnderWay {
    /// Takes a step on. If somebody else has, gives what is cancelled when that has come to an end, whichever.
    pub fn begin(&self, key: &Digest) -> Result<Claim, CancellationToken> {
        let mut steps = lock(&self.0);
        if let Some(over) = steps.get(key) {
            return Err(over.clone());
        }
        steps.insert(key.clone(), CancellationToken::new());
        Ok(Claim { steps: Arc::clone(&self.0), key: key.clone() })
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
}
