//! Starting a container: the hot path.
//!
//! One row of intent, one launch, one release. What a run holds (address, ports, layer, cgroup) is given back by
//! [`Owner::give_back_network`] and [`Owner::clear_run`], after a failed start as after an end, at whatever step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_network::Endpoint;
use berth_runtime::cgroup::{Manager, RealTime};
use berth_runtime::launch::{
    GeneratedFile, Launch, NetworkMode, Release, ReleaseMode, Rootfs, Stage, StartError,
};
use berth_shim::client::{ShimControl, ShimEvent};
use berth_shim::log::Plan;
use berth_shim::protocol::Target;
use berth_shim::spawner::LaunchRequest;
use berth_sys::ids::Mappings;
use ipnet::IpNet;
use oci_spec::runtime::Spec;

use super::links::Linked;
use super::names::Resolution;
use super::owner::Owner;
use super::sources::Seen;
use super::{hooks, propagation, shm, sources};
use crate::container::Container;
use crate::container::state::{Exited, Failure, Running, State};
use crate::create::NetworkPlan;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::event::{ContainerEvent, NetworkEvent, VolumeEvent};
use crate::logging::{self, Subject};
use crate::network::default_routes;
use crate::network::names::{Forwarding, has_names};
use crate::spec;
use crate::spec::files::{self, Surroundings};
use crate::{Engine, Error};

/// Files that the engine writes for each container, and their names inside.
pub(super) const GENERATED: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// How long a start waits for connections that were promised an attachment.
const ATTACH_PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Starts a container; `NotModified` if it runs.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        super::owner::ask(&container, super::owner::Request::Start).await
    }
}

impl Owner {
    /// Starts it because a client asked; policies begin anew.
    pub(super) async fn start_by_client(&mut self) -> Result<(), Error> {
        match self.container.state() {
            State::Running(running) if running.paused => {
                return Err(Error::Conflict("cannot start a paused container, try unpause instead".into()));
            }
            State::Running(_) => return Err(Error::NotModified("container is already running".into())),
            State::Removing => {
                return Err(Error::Conflict("container is marked for removal and cannot be started".into()));
            }
            State::Created { .. } | State::Starting { .. } | State::Restarting(_) | State::Exited(_) => {}
        }
        self.restart_at = None;
        self.back_off.reset();
        self.start(0).await
    }

    /// What follows a start that a client asked for: `--rm` also takes away what never ran.
    pub(super) async fn after_start(&mut self) {
        let failed = !matches!(self.container.state(), State::Running(_));
        if failed && self.container.definition.host.auto_remove && self.was_tried() {
            self.auto_remove().await;
        }
    }

    fn was_tried(&self) -> bool {
        matches!(self.container.state(), State::Created { failure: Some(_) } | State::Exited(_))
    }

    /// Starts it, for the so-manieth time by its policy.
    pub(super) async fn start(&mut self, restarts: u32) -> Result<(), Error> {
        // Copies that go on have its files mounted.
        let _closed = self.container.gate.close().await;
        let before = self.container.state().last_exit().cloned();
        match self.launch(before.clone(), restarts).await {
            Ok(running) => {
                self.started(running);
                Ok(())
            }
            Err(error) => {
                self.fail(before, &error).await;
                Err(error)
            }
        }
    }

    fn started(&mut self, running: Running) {
        self.lack_told = false;
        let mut kept = self.container.kept();
        kept.health = self.fresh_health();
        kept.state = State::Running(running.clone());
        self.tell_mounts();
        self.tell_networks(NetworkEvent::Connect);
        self.show(kept, ContainerEvent::Start);
        self.monitor(&running);
        self.container.live(|life| {
            life.up = true;
            life.code = 0;
            life.error.clear();
        });
        // The row of intent is enough to find the container again; this one says since when it runs.
        self.change_regardless(|kept| kept.stopped_by_client = false);
    }

    async fn fail(&mut self, before: Option<Exited>, error: &Error) {
        tracing::info!(container = self.container.id(), %error, "the container could not be started");
        // Whoever is attached sees the end.
        self.container.take_waiting();
        self.shim = None;
        self.container.set_shim(None);
        self.give_back_network().await;
        self.clear_run().await;
        let code = if let Error::Start(error) = error { error.exit_code() } else { 125 };
        let text = error.to_string();
        let mut kept = self.container.kept();
        kept.state = State::failed(before, Failure { code, error: text.clone() });
        self.write_regardless(&kept);
        self.show(kept, ContainerEvent::Die { code, ran: Duration::ZERO });
        self.container.live(|life| {
            life.up = false;
            life.exits += 1;
            life.code = code;
            life.error = text;
        });
    }

