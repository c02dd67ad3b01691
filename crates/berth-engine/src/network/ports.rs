//! Published ports of a container's endpoints: which of them publishes, and what it holds.

use std::sync::Arc;

use berth_network::{Endpoint, PortMapping};

use super::object::Driver;
use super::{Networks, publish, segment};
use crate::Error;
use crate::blocking::blocking;
use crate::create::ports::Publication;

impl Networks {
    /// Gives the ports that a container publishes to that of its endpoints that has the way out, and reserves them. Ports
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
        let Some(publisher) = self.publisher(endpoints) else {
            return if held.is_empty() { Ok(()) } else { self.release(container).await };
        };
        // An engine that has taken the container over may not have needed it yet.
        self.ready().await?;
        let segment = self.known(&endpoints[publisher])?;
        let default = match &segment.object.driver {
            Driver::Bridge(options) => options.publish_address,
            Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => None,
        };
        let default = default.unwrap_or(self.settings.publish_address);
        let rules = segment.link.firewall().map(|(_, rules)| rules).unwrap_or_default();
        let plan = publish::plan(ports, &rules, &endpoints[publisher], default, &held);
        let mut found = Vec::new();
        if !plan.wanted.is_empty() || !held.is_empty() {
            let (net, owner) = (Arc::clone(&self.net), container.to_owned());
            found = blocking(move || Ok(net.reserve(&owner, &plan.wanted)?)).await?;
        }
        found.extend(plan.direct);
        endpoints[publisher].ports = found;
        let others = endpoints.iter_mut().enumerate().filter(|(index, _)| *index != publisher);
        for (_, endpoint) in others {
            // At its own addresses it is reached wherever the default route goes.
            let rules = self.segment_of(endpoint).and_then(|segment| Some(segment.link.firewall()?.1));
            let direct = rules.map(|rules| publish::plan(ports, &rules, endpoint, default, &[]).direct);
            endpoint.ports = direct.unwrap_or_default();
        }
        Ok(())
    }

    /// Which of a container's endpoints publishes its ports: that with the default route, if it goes through the host.
    fn publisher(&self, endpoints: &[Endpoint]) -> Option<usize> {
        let [four, six] = segment::gateways(endpoints);
        let through_host = |index: &usize| {
            self.segment_of(&endpoints[*index]).is_none_or(|segment| segment.link.firewall().is_some())
        };
        four.or(six).filter(through_host)
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
