//! A container in memory: what it is, what it is doing, and the way to its owner.

mod index;
pub mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_storage::ContainerRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::create::Definition;
use crate::event::{ContainerEvent, Event};
use crate::life::owner::Request;
use state::State;

pub use index::Index;

/// Requests that may wait for an owner; more make their senders wait.
const MAILBOX: usize = 64;

/// A container. Only its owner, a task, changes it; everybody may read.
pub struct Container {
    /// What it is. Never changes.
    pub definition: Definition,
    kept: Mutex<Kept>,
    life: watch::Sender<Life>,
    requests: mpsc::Sender<Request>,
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
}

/// What waiting clients look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// It runs, or is about to be started again by its policy.
    pub up: bool,
    /// Its program runs; false between two runs of a policy.
    pub running: bool,
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
            running: kept.state.running().is_some(),
            code: kept.state.exit_code(),
            ..Life::default()
        };
        (Container { definition, kept: Mutex::new(kept), life: watch::Sender::new(life), requests }, mailbox)
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.definition.id
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
        *self.lock() = kept;
    }

    /// What waiting clients look at.
    pub(crate) fn life(&self) -> &watch::Sender<Life> {
        &self.life
    }

    /// Its row, as it is with `kept`.
    pub(crate) fn record(&self, kept: &Kept) -> Result<ContainerRecord, Error> {
        let json = |what: &str, source| Error::Record { what: format!("{what} of container {}", self.id()), source };
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
