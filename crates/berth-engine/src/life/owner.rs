//! The owner of a container: the one task that changes it.
//!
//! Requests are carried out in the order in which they come. What takes long (waiting for an end) is kept as
//! something that is due, so that a kill gets through while a stop waits.

use std::sync::Arc;
use std::time::Duration;

use berth_api::container::PortsUpdate;
use berth_api::network::EndpointSettings;
use berth_runtime::cgroup::Manager;
use berth_shim::client::{ShimControl, ShimEvent};
use berth_shim::protocol::Target;
use berth_storage::SnapshotLease;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::container::state::State;
use crate::container::{Container, Kept};
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::life::adopt::{Found, Opening};
use crate::life::health::{self, Monitor};
use crate::life::policy::BackOff;
use crate::life::stop::Ending;
use crate::{Error, name, op};

/// Where the outcome of a request goes.
pub type Answer = oneshot::Sender<Result<(), Error>>;

/// What an owner can be asked for.
pub enum Request {
    /// Start it.
    Start(Answer),
    /// End it, and then perhaps start it again.
    Stop(StopRequest, Answer),
    /// Send a signal.
    Kill(i32, Answer),
    /// Freeze it.
    Pause(Answer),
    /// Let it go on.
    Unpause(Answer),
    /// Remove it.
    Remove(op::Remove, Answer),
    /// Give it another name.
    Rename(String, Answer),
    /// Give it other limits, or another restart policy.
    Update(Box<op::Update>, Answer),
    /// Publish ports, and take others back.
    Ports(Box<PortsUpdate>, Answer),
    /// Let it join a network, by name or ID.
    Connect(String, Box<EndpointSettings>, Answer),
    /// Remove its link of this alias.
    Unlink(String, Answer),
    /// Let it leave a network; forced, also one that is gone.
    Disconnect(String, bool, Answer),
}

/// How to end a container.
#[derive(Debug, Clone, Copy)]
pub struct StopRequest {
    /// The signal to send first.
    pub signal: i32,
    /// When to send SIGKILL; `None` for never.
    pub timeout: Option<Duration>,
    /// Whether to start it again.
    pub restart: bool,
    /// Whether a client asked for it: policies leave it alone then.
    pub by_client: bool,
}

/// The owner of a container.
pub struct Owner {
    pub(super) parts: Arc<Parts>,
    pub(super) container: Arc<Container>,
    mailbox: mpsc::Receiver<Request>,
    /// The conversation with its shim while it runs.
    pub(super) shim: Option<ShimControl>,
    /// Exclusive use of its writable layer while it runs.
    pub(super) lease: Option<SnapshotLease>,
    /// What is to happen once it has ended.
    pub(super) ending: Option<Ending>,
    pub(super) back_off: BackOff,
    /// When its policy starts it again.
    pub(super) restart_at: Option<Instant>,
    pub(super) removed: bool,
    /// Who checks its health while it runs.
    pub(super) monitor: Option<Box<Monitor>>,
    /// That this run lacked memory was told already.
    pub(super) lack_told: bool,
}

impl Owner {
    /// Starts the owner of a container that does not run.
    pub fn spawn(parts: &Arc<Parts>, container: &Arc<Container>, mailbox: mpsc::Receiver<Request>) {
        let owner = Owner::new(parts, container, mailbox);
        parts.owners.spawn(owner.run());
    }

    /// Starts the owner of a container of an earlier engine.
    pub fn adopt(
        parts: &Arc<Parts>,
        container: &Arc<Container>,
        mailbox: mpsc::Receiver<Request>,
        found: Found,
        mut opening: Opening,
    ) {
        let mut owner = Owner::new(parts, container, mailbox);
        parts.owners.spawn(async move {
            owner.take_over(found).await;
            opening.state_is_known().await;
            if owner.restart_at.is_some_and(|at| at <= Instant::now()) && !owner.parts.is_closing() {
                owner.await_targets().await;
                owner.restart_by_policy().await;
            }
            drop(opening);
            owner.run().await;
        });
    }

