//! Images that a container has mounted. Each is held as a container's own image is: by a snapshot, which keeps the layers
//! though the image may be removed, and is a whole copy where there are no overlays. Nothing is ever written into it.

use std::collections::BTreeSet;

use berth_storage::Wish;

use crate::Error;
use crate::create::Definition;
use crate::create::mounts::MountSource;
use crate::engine::Parts;

/// The snapshot of an image that a container has mounted.
pub(super) fn snapshot_id(container: &str, image: &str) -> String {
    let digest = image.rsplit(':').next().unwrap_or(image);
    format!("{container}-{}", digest.get(..12).unwrap_or(digest))
}

/// The container that a snapshot belongs to.
pub(super) fn owner(snapshot: &str) -> &str {
    snapshot.split('-').next().unwrap_or(snapshot)
}

/// The images that are mounted, by their IDs.
fn all(definition: &Definition) -> BTreeSet<&str> {
    let mounts = definition.mounts.iter();
    let ids = mounts.filter_map(|plan| match &plan.source {
        MountSource::Image { id, .. } => Some(id.as_str()),
        _ => None,
    });
    ids.collect()
}

/// Makes the snapshots of a container's mounted images. What a crash leaves of them is swept, as the container's own is.
pub(super) fn hold(parts: &Parts, definition: &Definition) -> Result<(), Error> {
    let wish = Wish { limit: None, owned: parts.remap(&definition.host).is_some() };
    for image in all(definition) {
        let chain = parts.images.resolve(image)?.record.chain;
        let snapshot = snapshot_id(&definition.id, image);
        parts.storage.snapshots().create_with(&snapshot, chain.as_ref(), wish)?;
    }
    Ok(())
}

/// Removes the snapshots of a container's mounted images; none there is success.
pub(super) fn release(parts: &Parts, definition: &Definition) -> Result<(), Error> {
    let snapshots = parts.storage.snapshots();
    all(definition)
        .into_iter()
        .try_for_each(|image| Ok(snapshots.remove(&snapshot_id(&definition.id, image))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_name_their_containers() {
        let id = snapshot_id("abc", "sha256:0123456789abcdef");
        assert_eq!((id.as_str(), owner(&id), owner("abc")), ("abc-0123456789ab", "abc", "abc"));
    }
}
