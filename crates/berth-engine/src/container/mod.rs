//! A container in memory: what it is, what it is doing, and the way to its owner.

pub mod changes;
pub mod health;
mod index;
pub mod links;
pub mod state;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_api::container::{RestartPolicy, UpdateRequest};
use berth_api::network::PortMap;
use berth_shim::client::ShimClient;
use berth_shim::spawner::Attach;
use berth_storage::ContainerRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::create::Definition;
use crate::event::{ContainerEvent, Event};
use crate::life::files::Gate;
use crate::life::owner::Request;
use crate::network::attachment::Attachment;
use health::Health;
use links::Link;
use state::State;

pub use index::Index;

/// Requests that may wait for an owner; more make their senders wait.
const MAILBOX: usize = 64;
/// Clients that may be attached before a container starts.
const MAX_WAITING: usize = 64;

/// A container. Only its owner, a task, changes it; everybody may read.
pub struct Container {
    /// What it was created as. Never changes; what updates have made of it is [`Container::current`].
    pub definition: Definition,
    kept: Mutex<Kept>,
    streams: Mutex<Streams>,
    /// Clients that were promised an attachment whose connections are still to come.
    expected: watch::Sender<usize>,
    life: watch::Sender<Life>,
    /// Whether no more output can come.
    ended: watch::Sender<bool>,
    requests: mpsc::Sender<Request>,
    /// Who may use its files.
    pub(crate) gate: Gate,
}

/// Who serves its streams.
#[derive(Default)]
struct Streams {
    /// Its shim, while it runs.
    shim: Option<Arc<ShimClient>>,
    /// Connections that are attached when it starts.
    waiting: Vec<Attach>,
}

/// What a container is doing, and what may change about it. Its row's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name, without a slash. Kept in a column of its own.
    #[serde(skip)]
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Whether a client stopped it, so that `unless-stopped` leaves it alone.
    #[serde(default)]
    pub stopped_by_client: bool,
    /// How often its restart policy has started it since a client did.
    #[serde(default)]
    pub restarts: u32,
    /// What updates have changed of its definition, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Box<UpdateRequest>>,
    /// What it publishes, once that is something else than it was created with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortMap>,
    /// The networks it is on whenever it runs, once they are others than it was created with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<Attachment>>,
    /// Whom it is linked to on the default bridge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// What its health checks found, if it has one and was started.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    pub health: Option<Arc<Health>>,
}

/// Health in a row.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Health;

    pub fn serialize<S: Serializer>(health: &Option<Arc<Health>>, to: S) -> Result<S::Ok, S::Error> {
        health.as_deref().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Health>>, D::Error> {
        Ok(Option::deserialize(from)?.map(Arc::new))
    }
}

impl Kept {
    /// What is kept of a container that was just created.
    pub fn new(name: String) -> Kept {
        Kept {
            name,
            state: State::NEW,
            stopped_by_client: false,
            restarts: 0,
            ports: None,
            attachments: None,
            links: Vec::new(),
            health: None,
            changes: None,
        }
    }

    /// Nobody checks it any more; as Docker says, it is not healthy then.
    pub fn unchecked(&mut self) {
        self.health = self.health.as_deref().map(|health| Arc::new(health.unchecked()));
    }
}

/// What waiting clients look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// It runs, or is about to be started again by its policy.
    pub up: bool,
    /// Exits, and failed starts, since the engine was opened.
    pub exits: u64,
    /// The last exit code.
    pub code: i32,
    /// What went wrong beside.
    pub error: String,
    /// It is gone.
    pub removed: bool,
}

impl Container {
    /// A container and the mailbox for its owner.
    pub fn new(definition: Definition, kept: Kept) -> (Container, mpsc::Receiver<Request>) {
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let life = Life {
            up: matches!(kept.state, State::Running(_) | State::Restarting(_)),
            code: kept.state.exit_code(),
            ..Life::default()
        };
        let container = Container {
            definition,
            kept: Mutex::new(kept),
            streams: Mutex::default(),
            expected: watch::Sender::default(),
            ended: watch::Sender::new(!life.up),
            life: watch::Sender::new(life),
            requests,
            gate: Gate::default(),
        };
        (container, mailbox)
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.definition.id
    }

