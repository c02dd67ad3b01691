//! What a build's client offers over its session: files, secrets and agents.

mod keys;
mod received;

use std::sync::Arc;

use berth_session::{Claim, Offer};

use crate::error::chain;
use crate::{Engine, Error};

pub(super) use keys::ClientKeys;
pub(super) use received::{Received, bring, receive};

/// The client's name for the build's context.
pub const CONTEXT: &str = "context";

/// The context of a build whose client sends its files by its session.
pub const CLIENT_SESSION: &str = "client-session";

impl Engine {
    /// Takes a name for the session of a client that is about to connect.
    ///
    /// # Errors
    /// The name is taken; there are too many.
    pub fn session(&self, offer: Offer) -> Result<Claim, Error> {
        self.parts.sessions.claim(offer).map_err(|error| Error::InvalidParameter(error.to_string()))
    }

    /// Whether there is a session of this name.
    pub fn has_session(&self, id: &str) -> bool {
        self.parts.sessions.has(id)
    }

    /// The secrets and agents of a build's client.
    pub(super) fn client_keys(&self, session: &str) -> ClientKeys {
        ClientKeys::new(Arc::clone(&self.parts), session)
    }
}

/// A failed call, as the build's failure.
pub(super) fn failed(error: &berth_session::Error) -> Error {
    match error {
        berth_session::Error::Absent(_) => Error::InvalidParameter(error.to_string()),
        error => Error::InvalidParameter(format!("error reading the build context: {}", chain(error))),
    }
}
