//! Networks, as clients see them: the three that always exist.

use std::collections::BTreeMap;

use berth_api::StringMap;
use berth_api::filter::Filters;
use berth_api::network::{
    EndpointResource, EndpointSettings, Ipam, IpamConfig, Network, PortBinding, PortMap, PortSummary,
};
use berth_network::{Endpoint, PortMapping};
use berth_oci::Digest;
use ipnet::IpNet;

use crate::container::Container;
use crate::create::ports;
use crate::create::{Definition, NetworkPlan};
use crate::engine::Parts;
use crate::{Engine, Error};

/// Names and drivers of the networks, as Docker has them.
const NETWORKS: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
const KNOWN_FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// The ID of a network: made from its name, and so the same on every host and after every start.
pub(crate) fn network_id(name: &str) -> String {
    Digest::of(format!("berth network {name}").as_bytes()).hex().to_owned()
}

/// The ID of a container's endpoint in a network.
fn endpoint_id(network: &str, container: &str) -> String {
    Digest::of(format!("berth endpoint {network} {container}").as_bytes()).hex().to_owned()
}

/// The ID of a container's network namespace.
pub(crate) fn sandbox_id(container: &str) -> String {
    Digest::of(format!("berth sandbox {container}").as_bytes()).hex().to_owned()
}

/// A hardware address as Docker writes it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The networks of a container with its endpoint, which it has while it runs.
pub(crate) fn endpoints(
    definition: &Definition,
    name: &str,
    endpoint: Option<&Endpoint>,
    running: bool,
) -> BTreeMap<String, EndpointSettings> {
    let network = match definition.network {
        NetworkPlan::Bridge => "bridge",
        NetworkPlan::Host => "host",
        NetworkPlan::None => "none",
        NetworkPlan::Container(_) => return BTreeMap::new(),
    };
    let mut settings = EndpointSettings::default();
    if running {
        settings.network_id = network_id(network);
        settings.endpoint_id = endpoint_id(network, &definition.id);
        if network == "bridge" {
            settings.dns_names = Some(vec![name.to_owned(), short(&definition.id).to_owned()]);
        }
    }
    if let Some(endpoint) = endpoint {
        settings.mac_address = mac_text(endpoint.mac);
        for address in &endpoint.addresses {
            match address {
                IpNet::V4(v4) => {
                    settings.ip_address = v4.addr().to_string();
                    settings.ip_prefix_len = i64::from(v4.prefix_len());
                }
                IpNet::V6(v6) => {
                    settings.global_ipv6_address = v6.addr().to_string();
                    settings.global_ipv6_prefix_len = i64::from(v6.prefix_len());
                }
            }
        }
        for gateway in &endpoint.gateways {
            let field = if gateway.is_ipv4() { &mut settings.gateway } else { &mut settings.ipv6_gateway };
            *field = gateway.to_string();
        }
    }
    BTreeMap::from([(network.to_owned(), settings)])
}

/// An ID as Docker shortens it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn port_key(mapping: &PortMapping) -> String {
    format!("{}/{}", mapping.container_port, mapping.protocol)
}

