//! Taking over the containers of an earlier engine, however it ended.
//!
//! Rows say what was meant, shims and their exit files what is. A row that says "starting" or "running" is checked
//! against the shim; what has ended in the meantime is recorded and followed up as if it ended now.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_shim::client::{ShimClient, ShimControl, ShimEvent};
use berth_storage::ContainerRecord;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::exit::End;
use super::mounted_images;
use super::owner::{Owner, Request, StopRequest};
use super::policy;
use super::start::remove_tree;
use super::stop::{stop_signal, stop_timeout};
use crate::blocking::blocking;
use crate::container::state::{Exited, Running, State};
use crate::container::{Container, Kept};
use crate::create::Definition;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::network::linked::Party;
use crate::{Error, op};

/// How long a shim may take to tell its state.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long clients wait at most for the containers that start with the engine.
const STARTS_PATIENCE: Duration = Duration::from_secs(10);

/// What an owner is to find out when it takes its container over.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The host was started anew since: nothing runs.
    pub rebooted: bool,
}

/// How an owner and the engine that opens wait for each other.
pub struct Opening {
    ready: Option<oneshot::Sender<()>>,
    swept: watch::Receiver<bool>,
    /// Dropped once its policy has been followed.
    _settled: oneshot::Sender<()>,
}

impl Opening {
    /// Tells the engine that the container's state is known, and waits until what is left of others is cleared away:
    /// a run must not begin before, for it would look like a leftover.
    pub(super) async fn state_is_known(&mut self) {
        // An engine that has given up opening listens no more, and is not waited for.
        let _ = self.ready.take().map(|ready| ready.send(()));
        let _ = self.swept.wait_for(|swept| *swept).await;
    }
}

/// What a shim said first.
enum Told {
    Runs {
        pid: i32,
        since: jiff::Timestamp,
        control: ShimControl,
    },
    Ended(End, Option<ShimControl>),
    /// It ended, and its last output is still being read.
    Ending {
        control: ShimControl,
    },
    NeverStarted,
    Gone,
}

/// Takes over all containers of the data root; returns when the state of each is known and, as in Docker, those that
/// start with the engine were started, unless that takes long.
pub async fn all(parts: &Arc<Parts>, rebooted: bool) -> Result<(), Error> {
    let mut mailboxes = Vec::new();
    for record in parts.storage.containers().list()? {
        match known(parts, &record) {
            Ok(taken) => mailboxes.push(taken),
            // One that cannot be read must not keep the others from their owners.
            Err(error) => {
                tracing::error!(container = record.id, %error, "the container's record is unreadable")
            }
        }
    }
    parts.volumes.learn()?;
    note_volumes(parts)?;
    for (container, _) in &mailboxes {
        let kept = container.kept();
        parts.know_links(container.id(), &kept.name, kept.links);
    }
    parts.networks.settle_default().await?;
    let (mut all_ready, mut all_settled) = (Vec::new(), Vec::new());
    let (sweeper, swept) = watch::channel(false);
    for (container, mailbox) in mailboxes {
        let (ready, is_ready) = oneshot::channel();
        let (settled, is_settled) = oneshot::channel();
        all_ready.push(is_ready);
        all_settled.push(is_settled);
        let opening = Opening { ready: Some(ready), swept: swept.clone(), _settled: settled };
        Owner::adopt(parts, &container, mailbox, Found { rebooted }, opening);
    }
    // An owner that ended early has told why.
    futures_util::future::join_all(all_ready).await;
    // Nobody starts anything before all that runs is known to the net process.
    if let Err(error) = parts.networks.names.take_over().await {
        tracing::error!(%error, "the names of containers were not brought up to date");
    }
    sweep(parts).await?;
    sweeper.send_replace(true);
    if tokio::time::timeout(STARTS_PATIENCE, futures_util::future::join_all(all_settled)).await.is_err() {
        tracing::warn!("some containers that start with the engine are still being started");
    }
    Ok(())
}