    /// Its definition with what updates have changed.
    pub fn current(&self) -> Cow<'_, Definition> {
        let kept = self.lock();
        if kept.changes.is_none() && kept.ports.is_none() {
            return Cow::Borrowed(&self.definition);
        }
        let mut current = self.definition.clone();
        if let Some(changes) = &kept.changes {
            changes::apply(changes, &mut current.host);
        }
        if let Some(ports) = &kept.ports {
            current.host.port_bindings = Some(ports.clone());
            current.host.publish_all_ports = false;
        }
        Cow::Owned(current)
    }

    /// Its restart policy as of now.
    pub fn restart_policy(&self) -> RestartPolicy {
        let changed = self.lock().changes.as_ref().map(|changes| changes.restart_policy.clone());
        changed
            .filter(|policy| !policy.name.is_empty())
            .unwrap_or_else(|| self.definition.host.restart_policy.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What the lock guards is whole between any two statements.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name, state and counters, as of now.
    pub fn kept(&self) -> Kept {
        self.lock().clone()
    }

    /// Its name, without a slash.
    pub fn name(&self) -> String {
        self.lock().name.clone()
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes what is shown; the caller writes it to the disk first.
    pub(crate) fn set(&self, kept: Kept) {
        self.set_and(kept, || ());
    }

    /// The same, and `tell` before anybody can look: whoever finds the one finds the other. `tell` may not look itself.
    pub(crate) fn set_and(&self, kept: Kept, tell: impl FnOnce()) {
        let mut shown = self.lock();
        *shown = kept;
        tell();
    }

    /// What waiting clients look at.
    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Changes what waiting clients look at.
    pub(crate) fn live(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(change);
        let ended = !self.life.borrow().up;
        self.ended.send_if_modified(|value| std::mem::replace(value, ended) != ended);
    }

    /// Whether no more output can come, as it changes.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its shim, while it runs.
    pub(crate) fn shim(&self) -> Option<Arc<ShimClient>> {
        self.streams().shim.clone()
    }

    /// Takes a shim into use, or none; returns the connections that came while it was being started.
    pub(crate) fn set_shim(&self, shim: Option<Arc<ShimClient>>) -> Vec<Attach> {
        let mut streams = self.streams();
        let late = if shim.is_some() { std::mem::take(&mut streams.waiting) } else { Vec::new() };
        streams.shim = shim;
        late
    }

    /// Takes the connections that wait for it to start.
    pub(crate) fn take_waiting(&self) -> Vec<Attach> {
        std::mem::take(&mut self.streams().waiting)
    }

    /// Gives a connection back if there is a shim to hand it to; else it waits for the next start.
    pub(crate) fn attach_or_wait(&self, attach: Attach) -> Result<Option<(Arc<ShimClient>, Attach)>, Error> {
        let mut streams = self.streams();
        if let Some(shim) = &streams.shim {
            return Ok(Some((Arc::clone(shim), attach)));
        }
        if streams.waiting.len() >= MAX_WAITING {
            let id = self.id();
            return Err(Error::Unavailable(format!(
                "{MAX_WAITING} clients wait for container {id} to start"
            )));
        }
        streams.waiting.push(attach);
        Ok(None)
    }

    /// Announces a connection to attach; until the guard is dropped, a start waits for it.
    pub(crate) fn expect_attachment(self: &Arc<Self>) -> Expected {
        self.expected.send_modify(|count| *count += 1);
        Expected(Arc::clone(self))
    }

    /// Resolves when all announced connections have come.
    pub(crate) async fn all_attached(&self) {
        // The sender is this container's own: it is there.
        let _ = self.expected.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Its row, as it is with `kept`.
    pub(crate) fn record(&self, kept: &Kept) -> Result<ContainerRecord, Error> {
        let json =
            |what: &str, source| Error::Record { what: format!("{what} of container {}", self.id()), source };
        Ok(ContainerRecord {
            id: self.definition.id.clone(),
            name: kept.name.clone(),
            image_id: self.definition.image.clone(),
            created: self.definition.created,
            state: serde_json::to_string(kept).map_err(|e| json("state", e))?,
            config: serde_json::to_string(&self.definition).map_err(|e| json("configuration", e))?,
        })
    }

    /// Hands a request to the owner.
    pub(crate) async fn ask(&self, request: Request) -> Result<(), Error> {
        self.requests.send(request).await.map_err(|_| self.gone())
    }

    /// Why the owner does not answer: the container was removed, or the engine ends.
    pub(crate) fn gone(&self) -> Error {
        if self.life.borrow().removed {
            Error::NoSuchContainer(self.id().to_owned())
        } else {
            Error::Unavailable("the engine is ending".into())
        }
    }

    /// An event of this container.
    pub(crate) fn event(&self, event: ContainerEvent) -> Event {
        Event::Container {
            id: self.definition.id.clone(),
            name: self.name(),
            image: self.definition.config.image.clone(),
            labels: self.definition.config.labels.clone().unwrap_or_default(),
            event,
        }
    }
}

/// An announced attachment.
pub struct Expected(Arc<Container>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.send_modify(|count| *count -= 1);
    }
}
