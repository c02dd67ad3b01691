//! Creating a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::container::{CreateResponse, HostConfig};
use berth_api::descriptor::Descriptor;
use berth_api::network::EndpointSettings;
use berth_image::ResolvedImage;
use berth_oci::Platform;
use berth_storage::{ContainerRecord, Wish};

use super::owner::Owner;
use super::{links, mounted_images, sources};
use crate::container::{Container, Kept};
use crate::create::mounts::{MountPlan, MountSource};
use crate::create::{self, Definition, NetworkPlan};
use crate::descriptors::described;
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::network::attachment::{Asked, Attachment};
use crate::network::object::PREDEFINED;
use crate::volumes::Preparation;
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

fn create(parts: &Arc<Parts>, mut op: op::CreateContainer) -> Result<CreateResponse, Error> {
    let wanted = op.name.clone();
    let image = image(parts, &op)?;
    let inherited = inherited(parts, &op.host_config)?;
    settle_named(parts, &mut op.host_config)?;
    parts.check_remapped(&op.host_config)?;
    let endpoints = std::mem::take(&mut op.endpoints);
    let defaults = create::image_defaults(&image.config);
    let settings = parts.current.get();
    settings.defaults.settle(&mut op.host_config);
    settings.runtimes.require(&op.host_config.runtime)?;
    let (mut definition, warnings) =
        create::define(op, image.record.id.to_string(), &defaults, parts.cpus, &parts.settings.log)
            .inspect_err(|error| keep_named_volumes(parts, error))?;
    definition.image_manifest = manifest(parts, &image);
    definition.attachments = attachments(parts, &definition, endpoints)?;
    create::data_root::settle(&mut definition.mounts, &definition.host, &parts.settings.data_root)?;
    create::mounts::inherit(&mut definition.mounts, inherited);
    settle_images(parts, &mut definition.mounts)?;
    sources::check(&definition)?;
    // Composed again at each start; what cannot be is refused now.
    let cgroup = crate::spec::cgroup_path(&definition, &parts.settings.cgroup_parent);
    crate::spec::compose(&without_devices(&definition), &cgroup, &Default::default())?;
    let links = links::settle(parts, &definition.host, &definition.network)?;
    let limit = storage_limit(parts, &definition.host)?;
    let id = definition.id.clone();
    let name = take_name(parts, wanted, &id)?;
    let links = parts.know_links(&id, &name, links);
    let kept = Kept { links, ..Kept::new(name.clone()) };
    let outcome = make(parts, definition, kept, image.record.chain.as_ref(), limit);
    if outcome.is_err() {
        parts.containers.remove(&id);
        parts.containers.release(&name, &id);
    }
    outcome?;
    if let Err(error) = parts.storage.images().touch(&image.record.id) {
        tracing::warn!(image = %image.record.id, %error, "the use of an image was not noted");
    }
    Ok(CreateResponse { id, warnings })
}

/// Makes the volumes with names that came before what a container is refused for: Docker has made them by then, and
/// scripts remove them.
fn keep_named_volumes(parts: &Parts, refusal: &Error) {
    let Error::DuplicateMount { earlier, .. } = refusal else { return };
    for plan in earlier {
        let MountSource::Volume { name, anonymous: false, .. } = &plan.source else { continue };
        if let Err(error) = parts.ensure_volume(name, &plan.wish) {
            tracing::debug!(name, %error, "a volume of a refused container was not made");
        }
    }
}

/// Finds the images that are mounted, which must be there.
fn settle_images(parts: &Parts, plans: &mut [MountPlan]) -> Result<(), Error> {
    for plan in plans {
        if let MountSource::Image { name, id, .. } = &mut plan.source
            && id.is_empty()
        {
            // Not "not found": clients would take the container's image to be missing.
            let found = parts.images.resolve(name);
            let found = found.map_err(|error| Error::InvalidParameter(Error::Image(error).to_string()))?;
            *id = found.record.id.to_string();
        }
    }
    Ok(())
}

/// What stands for the image's manifest. That it cannot be read is no reason to do without the container.
fn manifest(parts: &Parts, image: &ResolvedImage) -> Option<Descriptor> {
    match parts.images.manifest(image) {
        Ok(found) => found.map(described),
        Err(error) => {
            tracing::warn!(image = %image.record.id, %error, "the image's manifest could not be read");
            None
        }
    }
}

/// The image that is named, for the platform that is asked for.
fn image(parts: &Parts, op: &op::CreateContainer) -> Result<ResolvedImage, Error> {
    let platform = op.platform.as_deref().map(str::parse::<Platform>).transpose();
    let platform = platform.map_err(|error| Error::InvalidParameter(format!("{error}")))?;
    Ok(parts.images.resolve_for(&op.config.image, platform.as_ref())?)
}

/// The mounts of the containers that `--volumes-from` names.
fn inherited(parts: &Parts, host: &HostConfig) -> Result<Vec<MountPlan>, Error> {
    let mut all = Vec::new();
    for text in host.volumes_from.iter().flatten() {
        if text.is_empty() {
            let why = "volumes-from specification cannot be an empty string";
            return Err(Error::InvalidParameter(why.into()));
        }
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = create::mounts::volumes_from_mode(mode)?;
        // Not "not found": clients would take the image to be missing.
        let from = parts.containers.find(name).map_err(|error| Error::InvalidParameter(error.to_string()))?;
        let mounts = from
            .definition
            .mounts
            .iter()
            .filter(|plan| !matches!(plan.source, MountSource::Tmpfs { .. } | MountSource::Lent { .. }));
        all.extend(mounts.cloned().map(|plan| MountPlan {
            read_only: plan.read_only || read_only,
            // As in Docker, how the other was asked for it is not shown.
            mode: String::new(),
            wish: Default::default(),
            ..plan
        }));
    }
    Ok(all)
}

