//! What is set up on the host for networks as a whole, and again by each engine: links, firewall, reserved ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_network::firewall::{Firewall, FirewallState, Published, Reached};
use berth_network::net::NetClient;
use berth_network::{Endpoint, Host, Reach, Wanted, neighbours};
use ipnet::IpNet;

use super::bridge_id;
use super::forward::Forwarding;
use super::linked::Links;
use super::object::Driver;
use super::publish;
use super::room;
use super::segment::Segment;
use crate::Error;

/// Reserves the ports of running containers again; all are tried, the first error told.
pub fn refill(net: &NetClient, endpoints: &BTreeMap<String, Vec<Endpoint>>) -> Result<(), Error> {
    let mut first = Ok(());
    for (container, all) in endpoints {
        let wanted: Vec<Wanted> = all.iter().flat_map(publish::again).collect();
        if wanted.is_empty() {
            continue;
        }
        let reserved = net.reserve(container, &wanted).map(|_| ()).map_err(Error::from);
        first = first.and(reserved);
    }
    first
}

/// What setting up takes.
pub struct SetUp {
    /// The host.
    pub host: Arc<Host>,
    /// The net process.
    pub net: Arc<NetClient>,
    /// The host's forwarding.
    pub forwarding: Arc<Forwarding>,
    /// The firewall.
    pub firewall: Arc<Firewall>,
    /// Links on the default bridge.
    pub links: Arc<Links>,
    /// Endpoints of containers that run.
    pub endpoints: BTreeMap<String, Vec<Endpoint>>,
}

impl SetUp {
    /// Makes links and firewall what the records say. Links that are there stay, and what goes through them goes on.
    /// `name` is the default bridge's link, which goes if there is none to be. Blocks.
    pub fn run(
        &self,
        default: Option<&Arc<Segment>>,
        name: &str,
        others: &[Arc<Segment>],
    ) -> Result<(), Error> {
        match default {
            Some(segment) => segment.link.ensure(&self.host)?,
            None => self.host.remove_bridge(name)?,
        }
        for segment in others {
            // One of a user must not keep the default from working.
            if let Err(error) = segment.link.ensure(&self.host) {
                tracing::error!(network = segment.object.name, %error, "a network could not be set up");
            }
        }
        let all = || default.into_iter().chain(others);
        let forwarded = |v6: bool| all().any(|segment| segment.forwarded().contains(&v6));
        let families: Vec<bool> = [false, true].into_iter().filter(|v6| forwarded(*v6)).collect();
        for v6 in &families {
            self.forwarding.note(*v6)?;
        }
        let mut state = firewall_state(all(), &self.endpoints);
        state.drops = self.forwarding.drops();
        state.bridges.extend(room::continuations(&self.host, all()).bridges);
        neighbours::make_room(self.endpoints.len() * 2);
        let closed = default.and_then(|segment| segment.link.firewall()).filter(|(_, rules)| !rules.within);
        if let Some((bridge, _)) = closed.as_ref().filter(|_| !self.firewall.is_off()) {
            let links = self.links.state(bridge);
            (state.links, state.pairs, state.partners) = (links.links, links.pairs, links.partners);
            self.firewall.reconcile(&state)?;
            self.links.settle(bridge, &self.ports_of_default())?;
        } else {
            self.firewall.reconcile(&state)?;
        }
        families.iter().try_for_each(|v6| self.forwarding.enable(&self.host, *v6))?;
        refill(&self.net, &self.endpoints)
    }
}

impl SetUp {
    /// The host's ends of links to the default bridge.
    fn ports_of_default(&self) -> Vec<String> {
        let id = bridge_id();
        let on_it = |endpoint: &&Endpoint| endpoint.network.is_empty() || endpoint.network == id;
        self.endpoints.values().flatten().filter(on_it).map(|one| one.host_link.clone()).collect()
    }
}

/// What the firewall has to know of a network, without its endpoints.
pub fn network_state(segment: &Segment) -> FirewallState {
    let Some((name, rules)) = segment.link.firewall() else { return FirewallState::default() };
    let subnets = segment.object.subnets.iter().map(|subnet| (name.clone(), subnet.net)).collect();
    let trusted = trusted(segment).iter().map(|link| (link.clone(), name.clone())).collect();
    FirewallState { bridges: vec![(name, rules)], subnets, trusted, ..FirewallState::default() }
}

/// All that the firewall depends on, of these networks.
pub fn firewall_state<'a>(
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    endpoints: &BTreeMap<String, Vec<Endpoint>>,
) -> FirewallState {
    let mut state = FirewallState::default();
    let default = bridge_id();
    for segment in segments {
        let network = network_state(segment);
        state.bridges.extend(network.bridges);
        state.subnets.extend(network.subnets);
        state.trusted.extend(network.trusted);
        let id = &segment.object.id;
        let own =
            |endpoint: &&Endpoint| endpoint.network == *id || (endpoint.network.is_empty() && *id == default);
        for endpoint in endpoints.values().flatten().filter(own) {
            state.addresses.extend(guarded(segment, endpoint));
            state.ports.extend(published(endpoint));
            state.reached.extend(reached(segment, endpoint));
            state.offered.extend(offered(segment, endpoint));
        }
    }
    state
}

/// The firewall's elements of an endpoint whose packets are translated.
pub fn published(endpoint: &Endpoint) -> Vec<Published> {
    let own = |v6: bool| endpoint.addresses.iter().map(IpNet::addr).find(|own| own.is_ipv6() == v6);
    let translated = endpoint.ports.iter().filter(|mapping| mapping.host_port != 0);
    translated
        .filter_map(|mapping| {
            let container = own(mapping.host_address.is_ipv6())?;
            Some(Published { mapping: mapping.clone(), container })
        })
        .collect()
}

/// Addresses of an endpoint that nobody reaches but through the host's ports.
pub fn guarded(segment: &Segment, endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter(|_| !segment.direct).map(IpNet::addr)
}

/// Those of one that is reached at its own addresses.
pub fn reached(segment: &Segment, endpoint: &Endpoint) -> Vec<Reached> {
    let Some((_, rules)) = segment.link.firewall() else { return Vec::new() };
    let mut found = Vec::new();
    for address in endpoint.addresses.iter().map(IpNet::addr) {
        let reach = if address.is_ipv4() { rules.reach4 } else { rules.reach6 };
        if reach != Reach::Published && !(segment.direct && rules.outward) {
            continue;
        }
        for mapping in &endpoint.ports {
            let one = Reached { address, protocol: mapping.protocol, port: mapping.container_port };
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// Links of the host whose hosts are as near to a network as itself.
fn trusted(segment: &Segment) -> &[String] {
    match &segment.object.driver {
        Driver::Bridge(options) => &options.trusted,
        Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => &[],
    }
}

/// Published ports of one that hosts on trusted links reach at its own addresses.
pub fn offered(segment: &Segment, endpoint: &Endpoint) -> Vec<Reached> {
    let mut found = Vec::new();
    if trusted(segment).is_empty() {
        return found;
    }
    for port in published(endpoint) {
        let one = Reached {
            address: port.container,
            protocol: port.mapping.protocol,
            port: port.mapping.container_port,
        };
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}
