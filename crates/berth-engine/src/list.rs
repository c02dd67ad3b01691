//! The containers, as `ps` shows them.

use berth_api::container::Summary;

use crate::{Engine, Error, op};

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// Containers, the newest first.
    pub async fn list(&self, op: op::List) -> Result<Vec<Summary>, Error> {
        let _ = op;
        unimplemented!()
    }
}
