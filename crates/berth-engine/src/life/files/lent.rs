//! Volumes that a copy needs: a container that runs may end, and let go of them, before the copy does.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::{Error, name};

/// Volumes that stay mounted on the host until this is dropped, which blocks.
pub struct Lent {
    parts: Arc<Parts>,
    user: String,
}

impl Lent {
    /// Nothing yet, for a user whose name begins so.
    pub fn new(parts: &Arc<Parts>, kind: &str) -> Result<Self, Error> {
        let random = |source| Error::Io { operation: "read random bytes".into(), source };
        let user = format!("{kind}-{}", name::new_id().map_err(random)?);
        Ok(Self { parts: Arc::clone(parts), user })
    }

    /// In whose name volumes are mounted.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.parts.volumes.has_mounted(&self.user) {
            return;
        }
        let release = || self.parts.volumes.release(&self.user);
        // Of a client that has gone, it is dropped on a thread that others wait for.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(release),
            _ => release(),
        }
    }
}

/// Keeps the volumes of a running container mounted. What a plugin refuses is no reason not to copy: the container has
/// its volumes already. For one that does not run, the view has them.
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
    let lent = Lent::new(parts, "copy")?;
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
