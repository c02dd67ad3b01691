//! Networks, as clients see them.

use berth_api::filter::Filters;
use berth_api::network;

use crate::{Engine, Error};

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// Networks.
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<network::Network>, Error> {
        let _ = filters;
        unimplemented!()
    }

    /// Everything about a network.
    pub async fn network_inspect(&self, name: &str) -> Result<network::Network, Error> {
        let _ = name;
        unimplemented!()
    }
}
