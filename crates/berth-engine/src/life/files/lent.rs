//! Volumes that a copy from or to a running container needs: the container may end, and let go of them, before the copy does.

use std::sync::Arc;

use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::{Error, name};

/// Volumes that stay mounted on the host until this is dropped, which blocks: not on a thread of the runtime's.
pub struct Lent {
    parts: Arc<Parts>,
    user: String,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.parts.volumes.has_mounted(&self.user) {
            self.parts.volumes.release(&self.user);
        }
    }
}

/// Keeps the volumes of a running container mounted. What a plugin refuses is no reason not to copy: the container has
/// its volumes already. One that does not run has mounts of its own made for each view.
pub async fn lend(parts: &Arc<Parts>, container: &Arc<Container>) -> Result<Option<Lent>, Error> {
    let mounts = &container.definition.mounts;
    let volumes: Vec<String> = mounts
        .iter()
        .filter_map(|plan| match &plan.source {
            MountSource::Volume { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    if volumes.is_empty() || !matches!(container.state(), State::Running(_)) {
        return Ok(None);
    }
    let random = |source| Error::Io { operation: "read random bytes".into(), source };
    let lent = Lent { parts: Arc::clone(parts), user: format!("copy-{}", name::new_id().map_err(random)?) };
    blocking(move || {
        for name in volumes {
            let Some(record) = lent.parts.storage.volumes().get(&name)? else { continue };
            if let Err(error) = lent.parts.volumes.acquire(&record, &lent.user) {
                tracing::warn!(name, %error, "a volume is not kept for a copy");
            }
        }
        Ok(Some(lent))
    })
    .await
}
