//! What of a container's endpoint is a plugin's: asked for before it runs, given back when it has ended.

use berth_network::Endpoint;

use super::driver::Place;
use crate::Error;
use crate::create::ports::Publication;
use crate::network::object::{Driver, Object};
use crate::network::segment::Segment;
use crate::network::{Joining, Networks, endpoint_mac};
use crate::networks::endpoint_id;

impl Networks {
    /// Completes an endpoint with what plugins keep of its network. What was taken is given back after an error.
    pub(in crate::network) async fn complete(
        &self,
        container: &str,
        Joining { segment, asked }: &Joining,
        names: &[String],
        ports: &[Publication],
        endpoint: &mut Endpoint,
    ) -> Result<(), Error> {
        let object = &segment.object;
        if !object.is_kept_by_plugins() {
            return Ok(());
        }
        self.plugins.take_addresses(object, asked, endpoint).await?;
        let outcome = match &object.driver {
            Driver::Plugin(driver) => {
                let id = endpoint_id(&object.name, container);
                let place = Place { plugin: &driver.name, network: &object.id, endpoint: &id };
                self.make(place, (container, asked, names), ports, endpoint).await
            }
            Driver::Bridge(_) | Driver::Sublinks(_) | Driver::Host | Driver::Null => {
                if endpoint.mac == [0; 6] && object.driver.has_own_hardware_address() {
                    endpoint.mac = endpoint_mac(endpoint.addresses.first().copied());
                }
                Ok(())
            }
        };
        match outcome {
            Ok(()) => segment.adopt(container, endpoint),
            Err(_) => self.plugins.give_back_addresses(object, endpoint).await,
        }
        outcome
    }

    async fn make(
        &self,
        place: Place<'_>,
        (container, asked, names): (&str, &super::super::attachment::Asked, &[String]),
        ports: &[Publication],
        endpoint: &mut Endpoint,
    ) -> Result<(), Error> {
        let mut made = self.plugins.create_endpoint(place, asked, endpoint).await;
        if made.is_ok() {
            made = self.plugins.join(place, (container, asked, names), ports, endpoint).await;
        }
        if made.is_err() {
            self.plugins.delete_endpoint(place).await;
        }
        made
    }

    /// Gives back what plugins keep of a container's endpoints, after their links.
    pub(in crate::network) async fn withdraw(&self, container: &str, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Some(segment) = self.segment_of(endpoint).filter(|one| one.object.is_kept_by_plugins()) {
                self.withdraw_one(container, &segment, endpoint).await;
            }
        }
    }

    async fn withdraw_one(&self, container: &str, segment: &Segment, endpoint: &Endpoint) {
        let object: &Object = &segment.object;
        if let Driver::Plugin(driver) = &object.driver {
            let id = endpoint_id(&object.name, container);
            let place = Place { plugin: &driver.name, network: &object.id, endpoint: &id };
            if endpoint.gateways.is_empty() || self.plugins.revoke(place).await {
                self.plugins.forget_endpoint(place).await;
            }
        }
        self.plugins.give_back_addresses(object, endpoint).await;
    }
}
