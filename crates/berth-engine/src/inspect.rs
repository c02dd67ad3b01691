//! Everything about one container.

use berth_api::container::Inspect;

use crate::{Engine, Error};

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// Everything about a container; with `size`, also the size of its writable layer.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<Inspect, Error> {
        let _ = (name, size);
        unimplemented!()
    }
}
