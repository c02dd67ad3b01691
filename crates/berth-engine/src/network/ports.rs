//! Published ports of a container's endpoints: which of them publishes, and what it holds.

use std::sync::Arc;

use berth_network::{Endpoint, PortMapping};

use super::object::Driver;
use super::publish::Publisher;
use super::{Networks, publish, segment};
use crate::Error;
use crate::blocking::blocking;
use crate::create::ports::Publication;

impl Networks {
    /// Gives the ports that a container publishes to those of its endpoints that have the way out, and reserves them. Ports
    /// that it holds already stay the same. After an error, what was reserved before still is, as
    /// [`Networks::restore_ports`] says.
    pub async fn place_ports(
        &self,
        container: &str,
        endpoints: &mut [Endpoint],
        ports: &[Publication],
    ) -> Result<(), Error> {
        let held: Vec<PortMapping> =
            endpoints.iter_mut().flat_map(|endpoint| std::mem::take(&mut endpoint.ports)).collect();
        // Only who can be reached from outside publishes.
        let chosen = self.publishers(endpoints);
        let Some(first) = chosen[0].or(chosen[1]) else {
            return if held.is_empty() { Ok(()) } else { self.release(container).await };
        };
        // An engine that has taken the container over may not have needed it yet.
        self.ready().await?;
        let segment = self.known(&endpoints[first])?;
        let default = match &segment.object.driver {
            Driver::Bridge(options) => options.publish_address,
            Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => None,
        };
        let default = default.unwrap_or(self.settings.publish_address);
        let publisher = |index: usize| self.as_publisher(&endpoints[index]);
        let plan = publish::plan(ports, chosen.map(|index| index.and_then(publisher)), default, &held);
        let mut found = Vec::new();
        if !plan.is_empty() || !held.is_empty() {
            let (net, owner) = (Arc::clone(&self.net), container.to_owned());
            found = blocking(move || Ok(net.reserve(&owner, &plan)?)).await?;
        }
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            let own =
                |mapping: &&PortMapping| chosen[usize::from(mapping.host_address.is_ipv6())] == Some(index);
            let mut all: Vec<PortMapping> = found.iter().filter(own).cloned().collect();
            // At its own addresses it is reached wherever the default route goes.
            let publisher = self.as_publisher(endpoint);
            all.extend(publisher.into_iter().flat_map(|it| publish::direct(ports, it, default)));
            endpoint.ports = all;
        }
        Ok(())
    }

    /// An endpoint as one that ports can be published on, if its packets pass through the host.
    fn as_publisher<'a>(&self, endpoint: &'a Endpoint) -> Option<Publisher<'a>> {
        let (_, rules) = self.segment_of(endpoint)?.link.firewall()?;
        Some(Publisher { endpoint, rules })
    }

    /// Which of a container's endpoints publish its ports at the host's IPv4 addresses, and at its IPv6 addresses: those with
    /// the default routes, if these go through the host. Without one of IPv6, IPv4's has both.
    fn publishers(&self, endpoints: &[Endpoint]) -> [Option<usize>; 2] {
        let routes = segment::gateways(endpoints);
        let through_host = |index: &usize| {
            self.segment_of(&endpoints[*index]).is_none_or(|segment| segment.link.firewall().is_some())
        };
        let [four, six] = routes.map(|index| index.filter(through_host));
        [if routes[0].is_some() { four } else { six }, six.or(four)]
    }

    /// Reserves what endpoints hold, and nothing else for their container.
    pub async fn restore_ports(&self, container: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
        let wanted: Vec<_> = endpoints.iter().flat_map(publish::again).collect();
        if wanted.is_empty() {
            return self.release(container).await;
        }
        let (net, owner) = (Arc::clone(&self.net), container.to_owned());
        blocking(move || Ok(net.reserve(&owner, &wanted).map(|_| ())?)).await
    }
}