    fn new(parts: &Arc<Parts>, container: &Arc<Container>, mailbox: mpsc::Receiver<Request>) -> Owner {
        Owner {
            parts: Arc::clone(parts),
            container: Arc::clone(container),
            mailbox,
            shim: None,
            lease: None,
            ending: None,
            back_off: BackOff::default(),
            restart_at: None,
            removed: false,
            monitor: None,
            lack_told: false,
        }
    }

    async fn run(mut self) {
        let parts = Arc::clone(&self.parts);
        while !self.removed {
            let kill_at = self.ending.as_ref().and_then(Ending::due);
            tokio::select! {
                biased;
                () = parts.ending.cancelled() => break,
                event = next_event(&mut self.shim) => self.on_event(event).await,
                told = health::next(&mut self.monitor) => self.on_probe(told),
                () = until(kill_at) => self.on_impatience().await,
                () = until(self.restart_at) => self.restart_by_policy().await,
                request = self.mailbox.recv() => match request {
                    Some(request) => self.on_request(request).await,
                    None => break,
                },
            }
        }
    }

    /// Waits until an end that is under way is over, or has been given up.
    pub(super) async fn see_it_end(&mut self) {
        while let Some(ending) = &self.ending {
            let kill_at = ending.due();
            tokio::select! {
                biased;
                () = self.parts.ending.cancelled() => return,
                event = next_event(&mut self.shim) => self.on_event(event).await,
                () = until(kill_at) => self.on_impatience().await,
            }
        }
    }

    async fn on_request(&mut self, request: Request) {
        match request {
            Request::Start(answer) => {
                let outcome = self.start_by_client().await;
                // Whoever is told that it never ran finds nothing of a container with --rm.
                self.after_start().await;
                reply(answer, outcome);
            }
            Request::Stop(stop, answer) => self.stop(stop, answer).await,
            Request::Kill(signal, answer) => self.kill(signal, answer).await,
            Request::Pause(answer) => {
                let outcome = self.pause().await;
                reply(answer, outcome);
            }
            Request::Unpause(answer) => {
                let outcome = self.unpause().await;
                reply(answer, outcome);
            }
            Request::Remove(remove, answer) => self.remove(remove, answer).await,
            Request::Unlink(alias, answer) => {
                let outcome = self.unlink(&alias).await;
                reply(answer, outcome);
            }
            Request::Rename(name, answer) => {
                let outcome = self.rename(name).await;
                reply(answer, outcome);
            }
            Request::Update(update, answer) => {
                let outcome = self.update(*update).await;
                reply(answer, outcome);
            }
            Request::Ports(changes, answer) => {
                let outcome = self.update_ports(&changes).await;
                reply(answer, outcome);
            }
            Request::Connect(network, settings, answer) => {
                let outcome = self.connect(&network, *settings).await;
                reply(answer, outcome);
            }
            Request::Disconnect(network, force, answer) => {
                let outcome = self.disconnect(&network, force).await;
                reply(answer, outcome);
            }
        }
    }

    async fn on_event(&mut self, event: Option<ShimEvent>) {
        match event {
            Some(ShimEvent::Exited(status)) => self.on_exit(status.into()).await,
            Some(ShimEvent::ExecExited { exec, code }) => {
                if let Some(exec) = self.parts.execs.ended(&exec, code) {
                    self.tell(ContainerEvent::ExecDie { id: exec.id.clone(), code });
                }
            }
            Some(ShimEvent::LogLost { messages }) => self.warn_of_lost_log(messages),
            Some(ShimEvent::Detached { target: Target::Init }) => self.tell(ContainerEvent::Detach),
            Some(ShimEvent::Detached { target: Target::Exec(id) }) => {
                self.tell(ContainerEvent::ExecDetach { id });
            }
            Some(ShimEvent::OutOfMemory) => self.on_lack_of_memory(),
            // What happens before a program runs is awaited where it is started.
            Some(ShimEvent::Cloned { .. } | ShimEvent::Started { .. } | ShimEvent::Failed(_)) => {}
            None => self.on_shim_lost().await,
        }
    }

    fn on_lack_of_memory(&mut self) {
        self.lack_told = true;
        if self.container.state().running().is_some_and(|running| !running.oom_killed) {
            self.change_regardless(|kept| {
                if let State::Running(running) = &mut kept.state {
                    running.oom_killed = true;
                }
            });
        }
        self.tell(ContainerEvent::Oom);
    }

