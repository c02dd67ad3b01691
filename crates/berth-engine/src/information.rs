//! What the engine says about itself and what happens in it.

use berth_api::system;

use crate::event::EventStream;
use crate::{Engine, Error, op};

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// What the engine says about itself and its host.
    pub async fn info(&self) -> Result<system::Info, Error> {
        unimplemented!()
    }

    /// Versions of the engine and its API.
    pub fn version(&self) -> system::Version {
        unimplemented!()
    }

    /// Events from now on, or from `since`.
    pub fn events(&self, op: op::Events) -> EventStream {
        let _ = op;
        unimplemented!()
    }
}
