//! Secrets and agents, asked for when a step needs them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_session::{Agent, Error as SessionError, Session};
use berth_storage::Scratch;
use tokio::runtime::Handle;

use super::super::keys::Keys;
use crate::Error;
use crate::engine::Parts;

/// Those of one client. Agents' sockets live as long as this does.
pub(crate) struct ClientKeys {
    parts: Arc<Parts>,
    session: String,
    handle: Handle,
    agents: Mutex<Agents>,
}

#[derive(Default)]
struct Agents {
    /// Each with its name; before the directory that they are in, so that they go first.
    open: Vec<(String, Agent)>,
    directory: Option<Scratch>,
}

impl ClientKeys {
    /// Those of the client that connects as `session`.
    pub fn new(parts: Arc<Parts>, session: &str) -> Self {
        let (session, handle) = (session.to_owned(), Handle::current());
        Self { parts, session, handle, agents: Mutex::default() }
    }

    async fn session(&self) -> Result<Arc<Session>, SessionError> {
        self.parts.sessions.get(&self.session).await
    }

    /// A socket that ends at an agent: the same one for all steps.
    fn agent(&self, id: &str) -> Result<PathBuf, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, agent)) = agents.open.iter().find(|(name, _)| name == id) {
            return Ok(agent.path().to_owned());
        }
        let directory = match &agents.directory {
            Some(directory) => directory,
            None => agents.directory.insert(self.parts.storage.scratch()?),
        };
        let path = directory.path().join(format!("agent-{}", agents.open.len()));
        // The user of a step is its own matter: what it is given is the mount of this, and the way here is closed to others.
        let made =
            self.handle.block_on(async { self.session().await?.agent(id, &path, (0, 0), 0o666).await });
        agents.open.push((id.to_owned(), made.map_err(|error| super::failed(&error))?));
        Ok(path)
    }
}

impl Keys for ClientKeys {
    fn secret(&self, id: &str) -> Option<Vec<u8>> {
        match self.handle.block_on(async { self.session().await?.secret(id).await }) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(%error, "the client of a build does not tell a secret");
                None
            }
        }
    }

    fn ssh(&self, id: &str) -> Option<PathBuf> {
        match self.agent(id) {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::warn!(%error, "the client of a build does not lend an agent");
                None
            }
        }
    }
}
