//! Removal and renaming.

use std::sync::Arc;

use berth_api::container::Status;

use super::mounted_images;
use super::owner::{Answer, Owner, Request, StopRequest, ask, reply};
use super::start::remove_tree;
use super::stop::After;
use crate::blocking::blocking;
use crate::container::state::State;
use crate::create::mounts::MountSource;
use crate::event::{ContainerEvent, VolumeEvent};
use crate::{Engine, Error, op, signal};

impl Engine {
    /// Removes a container.
    pub async fn remove(&self, name: &str, op: op::Remove) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        if op.force {
            // Its owner may be waiting for copies to end before a start, and would not hear of this.
            container.gate.cut();
        }
        ask(&container, |answer| Request::Remove(op, answer)).await.map_err(|error| match error {
            Error::Conflict(why) => Error::Conflict(format!("cannot remove container \"{name}\": {why}")),
            other => other,
        })
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        let (name, new_name) = (name.trim(), new_name.trim());
        let bare = |name: &str| name.strip_prefix('/').unwrap_or(name).to_owned();
        if bare(name).is_empty() || bare(new_name).is_empty() {
            return Err(Error::InvalidParameter("Neither old nor new names may be empty".into()));
        }
        let container = self.parts.containers.find(name)?;
        ask(&container, |answer| Request::Rename(bare(new_name), answer)).await
    }
}

impl Owner {
    pub(super) async fn remove(&mut self, remove: op::Remove, answer: Answer) {
        let state = self.container.state();
        if matches!(state, State::Running(_) | State::Restarting(_)) && !remove.force {
            let why = match state.status() {
                Status::Paused => "container is paused and must be unpaused first".to_owned(),
                status => format!(
                    "container is {}: stop the container before removing or force remove",
                    status.as_str()
                ),
            };
            return reply(answer, Err(Error::Conflict(why)));
        }
        if matches!(state, State::Running(_)) {
            let kill = StopRequest { signal: signal::KILL, timeout: None, restart: false, by_client: true };
            return self.end(kill, Some(After::Removed(remove, answer))).await;
        }
        self.restart_at = None;
        let outcome = self.delete(remove).await;
        reply(answer, outcome);
    }

    /// Removes a container of `--rm`.
    pub(super) async fn auto_remove(&mut self) {
        if let Err(error) = self.delete(op::Remove { force: false, volumes: true }).await {
            tracing::error!(container = self.container.id(), %error, "--rm could not remove the container");
        }
    }

    /// Removes a container that does not run: intent, layer and files, row. Interrupted, the next engine goes on.
    pub(super) async fn delete(&mut self, remove: op::Remove) -> Result<(), Error> {
        self.change(|kept| kept.state = State::Removing)?;
        let _closed = self.container.gate.close_now().await;
        let id = self.container.id().to_owned();
        let parts = Arc::clone(&self.parts);
        let exec_dir = self.parts.exec_dir(&id);
        let volumes = if remove.volumes { self.anonymous_volumes() } else { Vec::new() };
        let container = id.clone();
        // A start that was interrupted may have made it after all had been cleared away.
        let cgroup = self.cgroup()?;
        let removed = Arc::clone(&self.container);
        let image = removed.definition.image.parse();
        let gone = blocking(move || {
            remove_tree(&exec_dir)?;
            cgroup.remove()?;
            if let Ok(image) = image {
                // It was in use until now.
                parts.storage.images().touch(&image)?;
            }
            mounted_images::release(&parts, &removed.definition)?;
            parts.storage.snapshots().remove(&container)?;
            parts.volumes.remove_with(&container, &volumes)
        })
        .await?;
        self.parts.execs.forget(&id);
        self.parts.containers.remove(&id);
        self.container.take_waiting();
        self.removed = true;
        for (name, driver) in gone {
            self.parts.tell_volume(&name, driver, VolumeEvent::Destroy);
        }
        self.tell(ContainerEvent::Destroy);
        self.container.live(|life| {
            life.up = false;
            life.removed = true;
        });
        Ok(())
    }

    /// The volumes that go with the container unless another has them: those without a name.
    fn anonymous_volumes(&self) -> Vec<String> {
        let plans = self.container.definition.mounts.iter();
        let names = plans.filter_map(|plan| match &plan.source {
            MountSource::Volume { name, anonymous: true, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }
}
