//! Containers joining and leaving networks, as clients ask for it.

use berth_api::network::{NetworkConnect, NetworkDisconnect};

use crate::life::owner::{Request, ask};
use crate::{Engine, Error};

impl Engine {
    /// Lets a container join a network: at once if it runs, else at its next start.
    pub async fn network_connect(&self, network: &str, request: NetworkConnect) -> Result<(), Error> {
        let container = self.parts.containers.find(&request.container)?;
        let settings = Box::new(request.endpoint_config.unwrap_or_default());
        ask(&container, |answer| Request::Connect(network.to_owned(), settings, answer)).await
    }

    /// Lets a container leave a network.
    pub async fn network_disconnect(&self, network: &str, request: NetworkDisconnect) -> Result<(), Error> {
        let container = match self.parts.containers.find(&request.container) {
            Ok(container) => container,
            Err(error) if request.force => {
                // As in Docker, the network is looked for first; what is not there has no endpoint.
                self.parts.find_network(network)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        ask(&container, |answer| Request::Disconnect(network.to_owned(), request.force, answer)).await
    }
}
