//! Secrets and agents, asked for when a step needs them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_session::{Agent, Error as SessionError, Session};
use berth_storage::Scratch;
use tokio::runtime::Handle;

use super::super::keys::Keys;
use crate::Error;
use crate::engine::Parts;
use crate::error::chain;

/// Those of one client. Agents' sockets live as long as this does.
pub(crate) struct ClientKeys {
    parts: Arc<Parts>,
    session: String,
    handle: Handle,
    agents: Mutex<Agents>,
}

#[derive(Default)]
struct Agents {
    /// They go before the directory that they are in.
    open: Vec<(Lent, Agent)>,
    directory: Option<Scratch>,
}

/// What a socket is there for: the name of an agent, and whom it is for.
#[derive(PartialEq, Eq)]
struct Lent {
    id: String,
    owner: (u32, u32),
    mode: u32,
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

    /// A socket that ends at an agent: the same one for all steps that ask for the same.
    fn agent(&self, lent: Lent) -> Result<Option<PathBuf>, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, agent)) = agents.open.iter().find(|(open, _)| *open == lent) {
            return Ok(Some(agent.path().to_owned()));
        }
        let directory = match &agents.directory {
            Some(directory) => directory,
            None => agents.directory.insert(self.parts.storage.scratch()?),
        };
        let path = directory.path().join(format!("agent-{}", agents.open.len()));
        // A step is given the mount of this; the way here is closed to others.
        let Lent { id, owner, mode } = &lent;
        let made =
            self.handle.block_on(async { self.session().await?.agent(id, &path, *owner, *mode).await });
        match made {
            Ok(agent) => agents.open.push((lent, agent)),
            Err(error @ (SessionError::NotOffered(_) | SessionError::Call(_))) => {
                tracing::debug!(%error, "the client of a build has no such agent");
                return Ok(None);
            }
            Err(error) => return Err(unasked("ssh agent", id, &error)),
        }
        Ok(Some(path))
    }
}

/// The client did not say whether it has a key.
fn unasked(kind: &str, id: &str, error: &SessionError) -> Error {
    Error::InvalidParameter(format!("{kind} {id}: the client cannot be asked: {}", chain(error)))
}

impl Keys for ClientKeys {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let told = self.handle.block_on(async { self.session().await?.secret(id).await });
        told.map_err(|error| unasked("secret", id, &error))
    }

    fn ssh(&self, id: &str, owner: (u32, u32), mode: u32) -> Result<Option<PathBuf>, Error> {
        self.agent(Lent { id: id.to_owned(), owner, mode })
    }
}
