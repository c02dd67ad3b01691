//! Snapshots of volumes: new volumes that share the contents of their files with the old one. Beyond Docker.

use std::sync::Arc;

use berth_api::volume::Volume;
use berth_storage::VolumeRecord;
use jiff::Timestamp;

use super::{ANONYMOUS, LOCAL, Options};
use crate::blocking::blocking;
use crate::container::Container;
use crate::create::mounts::volume_name;
use crate::engine::Parts;
use crate::event::VolumeEvent;
use crate::images::{freeze, thaw};
use crate::{Engine, Error};

impl Engine {
    /// Makes the volume `new` with all that `old` holds, its labels and its options. With `pause`, containers that have it
    /// are paused meanwhile, so that all of it is of one moment.
    pub async fn volume_snapshot(&self, old: &str, new: &str, pause: bool) -> Result<Volume, Error> {
        let (parts, old, new) = (Arc::clone(&self.parts), old.to_owned(), new.to_owned());
        // A client that goes away must leave no container frozen.
        let work = tokio::spawn(async move {
            let mut frozen = Vec::new();
            for container in if pause { parts.running_users(&old)? } else { Vec::new() } {
                if freeze(&parts, &container).await {
                    frozen.push(container);
                }
            }
            let outcome = {
                let parts = Arc::clone(&parts);
                blocking(move || parts.snapshot_volume(&old, &new)).await
            };
            for container in &frozen {
                thaw(&parts, container).await;
            }
            outcome
        });
        work.await.unwrap_or_else(|_| Err(Error::Unavailable("the engine is ending".into())))
    }
}

impl Parts {
    /// The containers that may write to a volume right now.
    fn running_users(&self, name: &str) -> Result<Vec<Arc<Container>>, Error> {
        let users = self.storage.volumes().users()?.remove(name).unwrap_or_default();
        // One may have gone since.
        let found = users.iter().filter_map(|id| self.containers.find(id).ok());
        Ok(found.filter(|container| container.state().running().is_some()).collect())
    }

    fn snapshot_volume(&self, old: &str, new: &str) -> Result<Volume, Error> {
        volume_name(new)?;
        let failed = |why: String| format!("snapshot {old}: {why}");
        let taken = || Error::Conflict(failed(format!("volume name {new} is already in use")));
        let _held = (self.volumes.hold(old), self.volumes.hold(new));
        let Some(record) = self.storage.volumes().get(old)? else {
            return Err(Error::NoSuchVolume(old.to_owned()));
        };
        let options = Options::parse(record.options.as_ref(), true).unwrap_or_default();
        if record.driver != LOCAL || options.needs_mount() {
            let why = "its files are not in the data root; \"volume export\" and \"volume import\" copy them";
            return Err(Error::InvalidParameter(failed(why.to_owned())));
        }
        let mut labels = record.labels;
        if let Some(labels) = &mut labels {
            labels.remove(ANONYMOUS);
        }
        let made = VolumeRecord {
            name: new.to_owned(),
            driver: record.driver,
            created: Timestamp::now(),
            labels: labels.filter(|labels| !labels.is_empty()),
            options: record.options,
        };
        self.storage.volumes().copy(old, &made, options.size).map_err(|error| match error {
            berth_storage::Error::NoSharing(_) => Error::InvalidParameter(failed(format!(
                "{error}; \"volume export\" and \"volume import\" copy it"
            ))),
            berth_storage::Error::Exists { .. } | berth_storage::Error::Held { .. } => taken(),
            error => error.into(),
        })?;
        self.tell_volume(new, made.driver.clone(), VolumeEvent::Create);
        Ok(self.shown_volume(made))
    }
}
