//! What endpoints open in the firewall: published ports, and what links let through.

use std::sync::Arc;

use berth_network::Endpoint;
use berth_network::firewall::{self, Backend, FirewallState, Flows};

use super::linked::{self, Party};
use super::setup::{guarded, offered, published, reached};
use super::{Networks, publish};
use crate::Error;
use crate::blocking::blocking;

impl Networks {
    /// Opens the ports of endpoints.
    pub(super) async fn publish(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let openings = self.openings(endpoints);
        if openings == FirewallState::default() {
            return Ok(());
        }
        let stale: Vec<Flows> =
            endpoints.iter().flat_map(|endpoint| publish::stale(&endpoint.ports)).collect();
        let firewall = Arc::clone(&self.firewall);
        blocking(move || {
            firewall.add(&openings)?;
            Ok(firewall::forget(&stale)?)
        })
        .await
    }

    /// Closes the ports of endpoints of a container that ended, and lets others have them.
    pub(super) async fn close(&self, container: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
        let openings = self.openings(endpoints);
        let publishers = endpoints.iter().filter(|endpoint| !endpoint.ports.is_empty());
        let gone: Vec<Flows> = publishers
            .flat_map(|endpoint| endpoint.addresses.iter().map(|own| Flows::Of(own.addr(), None)))
            .collect();
        let holds_ports = endpoints.iter().any(|endpoint| !endpoint.ports.is_empty());
        if openings == FirewallState::default() && !holds_ports {
            return Ok(());
        }
        let (net, owner, firewall) =
            (Arc::clone(&self.net), container.to_owned(), Arc::clone(&self.firewall));
        blocking(move || {
            let closed = firewall.remove(&openings);
            let released = if holds_ports { net.release(&owner) } else { Ok(()) };
            // Its addresses may be another's soon, and its clients may go on asking.
            let forgotten = firewall::forget(&gone);
            closed?;
            released?;
            Ok(forgotten?)
        })
        .await
    }

    /// What the firewall has to know of endpoints.
    pub(super) fn openings(&self, endpoints: &[Endpoint]) -> FirewallState {
        let mut all = FirewallState::default();
        for endpoint in endpoints {
            let Some(segment) = self.segment_of(endpoint) else { continue };
            // Only Docker's chains have a rule for each address.
            if self.firewall.backend() == Backend::Iptables {
                all.addresses.extend(guarded(&segment, endpoint));
            }
            if !endpoint.ports.is_empty() {
                all.ports.extend(published(endpoint));
                all.reached.extend(reached(&segment, endpoint));
                all.offered.extend(offered(&segment, endpoint));
            }
        }
        all
    }

    /// The default bridge's link, if containers on it reach each other by links alone.
    fn linking_bridge(&self) -> Option<String> {
        let segment = self.bridge.get()?.as_ref()?;
        let (name, rules) = segment.link.firewall()?;
        (!rules.within && !self.firewall.is_off()).then_some(name)
    }

    /// Opens what a container's links open, and those to it, where that is not open anyway. Its links are there.
    pub async fn open_links(
        &self,
        container: &str,
        party: Party,
        endpoints: &[Endpoint],
    ) -> Result<(), Error> {
        let Some(bridge) = self.linking_bridge() else { return Ok(()) };
        if !self.links.knows(container) && !linked::is_party(endpoints) {
            return Ok(());
        }
        let (links, container, endpoints) =
            (Arc::clone(&self.links), container.to_owned(), endpoints.to_vec());
        blocking(move || links.enter(&bridge, &container, party, &endpoints)).await
    }

    pub(super) async fn close_links(&self, container: &str) -> Result<(), Error> {
        let Some(bridge) = self.linking_bridge().filter(|_| self.links.knows(container)) else {
            return Ok(());
        };
        let (links, container) = (Arc::clone(&self.links), container.to_owned());
        blocking(move || links.leave(&bridge, &container)).await
    }

    /// Moves open ports with the endpoint that publishes them, from one set of a container's endpoints to the next.
    pub async fn republish(&self, before: &[Endpoint], now: &[Endpoint]) -> Result<(), Error> {
        let (old, new) = (self.openings(before), self.openings(now));
        if old == new {
            return Ok(());
        }
        for (link, publishes) in turned(before, now) {
            self.host.set_hairpin(link, publishes)?;
        }
        let gone = old.ports.iter().filter(|one| !new.ports.contains(one));
        let mut forgotten: Vec<Flows> = gone
            .map(|one| Flows::Of(one.container, Some((one.mapping.protocol, one.mapping.container_port))))
            .collect();
        let fresh = new.ports.iter().filter(|one| !old.ports.contains(one)).map(|one| one.mapping.clone());
        forgotten.extend(publish::stale(&fresh.collect::<Vec<_>>()));
        forgotten.sort();
        forgotten.dedup();
        let firewall = Arc::clone(&self.firewall);
        blocking(move || {
            firewall.exchange(&old, &new)?;
            Ok(firewall::forget(&forgotten)?)
        })
        .await
    }
}

/// Links of those endpoints that publish ports now and did not before, or the other way round.
fn turned<'a>(before: &[Endpoint], now: &'a [Endpoint]) -> Vec<(&'a str, bool)> {
    let published = |link: &str| before.iter().any(|old| old.host_link == link && !old.ports.is_empty());
    let all = now.iter().map(|endpoint| (endpoint.host_link.as_str(), !endpoint.ports.is_empty()));
    all.filter(|(link, publishes)| *publishes != published(link)).collect()
}