    fn warn_of_lost_log(&self, messages: u64) {
        tracing::warn!(
            container = self.container.id(),
            messages,
            "log messages were lost since the container started: whoever takes them was too slow"
        );
    }

    /// Takes the new name, on the disk before in memory.
    async fn rename(&mut self, name: String) -> Result<(), Error> {
        let old = self.container.name();
        if old == name {
            return Err(Error::InvalidParameter(
                "Renaming a container with the same name as its current name".into(),
            ));
        }
        let id = self.container.id();
        let allocate = |error| Error::NewName(Box::new(error));
        let name = name::parse(&format!("/{name}")).map_err(allocate)?;
        self.parts.containers.reserve(&name, id).map_err(allocate)?;
        if let Err(error) = self.change(|kept| kept.name.clone_from(&name)) {
            self.parts.containers.release(&name, id);
            return Err(error);
        }
        self.parts.containers.release(&old, id);
        self.rename_links(&old, &name);
        self.announce().await;
        self.tell(ContainerEvent::Rename { old: format!("/{old}") });
        Ok(())
    }

    /// Changes what is kept: on the disk, then in memory.
    pub(super) fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<(), Error> {
        let mut kept = self.container.kept();
        change(&mut kept);
        self.parts.storage.containers().put(&self.container.record(&kept)?)?;
        self.container.set(kept);
        Ok(())
    }

    /// Changes what is kept even if it cannot be written: what has happened has happened. A later write or the
    /// next engine's adoption makes up for it.
    pub(super) fn change_regardless(&self, change: impl FnOnce(&mut Kept)) {
        let mut kept = self.container.kept();
        change(&mut kept);
        self.write_regardless(&kept);
        self.container.set(kept);
    }

    /// Writes what is to be kept, and to be shown later; if it cannot be written, that is told to the log alone.
    pub(super) fn write_regardless(&self, kept: &Kept) {
        let record = self.container.record(kept);
        let written = record.and_then(|record| Ok(self.parts.storage.containers().put(&record)?));
        if let Err(error) = written {
            tracing::error!(container = self.container.id(), %error, "the state could not be written");
        }
    }

    /// Shows what was written, and tells an event of the container in the same moment: whoever finds the one finds the
    /// other, as in Docker.
    pub(super) fn show(&self, kept: Kept, event: ContainerEvent) {
        let event = self.container.event(event);
        self.container.set_and(kept, || self.parts.events.publish(event));
    }

    /// Publishes an event of the container.
    pub(super) fn tell(&self, event: ContainerEvent) {
        self.parts.events.publish(self.container.event(event));
    }

    /// Its cgroup.
    pub(super) fn cgroup(&self) -> Result<Manager, Error> {
        self.parts.cgroup(&self.container)
    }

    /// Fails unless it runs and is not about to be restarted.
    pub(super) fn require_running(&self) -> Result<(), Error> {
        match self.container.state() {
            State::Running(_) => Ok(()),
            State::Restarting(_) => Err(Error::restarting(self.container.id())),
            _ => Err(Error::NotRunning(self.container.id().to_owned())),
        }
    }
}

impl Parts {
    /// The cgroup of a container.
    pub(crate) fn cgroup(&self, container: &Container) -> Result<Manager, Error> {
        let path = crate::spec::cgroup_path(&container.definition, &self.settings.cgroup_parent);
        Ok(Manager::for_path(&path.to_string_lossy())?)
    }
}

/// Asks a container's owner, and waits for its answer.
pub async fn ask(container: &Container, request: impl FnOnce(Answer) -> Request) -> Result<(), Error> {
    let (answer, answered) = oneshot::channel();
    container.ask(request(answer)).await?;
    answered.await.unwrap_or_else(|_| Err(container.gone()))
}

/// Answers; a client that went away is not told.
pub(super) fn reply(answer: Answer, outcome: Result<(), Error>) {
    let _ = answer.send(outcome);
}

async fn next_event(shim: &mut Option<ShimControl>) -> Option<ShimEvent> {
    match shim {
        Some(shim) => shim.next_event().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
