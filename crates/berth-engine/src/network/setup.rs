//! What is set up on the host for networks as a whole, and again by each engine: links, firewall, reserved ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_network::firewall::{self, FirewallState, Published, Reached};
use berth_network::net::NetClient;
use berth_network::{Endpoint, Host, PortMapping, Reach, ipam, subnets};
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;

use super::bridge::BridgeOptions;
use super::bridge_id;
use super::object::{Driver, Object, Subnet};
use super::segment::Segment;
use crate::create::ports::Publication;
use crate::{BridgeSettings, Error};

/// Reserves the ports of running containers again; all are tried, the first error told.
pub fn refill(net: &NetClient, endpoints: &BTreeMap<String, Vec<Endpoint>>) -> Result<(), Error> {
    let mut first = Ok(());
    let flat = endpoints.iter().flat_map(|(container, all)| all.iter().map(move |one| (container, one)));
    for (container, endpoint) in flat.filter(|(_, endpoint)| !endpoint.ports.is_empty()) {
        let reserved = net.reserve(container, &endpoint.ports).map(|_| ()).map_err(Error::from);
        first = first.and(reserved);
    }
    first
}

/// The default bridge's gateway: as it was set, as it was, or in a subnet that nothing else has.
pub fn default_gateway(
    settings: &BridgeSettings,
    remembered: Option<Ipv4Net>,
    others: &[IpNet],
) -> Result<Ipv4Net, Error> {
    if let Some(gateway) = settings.gateway.or(remembered) {
        return Ok(gateway);
    }
    let subnet = subnets::choose(&subnets::default_pools(&[0; 5]), false, others)?;
    match ipam::first_address(subnet) {
        IpAddr::V4(first) => {
            Ok(Ipv4Net::new(first, subnet.prefix_len()).map_err(|_| berth_network::Error::NoSubnet)?)
        }
        IpAddr::V6(_) => Err(berth_network::Error::NoSubnet.into()),
    }
}

/// The default bridge, as a network.
pub fn default_object(settings: &BridgeSettings, gateway: Ipv4Net) -> Object {
    let options = BridgeOptions {
        name: Some(settings.name.clone()),
        mtu: settings.mtu,
        masquerade: settings.masquerade,
        ..BridgeOptions::default()
    };
    let subnet = Subnet {
        net: IpNet::V4(gateway.trunc()),
        range: None,
        gateway: Some(gateway.addr().into()),
        auxiliary: BTreeMap::new(),
    };
    let plain = Object::plain(bridge_id(), "bridge", Driver::Bridge(options), Timestamp::UNIX_EPOCH);
    Object { subnets: vec![subnet], ..plain }
}

/// Makes links and firewall what the records say. Links that are there stay, and what goes through them goes on.
pub fn set_up(
    host: &Host,
    net: &NetClient,
    segments: &[Arc<Segment>],
    endpoints: &BTreeMap<String, Vec<Endpoint>>,
) -> Result<(), Error> {
    for (index, segment) in segments.iter().enumerate() {
        match segment.link.ensure(host) {
            // One of a user must not keep the default from working.
            Err(error) if index > 0 => {
                tracing::error!(network = segment.object.name, %error, "a network could not be set up");
            }
            outcome => outcome?,
        }
    }
    firewall::reconcile(&firewall_state(segments.iter(), endpoints))?;
    refill(net, endpoints)
}

/// All that the firewall depends on, of these networks.
pub fn firewall_state<'a>(
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    endpoints: &BTreeMap<String, Vec<Endpoint>>,
) -> FirewallState {
    let mut state = FirewallState::default();
    let default = bridge_id();
    for segment in segments {
        state.bridges.extend(segment.link.firewall());
        let id = &segment.object.id;
        let own =
            |endpoint: &&Endpoint| endpoint.network == *id || (endpoint.network.is_empty() && *id == default);
        for endpoint in endpoints.values().flatten().filter(own) {
            state.ports.extend(published(segment, endpoint));
            state.reached.extend(reached(segment, endpoint));
        }
    }
    state
}

/// The firewall's elements of an endpoint whose packets are translated.
pub fn published(segment: &Segment, endpoint: &Endpoint) -> Vec<Published> {
    let routed = segment.link.firewall().is_some_and(|(_, rules)| rules.reach4 == Reach::Published);
    let Some(container) = endpoint.address4().filter(|_| !routed) else { return Vec::new() };
    endpoint.ports.iter().map(|mapping| Published { mapping: mapping.clone(), container }).collect()
}

/// Those of one that is reached at its own addresses.
pub fn reached(segment: &Segment, endpoint: &Endpoint) -> Vec<Reached> {
    let Some((_, rules)) = segment.link.firewall() else { return Vec::new() };
    let mut found = Vec::new();
    for address in endpoint.addresses.iter().map(IpNet::addr) {
        let reach = if address.is_ipv4() { rules.reach4 } else { rules.reach6 };
        if reach != Reach::Published {
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

/// Reserves all ports of a container, or none. In a range, the next port is tried while one is taken.
pub fn reserve(net: &NetClient, owner: &str, ports: &[Publication]) -> Result<Vec<PortMapping>, Error> {
    let mut candidates: Vec<_> = ports.iter().map(Publication::candidates).collect();
    let mut wanted: Vec<PortMapping> = candidates.iter_mut().filter_map(Iterator::next).collect();
    loop {
        let error = match net.reserve(owner, &wanted) {
            Ok(settled) => return Ok(settled),
            Err(error) => error,
        };
        let berth_network::Error::PortInUse { address, port } = error else { return Err(error.into()) };
        let taken = wanted.iter().position(|w| w.host_address == address && w.host_port == port);
        match taken.and_then(|index| Some((index, candidates[index].next()?))) {
            Some((index, next)) => wanted[index] = next,
            None => return Err(error.into()),
        }
    }
}