/// Other containers that it names have to be there. Whose namespaces it joins is kept by ID: names change.
fn settle_named(parts: &Parts, host: &mut HostConfig) -> Result<(), Error> {
    for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
        let Some(name) = mode.strip_prefix("container:") else { continue };
        let found =
            parts.containers.find(name).map_err(|error| Error::InvalidParameter(error.to_string()))?;
        *mode = format!("container:{}", found.id());
    }
    if let Some(name) = host.network_mode.strip_prefix("container:")
        // One that is not there is missed where its network is looked for.
        && let Ok(found) = parts.containers.find(name)
    {
        host.network_mode = format!("container:{}", found.id());
    }
    Ok(())
}

/// The networks that it is to be on: the one that its mode names first. Empty if the mode says it all.
fn attachments(
    parts: &Parts,
    definition: &Definition,
    endpoints: BTreeMap<String, EndpointSettings>,
) -> Result<Vec<Attachment>, Error> {
    let main = match &definition.network {
        NetworkPlan::Container(_) => return Ok(Vec::new()),
        NetworkPlan::Bridge => "bridge",
        NetworkPlan::Host => "host",
        NetworkPlan::None => "none",
        NetworkPlan::Named(name) => name,
    };
    let mut found: Vec<Attachment> = Vec::new();
    let whole = BTreeMap::from([(main.to_owned(), EndpointSettings::default())]);
    let endpoints = if endpoints.is_empty() { whole } else { endpoints };
    let main = parts.find_network(main).map_or_else(|_| main.to_owned(), |object| object.name);
    for (name, settings) in endpoints {
        let name = if matches!(name.as_str(), "" | "default") { "bridge" } else { &name };
        let object = parts.find_network(name).ok();
        let shown = object.as_ref().map_or(name, |object| &object.name);
        Asked::parse(shown, object.as_ref(), &settings)?;
        let id = object.as_ref().filter(|_| !PREDEFINED.contains(&shown)).map_or("", |object| &object.id);
        found.push(Attachment::new(shown, id, settings));
    }
    let apart = !matches!(definition.network, NetworkPlan::Bridge | NetworkPlan::Named(_));
    if found.iter().any(|one| (apart || matches!(one.name.as_str(), "host" | "none")) && one.name != main) {
        return Err(Error::InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes".into(),
        ));
    }
    found.sort_by_key(|one| one.name != main);
    let plain = found.len() == 1 && found[0] == Attachment::new("bridge", "", EndpointSettings::default());
    Ok(if plain || apart { Vec::new() } else { found })
}

/// A container may be created before its devices are there: as in Docker, they are looked for at its start.
fn without_devices(definition: &Definition) -> Definition {
    let mut definition = definition.clone();
    let host = &mut definition.host;
    (host.devices, host.device_requests, host.blkio_weight_device) = (None, None, None);
    (host.blkio_device_read_bps, host.blkio_device_write_bps) = (None, None);
    (host.blkio_device_read_iops, host.blkio_device_write_iops) = (None, None);
    definition
}

/// Bytes that the container may write, by its own option or the daemon's.
fn storage_limit(parts: &Parts, host: &HostConfig) -> Result<Option<u64>, Error> {
    let limit = create::storage::limit(host)?.or(parts.settings.storage_limit);
    if limit.is_some() && !parts.storage.enforces_quotas() {
        return Err(Error::InvalidParameter(create::storage::UNSUPPORTED.to_owned()));
    }
    Ok(limit.filter(|bytes| *bytes != 0))
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
    kept: Kept,
    chain: Option<&berth_oci::Digest>,
    limit: Option<u64>,
) -> Result<(), Error> {
    let id = definition.id.clone();
    let (container, mailbox) = Container::new(definition, kept.clone());
    let record = container.record(&kept)?;
    let wish = Wish { limit, owned: parts.remap(&container.definition.host).is_some() };
    parts.storage.snapshots().create_with(&id, chain, wish).map_err(|error| match error {
        // The image was removed meanwhile.
        berth_storage::Error::NotFound { .. } => {
            berth_image::Error::NotFound(container.definition.config.image.clone()).into()
        }
        error => Error::from(error),
    })?;
    let prepared = mounted_images::hold(parts, &container.definition)
        .and_then(|()| with_volumes(parts, &container.definition, &record));
    if let Err(first) = prepared {
        let undone = mounted_images::release(parts, &container.definition)
            .and_then(|()| Ok(parts.storage.snapshots().remove(&id)?));
        return Err(match undone {
            Ok(()) => first,
            Err(undo) => Error::Unwound { first: Box::new(first), undo: vec![undo.to_string()] },
        });
    }
    let container = Arc::new(container);
    parts.containers.insert(Arc::clone(&container));
    Owner::spawn(parts, &container, mailbox);
    parts.events.publish(container.event(ContainerEvent::Create));
    Ok(())
}

/// Makes the volumes of a container and fills them, then its row with the notes of what it has.
fn with_volumes(parts: &Parts, definition: &Definition, record: &ContainerRecord) -> Result<(), Error> {
    let snapshot = parts.storage.snapshots().mounts(&definition.id)?;
    let prepared = Preparation::make(parts, definition, &snapshot)?;
    match parts.storage.containers().put_with(record, &prepared.names()) {
        Ok(()) => Ok(()),
        Err(error) => {
            prepared.undo();
            Err(error.into())
        }
    }
}