/// Notes which volumes containers have that an engine made which kept no such notes.
fn note_volumes(parts: &Parts) -> Result<(), Error> {
    let known = parts.storage.volumes().users()?;
    let mut missing = Vec::new();
    for container in parts.containers.all() {
        for plan in &container.definition.mounts {
            if let MountSource::Volume { name, .. } = &plan.source
                && !known.get(name).is_some_and(|users| users.contains(container.id()))
            {
                missing.push((name.clone(), container.id().to_owned()));
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Ok(parts.storage.volumes().refer(&missing)?) }
}

/// Makes a container known, and its endpoint before the bridge is first used.
fn known(
    parts: &Parts,
    record: &ContainerRecord,
) -> Result<(Arc<Container>, mpsc::Receiver<Request>), Error> {
    let unreadable = |what: &str| {
        let what = format!("{what} of container {}", record.id);
        move |source| Error::Record { what, source }
    };
    let definition: Definition = serde_json::from_str(&record.config).map_err(unreadable("configuration"))?;
    let mut kept: Kept = serde_json::from_str(&record.state).map_err(unreadable("state"))?;
    kept.name.clone_from(&record.name);
    if !kept.state.endpoints().is_empty() {
        let party = Party::new(&kept.links, &definition.config);
        parts.networks.adopt(&record.id, party, kept.state.endpoints());
    }
    parts.containers.reserve(&kept.name, &record.id)?;
    let (container, mailbox) = Container::new(definition, kept);
    let container = Arc::new(container);
    parts.containers.insert(Arc::clone(&container));
    Ok((container, mailbox))
}

/// Directories of shims whose containers are gone.
async fn strangers(parts: &Arc<Parts>) -> Result<Vec<PathBuf>, Error> {
    let parts = Arc::clone(parts);
    blocking(move || {
        let entries = std::fs::read_dir(parts.settings.exec_root.join("containers"));
        let entries = entries.into_iter().flatten().flatten();
        let unknown = |entry: &DirEntry| parts.containers.find(&entry.file_name().to_string_lossy()).is_err();
        Ok(entries.filter(unknown).map(|entry| entry.path()).collect())
    })
    .await
}

/// Lets a shim go that waits for somebody to record how its container ended. An engine may have done so, and have been killed
/// before it could tell.
async fn dismiss(directory: &Path) {
    let told = tokio::time::timeout(PATIENCE, first_word(directory)).await;
    if let Ok(Some(Told::Ended(_, Some(control)))) = told
        && let Err(error) = control.recorded().await
    {
        tracing::debug!(directory = %directory.display(), %error, "a shim was not let go");
    }
}

/// Removes layers and directories of shims whose containers are gone.
async fn sweep(parts: &Arc<Parts>) -> Result<(), Error> {
    for directory in strangers(parts).await? {
        dismiss(&directory).await;
    }
    let parts = Arc::clone(parts);
    blocking(move || {
        let snapshots = parts.storage.snapshots();
        for id in
            snapshots.list()?.iter().filter(|id| parts.containers.find(mounted_images::owner(id)).is_err())
        {
            snapshots.remove(id)?;
        }
        let runs = |id: &str| parts.containers.find(id).is_ok_and(|found| found.life().borrow().up);
        parts.sweep_shm(runs);
        parts.volumes.sweep()?;
        let Ok(entries) = std::fs::read_dir(parts.settings.exec_root.join("containers")) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !runs(&id)
                && let Err(error) = remove_tree(&entry.path())
            {
                tracing::warn!(%error, "a shim's directory stays");
            }
        }
        Ok(())
    })
    .await
}

impl Owner {
    /// Finds out what its container is doing, and goes on from there.
    pub(super) async fn take_over(&mut self, found: Found) {
        let state = self.container.state();
        if !matches!(state, State::Starting { .. } | State::Running(_)) {
            dismiss(&self.parts.exec_dir(self.container.id())).await;
        }
        match state {
            State::Starting { before, endpoints, again } => {
                // Until something else is known: the engine ended between the row and the release.
                self.take_over_run(found, None, before, endpoints).await;
                if let (true, State::Exited(exited)) = (again, self.container.state()) {
                    self.start_with_engine(&exited);
                }
            }
            State::Running(running) => {
                let endpoints = running.endpoints.clone();
                self.take_over_run(found, Some(running), None, endpoints).await;
            }
            State::Restarting(_) => self.restart_at = Some(Instant::now()),
            State::Removing => {
                let volumes = self.container.definition.host.auto_remove;
                if let Err(error) = self.delete(op::Remove { force: false, volumes }).await {
                    tracing::error!(container = self.container.id(), %error, "the removal could not be finished");
                }
            }
            State::Exited(exited) => {
                self.clear_rest().await;
                self.start_with_engine(&exited);
            }
            State::Created { .. } => self.clear_rest().await,
        }
    }

    /// An engine that was killed right after it had recorded an end may have left the run's cgroup.
    async fn clear_rest(&mut self) {
        if self.cgroup().is_ok_and(|cgroup| cgroup.is_left()) {
            self.clear_run().await;
        }
    }

    fn start_with_engine(&mut self, exited: &Exited) {
        let kept = self.container.kept();
        let ended =
            policy::Ended { code: exited.code, by_client: kept.stopped_by_client, restarts: kept.restarts };
        if policy::starts_with_engine(&self.container.restart_policy(), ended) {
            // It counts as started anew, not as started again.
            self.change_regardless(|kept| kept.restarts = 0);
            self.restart_at = Some(Instant::now());
        }
    }

    /// Notes again which volumes its run has mounted, also if it has ended: they are released with all else.
    async fn hold_volumes(&self) {
        let parts = Arc::clone(&self.parts);
        let container = Arc::clone(&self.container);
        let adopted = blocking(move || {
            parts.adopt_volumes(&container.definition);
            Ok(())
        });
        if let Err(error) = adopted.await {
            tracing::error!(container = self.container.id(), %error, "its volumes are not held");
        }
    }

    async fn take_over_run(
        &mut self,
        found: Found,
        row: Option<Running>,
        before: Option<Exited>,
        endpoints: Vec<berth_network::Endpoint>,
    ) {
        self.hold_volumes().await;
        let now = jiff::Timestamp::now();
        let known = row.clone().unwrap_or(Running {
            pid: 0,
            started_at: now,
            paused: false,
            endpoints,
            oom_killed: false,
            resolver: None,
        });
        if found.rebooted {
            return match row {
                Some(_) => self.ended_meanwhile(known, End::unseen()).await,
                None => self.never_started(before).await,
            };
        }
        match self.hear().await {
            Told::Runs { pid, since, control } => {
                let frozen = self.cgroup().is_ok_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
                let paused = frozen && !self.thaw_after_commit().await;
                let running = Running { pid, started_at: since, paused, ..known };
                self.hold_namespace(&running);
                self.resume(running, control).await;
            }
            Told::Ending { control } => self.resume(known, control).await,
            Told::Ended(end, control) => {
                self.shim = control;
                self.ended_meanwhile(known, end).await;
            }
            Told::Gone if row.is_some() => {
                self.set_running(known);
                self.on_shim_lost().await;
                self.apply_policy_after_adoption();
            }
            Told::Gone | Told::NeverStarted => self.never_started(before).await,
        }
    }

    /// Lets it go on if the earlier engine ended while it made an image of it; whether it did.
    async fn thaw_after_commit(&mut self) -> bool {
        if !crate::images::is_left_frozen(&self.parts, self.container.id()) {
            return false;
        }
        let Ok(cgroup) = self.cgroup() else { return false };
        match crate::blocking::blocking(move || Ok(cgroup.thaw()?)).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(container = self.container.id(), %error, "it stays paused after a commit");
                false
            }
        }
    }

    /// It runs: nothing has happened, but that this engine is another one.
    async fn resume(&mut self, running: Running, control: ShimControl) {
        let running = self.set_running(running);
        // As in Docker: what another engine knew may be long ago.
        let health = self.fresh_health();
        self.change_regardless(|kept| kept.health.clone_from(&health));
        match self.parts.storage.snapshots().acquire(self.container.id()) {
            Ok(lease) => self.lease = Some(lease),
            Err(error) => tracing::error!(container = self.container.id(), %error, "the layer is not held"),
        }
        self.take_shim(control).await;
        self.remember_names(&running);
        self.settle_pending().await;
        self.renew_limits().await;
        self.monitor(&running);
        if !self.parts.settings.live_restore {
            // As Docker without live restore: survivors end before policies apply.
            let stop = StopRequest {
                signal: stop_signal(&self.container),
                timeout: stop_timeout(&self.container, self.parts.settings.defaults.stop_timeout),
                restart: false,
                by_client: false,
            };
            self.end(stop, None).await;
            if let Some(ending) = &mut self.ending {
                ending.survivor = true;
            }
            self.see_it_end().await;
        }
    }

    fn set_running(&self, running: Running) -> Running {
        self.change_regardless(|kept| kept.state = State::Running(running.clone()));
        self.container.live(|life| life.up = true);
        running
    }

    async fn ended_meanwhile(&mut self, known: Running, end: End) {
        self.set_running(known);
        self.on_exit(end).await;
        self.apply_policy_after_adoption();
    }

    /// `always` starts with the engine even what its client had stopped.
    pub(super) fn apply_policy_after_adoption(&mut self) {
        if let State::Exited(exited) = self.container.state()
            && !self.removed
        {
            self.start_with_engine(&exited);
        }
    }

    /// The engine ended between the row of intent and the release: what was made is cleared away.
    async fn never_started(&mut self, before: Option<Exited>) {
        if let Ok(cgroup) = self.cgroup() {
            let killed = blocking(move || Ok(cgroup.kill()?)).await;
            if let Err(error) = killed {
                tracing::warn!(container = self.container.id(), %error, "a half-started container was not killed");
            }
        }
        self.give_back_network().await;
        self.clear_run().await;
        self.change_regardless(|kept| {
            kept.state = before.clone().map_or(State::NEW, State::Exited);
        });
        self.container.live(|life| life.up = false);
    }

    /// Asks the shim.
    async fn hear(&self) -> Told {
        let directory = self.parts.exec_dir(self.container.id());
        match tokio::time::timeout(PATIENCE, first_word(&directory)).await {
            Ok(Some(told)) => told,
            Ok(None) => self.exit_file().map_or(Told::Gone, |end| Told::Ended(end, None)),
            Err(_) => {
                tracing::error!(container = self.container.id(), "the shim does not answer");
                Told::Gone
            }
        }
    }
}

/// Subscribes to a shim, and listens to what it tells of the past.
async fn first_word(directory: &Path) -> Option<Told> {
    let client = ShimClient::connect(directory).await.ok()?;
    let mut control = client.subscribe().await.ok()?;
    loop {
        let event = match tokio::time::timeout(PATIENCE / 5, control.next_event()).await {
            Ok(event) => event?,
            // Only a container that has ended, and whose output is still held, has nothing to tell.
            Err(_) => return Some(Told::Ending { control }),
        };
        match event {
            ShimEvent::Started { pid, at, .. } => return Some(Told::Runs { pid, since: at, control }),
            ShimEvent::Exited(status) => return Some(Told::Ended(status.into(), Some(control))),
            // Nobody releases it any more; without this connection the shim gives up.
            ShimEvent::Cloned { .. } | ShimEvent::Failed(_) => return Some(Told::NeverStarted),
            ShimEvent::ExecExited { .. }
            | ShimEvent::LogLost { .. }
            | ShimEvent::Detached { .. }
            | ShimEvent::OutOfMemory => {}
        }
    }
}