    /// Makes a run: from the row of intent to the program that executes.
    async fn launch(&mut self, before: Option<Exited>, restarts: u32) -> Result<Running, Error> {
        let parts = Arc::clone(&self.parts);
        let container = Arc::clone(&self.container);
        let settings = parts.current.get();
        settings.runtimes.require_startable(&container.definition.host.runtime)?;
        let current = container.current();
        let effective = parts.effective(&current);
        let mut definition = settings.defaults.complete(&effective);
        let id = container.id();
        // A client whose answer says that it is attached must not miss the first byte.
        let _ = tokio::time::timeout(ATTACH_PATIENCE, container.all_attached()).await;
        let (joined, shm) = self.joined()?;
        self.lease = Some(parts.storage.snapshots().acquire(id)?);
        let endpoints = self.take_endpoints().await?;
        let again = matches!(container.state(), State::Restarting(_));
        self.change(|kept| {
            kept.restarts = restarts;
            kept.state = State::Starting { endpoints: endpoints.clone(), before, again };
        })?;
        let linked = self.linked(&endpoints)?;
        let (generated, resolution) = self.generated(&endpoints, &linked).await?;
        self.tell_linked(&endpoints);
        if !linked.variables.is_empty() {
            // What the container has of its own wins: the last of a name counts.
            let own = &mut definition.to_mut().config.env;
            *own = Some(linked.variables.into_iter().chain(own.take().unwrap_or_default()).collect());
        }
        let lent = parts.lent.environment(id);
        if !lent.is_empty() {
            definition.to_mut().config.env.get_or_insert_default().extend(lent);
        }
        let definition = definition.as_ref();
        let cgroup = spec::cgroup_path(definition, &parts.settings.cgroup_parent);
        give_real_time(&cgroup, parts.settings.real_time).await?;
        let mut composed = spec::compose(definition, &cgroup, &joined)?;
        spec::add_named_devices(&mut composed, definition, &parts.settings.cdi_dirs)?;
        let remap = parts.remap(&definition.host);
        if let Some(remap) = remap {
            crate::remap::apply(&mut composed.spec, remap, &joined)?;
        }
        if let Some(process) = composed.spec.process_mut() {
            parts.apparmor.confine(process, &definition.host);
        }
        let (mut mount_fds, mut fds) =
            sources::open(&parts, id, id, &composed.sources, remap.cloned().map(Seen::Inside)).await?;
        propagation::check(definition, &parts.settings.data_root)?;
        for (index, path, recursive) in &composed.paths {
            mount_fds.insert(*index, fds.len());
            fds.push(sources::host_path(path, *recursive)?);
        }
        if let Some((index, shm)) = composed.shm.zip(shm) {
            mount_fds.insert(index, fds.len());
            let remap = remap.cloned();
            fds.push(crate::blocking::blocking(move || sources::shared_memory(shm, remap.as_ref())).await?);
        }
        let spec = composed.spec;
        let (bundle, hook_view) = match self.hooks(&spec, remap.is_some()).await? {
            Some(prepared) => {
                let (bundle, view) = prepared.hand_over(&mut fds);
                (Some(bundle), Some(view))
            }
            None => (None, None),
        };
        let (rootfs, owners) = rootfs(&self.parts, &self.container)?;
        let [rows, columns] = definition.host.console_size.map(|n| u16::try_from(n).unwrap_or(0));
        let network = if endpoints.is_empty() { NetworkMode::FromSpec } else { NetworkMode::Await };
        let launch = Launch {
            id: id.to_owned(),
            spec,
            rootfs,
            idmap_root: remap.is_some() && owners.is_none(),
            network,
            mount_fds,
            init: definition.host.init.unwrap_or(false),
            terminal: definition.config.tty.then_some((rows, columns)).filter(|size| *size != (0, 0)),
            generated,
            release: ReleaseMode::Execute,
            bundle,
            hook_view,
            die_with_parent: true,
            preserve_fds: 0,
        };
        let request = self.request(launch, fds).await?;
        let mut control = parts.spawner.launch(request).await?;
        let forwarding = resolution.as_ref().and_then(|resolution| resolution.forwarding.as_ref());
        let (pid, started_at) = self.released(&mut control, &endpoints, forwarding).await?;
        self.take_shim(control).await;
        let resolver = resolution.map(|resolution| resolution.resolver);
        Ok(Running { pid, started_at, paused: false, endpoints, oom_killed: false, resolver })
    }

    /// Takes a shim into use, and attaches those who came while it was being started.
    pub(super) async fn take_shim(&mut self, control: ShimControl) {
        let client = Arc::new(control.client());
        self.shim = Some(control);
        for attach in self.container.set_shim(Some(Arc::clone(&client))) {
            if let Err(error) = client.attach(Target::Init, attach).await {
                tracing::debug!(container = self.container.id(), %error, "a client could not be attached");
            }
        }
    }

