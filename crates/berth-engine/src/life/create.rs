//! Creating a container.

use std::sync::Arc;

use berth_api::container::CreateResponse;

use super::owner::Owner;
use super::sources;
use crate::container::state::State;
use crate::container::{Container, Kept};
use crate::create::{self, Definition};
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::{Engine, Error, name, op};

/// Random names that are tried before their kind is given up.
const ATTEMPTS: u32 = 100;

impl Engine {
    /// Creates a container.
    pub async fn create(self: &Arc<Self>, op: op::CreateContainer) -> Result<CreateResponse, Error> {
        let parts = Arc::clone(&self.parts);
        crate::blocking::blocking(move || create(&parts, op)).await
    }
}

fn create(parts: &Arc<Parts>, op: op::CreateContainer) -> Result<CreateResponse, Error> {
    let wanted = op.name.clone();
    let image = parts.images.resolve(&op.config.image)?;
    let defaults = create::image_defaults(&image.config);
    let (definition, warnings) =
        create::define(op, image.record.id.to_string(), &defaults, parts.cpus, &parts.settings.log)?;
    sources::check(&definition)?;
    // Composed again at each start; what cannot be is refused now.
    let cgroup = crate::spec::cgroup_path(&definition, &parts.settings.cgroup_parent);
    crate::spec::compose(&definition, &cgroup, &Default::default())?;
    let id = definition.id.clone();
    let name = take_name(parts, wanted, &id)?;
    let outcome = make(parts, definition, &name, image.record.chain.as_ref());
    if outcome.is_err() {
        parts.containers.release(&name, &id);
    }
    outcome?;
    Ok(CreateResponse { id, warnings })
}

fn take_name(parts: &Parts, wanted: Option<String>, id: &str) -> Result<String, Error> {
    if let Some(name) = wanted {
        parts.containers.reserve(&name, id)?;
        return Ok(name);
    }
    let mut outcome = Err(Error::Unavailable("no free name was found".into()));
    for attempt in 0..ATTEMPTS {
        let name = name::random(attempt);
        outcome = parts.containers.reserve(&name, id).map(|()| name);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Makes the writable layer, then the row: an interrupted creation leaves a layer that the next start sweeps.
fn make(
    parts: &Arc<Parts>,
    definition: Definition,
    name: &str,
    chain: Option<&berth_oci::Digest>,
) -> Result<(), Error> {
    let id = definition.id.clone();
    let kept = Kept { name: name.to_owned(), state: State::NEW, stopped_by_client: false, restarts: 0 };
    let (container, mailbox) = Container::new(definition, kept.clone());
    let record = container.record(&kept)?;
    parts.storage.snapshots().create(&id, chain)?;
    if let Err(first) = parts.storage.containers().put(&record) {
        return Err(match parts.storage.snapshots().remove(&id) {
            Ok(()) => first.into(),
            Err(undo) => Error::Unwound { first: Box::new(first.into()), undo: vec![undo.to_string()] },
        });
    }
    let container = Arc::new(container);
    parts.containers.insert(Arc::clone(&container));
    Owner::spawn(parts, &container, mailbox);
    parts.events.publish(container.event(ContainerEvent::Create));
    Ok(())
}