/// Exposed and published ports of a running container, as `inspect` shows them.
pub(crate) fn port_map(definition: &Definition, endpoint: Option<&Endpoint>) -> PortMap {
    let mut map = PortMap::new();
    for port in ports::exposed(&definition.config).unwrap_or_default() {
        map.insert(port.to_string(), None);
    }
    for mapping in endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        let binding = PortBinding {
            host_ip: mapping.host_address.to_string(),
            host_port: mapping.host_port.to_string(),
        };
        map.entry(port_key(mapping)).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// Exposed and published ports of a running container, as `ps` shows them.
pub(crate) fn port_summaries(definition: &Definition, endpoint: Option<&Endpoint>) -> Vec<PortSummary> {
    let published = endpoint.map(|endpoint| endpoint.ports.as_slice()).unwrap_or_default();
    let mut found: Vec<PortSummary> = published
        .iter()
        .map(|mapping| PortSummary {
            ip: mapping.host_address.to_string(),
            private_port: mapping.container_port,
            public_port: Some(mapping.host_port),
            protocol: mapping.protocol.to_string(),
        })
        .collect();
    for port in ports::exposed(&definition.config).unwrap_or_default() {
        let same = |m: &PortMapping| m.container_port == port.port && m.protocol == port.protocol;
        if !published.iter().any(same) {
            found.push(PortSummary {
                private_port: port.port,
                protocol: port.protocol.to_string(),
                ..PortSummary::default()
            });
        }
    }
    found.sort_by(|a, b| (a.private_port, &a.protocol, &a.ip).cmp(&(b.private_port, &b.protocol, &b.ip)));
    found
}

impl Engine {
    /// Networks.
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<Network>, Error> {
        if let Some(name) = filters.names().find(|name| !KNOWN_FILTERS.contains(name)) {
            return Err(Error::InvalidParameter(format!("invalid filter '{name}'")));
        }
        let containers = self.parts.containers.all();
        let networks = NETWORKS.iter().filter(|(name, driver)| {
            let used = || containers.iter().any(|c| plan_name(&c.definition.network) == Some(*name));
            passes(&filters, name, driver, used)
        });
        Ok(networks.map(|(name, driver)| describe(&self.parts, name, driver)).collect())
    }

    /// Everything about a network, by its name or ID.
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn network_inspect(&self, name: &str) -> Result<Network, Error> {
        let exact = NETWORKS.iter().find(|(known, _)| *known == name || network_id(known) == name);
        let found = match exact {
            Some(found) => found,
            None => by_prefix(name)?,
        };
        let mut network = describe(&self.parts, found.0, found.1);
        let running = |container: &Container| -> Option<(String, EndpointResource)> {
            let state = container.state();
            state.running()?;
            if plan_name(&container.definition.network) != Some(found.0) {
                return None;
            }
            Some((container.id().to_owned(), resource(found.0, container, state.endpoint())))
        };
        let containers = self.parts.containers.all();
        network.containers = Some(containers.iter().filter_map(|container| running(container)).collect());
        Ok(network)
    }
}

fn by_prefix(prefix: &str) -> Result<&'static (&'static str, &'static str), Error> {
    let mut matches =
        NETWORKS.iter().filter(|(name, _)| !prefix.is_empty() && network_id(name).starts_with(prefix));
    match (matches.next(), matches.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Error::NoSuchNetwork(prefix.to_owned())),
        _ => Err(Error::InvalidParameter(format!(
            "network {prefix} is ambiguous (several found based on ID prefix)"
        ))),
    }
}

/// The name of the network that a container joins.
pub(crate) fn plan_name(plan: &NetworkPlan) -> Option<&'static str> {
    match plan {
        NetworkPlan::Bridge => Some("bridge"),
        NetworkPlan::Host => Some("host"),
        NetworkPlan::None => Some("none"),
        NetworkPlan::Container(_) => None,
    }
}

/// Name and driver of the network that a container joins.
pub(crate) fn plan_network(plan: &NetworkPlan) -> Option<(&'static str, &'static str)> {
    let name = plan_name(plan)?;
    NETWORKS.into_iter().find(|(known, _)| *known == name)
}

fn resource(network: &str, container: &Container, endpoint: Option<&Endpoint>) -> EndpointResource {
    let addresses = endpoint.map(|endpoint| endpoint.addresses.as_slice()).unwrap_or_default();
    let text = |wanted: fn(&IpNet) -> bool| {
        addresses.iter().copied().find(wanted).map(|address| address.to_string()).unwrap_or_default()
    };
    EndpointResource {
        name: container.name(),
        endpoint_id: endpoint_id(network, container.id()),
        mac_address: endpoint.map(|endpoint| mac_text(endpoint.mac)).unwrap_or_default(),
        ipv4_address: text(|address| matches!(address, IpNet::V4(_))),
        ipv6_address: text(|address| matches!(address, IpNet::V6(_))),
    }
}