    /// What the container's hooks need, if it has any.
    async fn hooks(&self, spec: &Spec, remapped: bool) -> Result<Option<hooks::Prepared>, Error> {
        if !hooks::has_hooks(spec) {
            return Ok(None);
        }
        if remapped {
            let why =
                "devices whose CDI files have hooks need \"--userns host\" on a daemon with userns-remap";
            return Err(Error::InvalidParameter(why.into()));
        }
        let (directory, spec) = (self.parts.storage.container_dir(self.container.id())?, spec.clone());
        crate::blocking::blocking(move || hooks::prepare(&directory, &spec)).await.map(Some)
    }

    async fn request(&self, launch: Launch, fds: Vec<OwnedFd>) -> Result<LaunchRequest, Error> {
        let definition = &self.container.definition;
        let (log, log_fds) = self.log().await?;
        Ok(LaunchRequest {
            launch,
            fds,
            exec_dir: self.parts.exec_dir(self.container.id()),
            log,
            log_fds,
            stdin_open: definition.config.open_stdin,
            stdin_once: definition.config.stdin_once,
            tty: definition.config.tty,
            attach: self.container.take_waiting(),
        })
    }

    /// Sees a launch through: the host's end of the network while init sets itself up, then its release.
    async fn released(
        &self,
        control: &mut ShimControl,
        endpoints: &[Endpoint],
        forwarding: Option<&Forwarding>,
    ) -> Result<(i32, jiff::Timestamp), Error> {
        let lost = || StartError::new(Stage::Protocol, "the shim ended before the container started");
        loop {
            match control.next_event().await.ok_or_else(lost)? {
                ShimEvent::Cloned { netns, pid, .. } => {
                    let Some(netns) = netns.filter(|_| !endpoints.is_empty()) else { continue };
                    let connected =
                        self.parts.networks.connect(self.container.id(), netns.as_fd(), endpoints);
                    let served = self.serve_names(pid, netns.as_fd(), endpoints, forwarding);
                    let (connected, served) = tokio::join!(connected, served);
                    connected.and(served).map_err(|error| self.network_error(error))?;
                    self.open_links(endpoints).await.map_err(|error| self.network_error(error))?;
                    // A plugin may have other ways than a link.
                    let links = endpoints
                        .iter()
                        .filter(|endpoint| !endpoint.name.is_empty())
                        .map(|endpoint| endpoint.link_config(default_routes(endpoints, &endpoint.name)));
                    control.release(Release { links: links.collect() }).await?;
                }
                ShimEvent::Started { pid, at, .. } => return Ok((pid, at)),
                ShimEvent::Failed(error) => return Err(error.into()),
                ShimEvent::LogLost { .. } => {}
                ShimEvent::Exited(_) | ShimEvent::ExecExited { .. } => return Err(lost().into()),
                // Told by a running program alone.
                ShimEvent::Detached { .. } | ShimEvent::OutOfMemory => {}
            }
        }
    }

    /// Writes the generated files, or names those of the container whose network it shares.
    async fn generated(
        &self,
        endpoints: &[Endpoint],
        linked: &Linked,
    ) -> Result<(Vec<GeneratedFile>, Option<Resolution>), Error> {
        let owner = self.network_owner()?;
        let directory = self.parts.storage.container_dir(&owner)?;
        let mut resolution = None;
        if owner == self.container.id() {
            let gateways = self.host_gateways();
            resolution = Some(self.write_generated(&directory, endpoints, linked, &gateways)?);
        }
        let file = |(name, target): (&str, &str)| GeneratedFile {
            source: directory.join(name),
            target: target.into(),
            read_only: self.container.definition.host.readonly_rootfs,
        };
        Ok((GENERATED.map(file).into(), resolution))
    }

    /// What `host-gateway` means, if the container has names that lead there.
    fn host_gateways(&self) -> Vec<IpAddr> {
        let mut names = self.container.definition.host.extra_hosts.iter().flatten();
        if !names.any(|entry| entry.ends_with(":host-gateway")) {
            return Vec::new();
        }
        let chosen = &self.parts.current.get().defaults.host_gateways;
        if !chosen.is_empty() {
            return chosen.clone();
        }
        let Some(bridge) = self.parts.networks.default_bridge() else { return Vec::new() };
        bridge.subnets.iter().filter_map(|subnet| subnet.gateway).collect()
    }

    /// The ID of the container whose network it is in. Its owner may have joined another's in its turn.
    fn network_owner(&self) -> Result<String, Error> {
        let mut owner = Arc::clone(&self.container);
        while let NetworkPlan::Container(name) = &owner.definition.network {
            let next = self.parts.containers.find(name)?;
            if next.id() == self.container.id() {
                return Err(Error::InvalidParameter("cannot join own network namespace".into()));
            }
            owner = next;
        }
        Ok(owner.id().to_owned())
    }

