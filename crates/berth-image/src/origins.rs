//! Which blobs a layer came as, and which repositories are known to hold them: what a push need not send again.
//!
//! These are hints, kept after the images that they came with are gone; a registry is asked before one is believed.

use berth_oci::{Descriptor, Digest, Reference};
use berth_storage::Storage;
use serde::{Deserialize, Serialize};

use crate::Result;

/// The collection of the database, whose keys are diff IDs.
const COLLECTION: &str = "layer-origins";
/// Most blobs remembered for one layer.
const BLOBS: usize = 4;
/// Most repositories remembered for one blob.
const REPOSITORIES: usize = 8;
/// Entries from which on those of layers that are gone are forgotten.
const MANY: usize = 4096;

/// A blob that a layer came as, or was pushed as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The blob.
    pub blob: Descriptor,
    /// Canonical names of repositories, the latest first.
    pub repositories: Vec<String>,
}

/// What is known of a layer, the latest first. What is recorded and cannot be read counts as nothing.
pub(crate) fn of(storage: &Storage, diff: &Digest) -> Result<Vec<Origin>> {
    let text = storage.kv().get(COLLECTION, &diff.to_string())?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Remembers that a repository holds the layers `diffs` as `blobs`. Blocks.
pub(crate) fn remember<'a>(
    storage: &Storage,
    layers: impl IntoIterator<Item = (&'a Digest, &'a Descriptor)>,
    repository: &Reference,
) -> Result<()> {
    let repository = repository.name();
    for (diff, blob) in layers {
        let before = of(storage, diff)?;
        let after = with(before.clone(), blob, &repository);
        if after != before {
            let text = crate::made::json(&after)?;
            storage.kv().put(COLLECTION, &diff.to_string(), &String::from_utf8_lossy(&text))?;
        }
    }
    tidy(storage)
}

fn with(mut origins: Vec<Origin>, blob: &Descriptor, repository: &str) -> Vec<Origin> {
    let known = origins.iter().position(|origin| origin.blob.digest == blob.digest);
    let mut origin = match known {
        Some(index) => origins.remove(index),
        None => {
            let blob = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
            Origin { blob, repositories: Vec::new() }
        }
    };
    origin.repositories.retain(|known| known != repository);
    origin.repositories.insert(0, repository.to_owned());
    origin.repositories.truncate(REPOSITORIES);
    origins.insert(0, origin);
    origins.truncate(BLOBS);
    origins
}

/// Forgets layers that are gone, once there are many entries.
fn tidy(storage: &Storage) -> Result<()> {
    let entries = storage.kv().list(COLLECTION)?;
    if entries.len() < MANY {
        return Ok(());
    }
    let stored: std::collections::HashSet<String> =
        storage.layers().list()?.into_iter().map(|layer| layer.diff.to_string()).collect();
    for (diff, _) in entries.iter().filter(|(diff, _)| !stored.contains(diff)) {
        storage.kv().remove(COLLECTION, diff)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_comes_first_and_the_oldest_are_forgotten() {
        let blob = |content: &[u8]| Descriptor::new("x", Digest::of(content), 1);
        let mut origins = Vec::new();
        for number in 0..20_u8 {
            origins = with(origins, &blob(b"same"), &format!("r/{number}"));
        }
        assert_eq!(origins.len(), 1);
        assert_eq!(origins[0].repositories.len(), REPOSITORIES);
        assert_eq!(origins[0].repositories[0], "r/19");
        for number in 0..20_u8 {
            origins = with(origins, &blob(&[number]), "r/x");
        }
        assert_eq!((origins.len(), &origins[0].blob), (BLOBS, &blob(&[19])));
        let again = with(origins.clone(), &blob(&[18]), "r/x");
        assert_eq!(again[0].blob, blob(&[18]));
        assert_eq!(again.len(), BLOBS);
    }
}