fn describe(parts: &Parts, name: &str, driver: &str) -> Network {
    let mut network = Network {
        name: name.to_owned(),
        id: network_id(name),
        created: parts.since.into(),
        scope: "local".into(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".into(), ..Ipam::default() },
        ..Network::default()
    };
    if name == "bridge" {
        network.options = bridge_options(parts);
        network.ipam.config = Some(parts.networks.gateway().map_or_else(Vec::new, |gateway| {
            vec![IpamConfig {
                subnet: gateway.trunc().to_string(),
                gateway: gateway.addr().to_string(),
                ..IpamConfig::default()
            }]
        }));
    }
    network
}

/// Docker's names for what is true of the default bridge.
fn bridge_options(parts: &Parts) -> StringMap {
    let bridge = &parts.settings.bridge;
    let pairs = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
        ("com.docker.network.bridge.enable_ip_masquerade", bridge.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", bridge.publish_address.to_string()),
        ("com.docker.network.bridge.name", bridge.name.clone()),
        ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Whether a network satisfies Docker's filters; `used` tells whether a container has joined it.
fn passes(filters: &Filters, name: &str, driver: &str, used: impl Fn() -> bool) -> bool {
    let any = |filter: &str, matches: &dyn Fn(&str) -> bool| {
        !filters.has(filter) || filters.get(filter).any(matches)
    };
    let id = network_id(name);
    any("name", &|wanted| name.contains(wanted))
        && any("id", &|wanted| id.starts_with(wanted))
        && any("driver", &|wanted| driver == wanted)
        && any("scope", &|wanted| wanted == "local")
        && any("type", &|wanted| wanted == "builtin")
        // The networks that always exist never dangle, and carry no labels.
        && any("dangling", &|wanted| matches!(wanted, "false" | "0") && used())
        && !filters.has("label")
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_network::Protocol;

    fn endpoint() -> Endpoint {
        Endpoint {
            host_link: "veth0".into(),
            name: "eth0".into(),
            mac: [2, 0x42, 172, 17, 0, 2],
            addresses: vec!["172.17.0.2/16".parse().unwrap()],
            gateways: vec!["172.17.0.1".parse().unwrap()],
            ports: vec![PortMapping {
                protocol: Protocol::Tcp,
                host_address: "0.0.0.0".parse().unwrap(),
                host_port: 8080,
                container_port: 80,
            }],
        }
    }

    fn exposing(ports: &[&str]) -> Definition {
        let mut definition = crate::create::tests::definition();
        definition.config.exposed_ports =
            Some(ports.iter().map(|port| ((*port).to_owned(), berth_api::Empty {})).collect());
        definition
    }

    #[test]
    fn an_endpoint_is_shown_as_docker_shows_it() {
        let definition = exposing(&[]);
        let shown = endpoints(&definition, "web", Some(&endpoint()), true);
        let bridge = &shown["bridge"];
        assert_eq!((bridge.ip_address.as_str(), bridge.ip_prefix_len), ("172.17.0.2", 16));
        assert_eq!(
            (bridge.gateway.as_str(), bridge.mac_address.as_str()),
            ("172.17.0.1", "02:42:ac:11:00:02")
        );
        assert_eq!(bridge.network_id, network_id("bridge"));
        assert_eq!(bridge.dns_names.as_deref().unwrap()[0], "web");
        let stopped = endpoints(&definition, "web", None, false);
        assert_eq!(stopped["bridge"], EndpointSettings::default());
    }

    #[test]
    fn published_ports_have_bindings_and_exposed_ones_none() {
        let definition = exposing(&["80/tcp", "53/udp"]);
        let map = port_map(&definition, Some(&endpoint()));
        assert_eq!(map["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        assert_eq!(map["53/udp"], None);
        let list = port_summaries(&definition, Some(&endpoint()));
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].private_port, list[0].public_port), (53, None));
        assert_eq!(
            (list[1].private_port, list[1].public_port, list[1].ip.as_str()),
            (80, Some(8080), "0.0.0.0")
        );
    }

    #[test]
    fn filters_select_networks() {
        let count = |text: &str| {
            let filters = Filters::parse(text).unwrap();
            NETWORKS.iter().filter(|(name, driver)| passes(&filters, name, driver, || true)).count()
        };
        assert_eq!(count(""), 3);
        assert_eq!(count(r#"{"name":["br"]}"#), 1);
        assert_eq!(count(r#"{"driver":["null","host"]}"#), 2);
        assert_eq!(count(r#"{"type":["custom"]}"#), 0);
        assert_eq!(count(r#"{"dangling":["true"]}"#), 0);
        assert_eq!(count(r#"{"label":["a"]}"#), 0);
        assert_eq!(count(&format!(r#"{{"id":["{}"]}}"#, &network_id("host")[..6])), 1);
    }

    #[test]
    fn networks_are_found_by_the_beginning_of_their_id() {
        assert_eq!(by_prefix(&network_id("none")[..8]).unwrap().0, "none");
        assert_eq!(by_prefix("nothing").unwrap_err().to_string(), "network nothing not found");
        assert!(by_prefix("").is_err());
    }
}