    fn write_generated(
        &self,
        directory: &Path,
        endpoints: &[Endpoint],
        linked: &Linked,
        gateways: &[IpAddr],
    ) -> Result<Resolution, Error> {
        let definition = &self.container.definition;
        // A host without the file has nothing to add.
        let host_hosts = match definition.network {
            NetworkPlan::Host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            _ => String::new(),
        };
        let around = Surroundings {
            addresses: endpoints.iter().flat_map(|endpoint| &endpoint.addresses).map(IpNet::addr).collect(),
            gateways,
            host_hosts: &host_hosts,
            linked: &linked.hosts,
        };
        let served = has_names(endpoints);
        let resolv_conf = self.resolv_conf(endpoints, served);
        let resolution = Resolution::new(&resolv_conf, served);
        let contents = [files::hostname(definition), files::hosts(definition, &around), resolv_conf.text];
        let owner = self.parts.owner_on_disk(&definition.host);
        for ((name, _), content) in GENERATED.iter().zip(contents) {
            let path = directory.join(name);
            write_readable(&path, &content, owner)
                .map_err(|source| Error::Io { operation: format!("write {}", path.display()), source })?;
        }
        Ok(resolution)
    }

    async fn log(&self) -> Result<(Plan, Vec<OwnedFd>), Error> {
        let (definition, name) = (&self.container.definition, self.container.name());
        let directory = self.parts.storage.container_dir(self.container.id())?;
        logging::plan(Subject { definition, name: &name }, &directory).await.map_err(Error::LogDriver)
    }

    fn tell_mounts(&self) {
        for plan in &self.container.definition.mounts {
            if let MountSource::Volume { name, .. } = &plan.source {
                let event = VolumeEvent::Mount {
                    container: self.container.id().to_owned(),
                    destination: plan.destination.clone(),
                    writable: !plan.read_only,
                    propagation: plan.propagation.clone(),
                };
                let driver = self.parts.volumes.drivers.of(name);
                self.parts.tell_volume(name, driver, event);
            }
        }
    }

    pub(super) fn tell_unmounts(&self) {
        for plan in &self.container.definition.mounts {
            if let MountSource::Volume { name, .. } = &plan.source {
                let container = self.container.id().to_owned();
                let driver = self.parts.volumes.drivers.of(name);
                self.parts.tell_volume(name, driver, VolumeEvent::Unmount { container });
            }
        }
    }

    /// Clears away what is left of a run that has ended: layer, cgroup, the shim's directory.
    pub(super) async fn clear_run(&mut self) {
        self.lease = None;
        let cgroup = self.cgroup();
        let exec_dir = self.parts.exec_dir(self.container.id());
        let definition = &self.container.definition;
        sources::release(&self.parts, self.container.id()).await;
        let shm = shm::is_shareable(definition).then(|| self.parts.shm_path(self.container.id()));
        let cleared = crate::blocking::blocking(move || {
            let removed = cgroup.and_then(|cgroup| Ok(cgroup.remove()?));
            remove_tree(&exec_dir)?;
            shm.map_or(Ok(()), |path| shm::remove(&path))?;
            removed
        });
        if let Err(error) = cleared.await {
            tracing::warn!(container = self.container.id(), %error, "a run was not cleared away whole");
        }
    }
}

/// Replaces a file's content. It is read by the container's users, whatever the daemon's umask.
fn write_readable(path: &Path, content: &str, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content)?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// Removes a directory of the exec root; one that is not there is fine.
pub(super) fn remove_tree(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { operation: format!("remove {}", path.display()), source: error })
        }
        _ => Ok(()),
    }
}

/// Index into the mounts → index into the descriptors, and the descriptors.
pub(super) type Opened = (BTreeMap<usize, usize>, Vec<OwnedFd>);

/// What a container's root is made of, and whose the files of a whole copy are on the disk, if not those whom they belong
/// to inside.
pub(super) fn rootfs(parts: &Parts, container: &Container) -> Result<(Rootfs, Option<Arc<Mappings>>), Error> {
    let snapshot = parts.storage.snapshots().mounts(container.id())?;
    let Some(work) = snapshot.work else { return Ok((Rootfs::Path(snapshot.upper), snapshot.owners)) };
    // What goes with its end needs no care for a crash of the host.
    let volatile = container.definition.host.auto_remove || parts.lent.is_volatile(container.id());
    Ok((Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work, volatile }, None))
}

/// Lets a container's cgroup have real-time CPU time: the kernel gives it none of which its parent has nothing.
async fn give_real_time(cgroup: &Path, time: RealTime) -> Result<(), Error> {
    let Some(parent) = cgroup.parent().filter(|parent| time.is_set() && parent.parent().is_some()) else {
        return Ok(());
    };
    let parent = Manager::for_path(&parent.to_string_lossy())?;
    crate::blocking::blocking(move || Ok(parent.give_real_time(time)?)).await
}
