//! Networks, as clients see them.

pub mod change;
pub mod connect;
pub mod list;

use std::collections::BTreeMap;

use crate::Error;
use crate::container::Kept;
use crate::create::Definition;
use crate::create::ports;
use crate::engine::Parts;
use crate::network::attachment::Attachment;
use crate::network::object::{Driver, Object, PREDEFINED};
use berth_api::StringMap;
use berth_api::network::{EndpointSettings, PortBinding, PortMap, PortSummary};
use berth_network::{Endpoint, PortMapping};
use berth_oci::Digest;
use ipnet::IpNet;

/// The ID of a network: made from its name, and so the same on every host and after every start.
pub(crate) fn network_id(name: &str) -> String {
    Digest::of(format!("berth network {name}").as_bytes()).hex().to_owned()
}

/// The ID of a container's endpoint in a network.
pub(crate) fn endpoint_id(network: &str, container: &str) -> String {
    Digest::of(format!("berth endpoint {network} {container}").as_bytes()).hex().to_owned()
}

/// The ID of a container's network namespace.
pub(crate) fn sandbox_id(container: &str) -> String {
    Digest::of(format!("berth sandbox {container}").as_bytes()).hex().to_owned()
}

/// A hardware address as Docker writes it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    if mac == [0; 6] {
        // A link with its parent's.
        return String::new();
    }
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The networks that a container is on whenever it runs.
pub(crate) fn attachments(definition: &Definition, kept: &Kept) -> Vec<Attachment> {
    match &kept.attachments {
        Some(changed) => changed.clone(),
        None => definition.attachments(),
    }
}

/// The networks of a container with its endpoints, which it has while it runs.
pub(crate) fn endpoints(definition: &Definition, kept: &Kept) -> BTreeMap<String, EndpointSettings> {
    let running = kept.state.running().is_some();
    let held = kept.state.endpoints();
    let shown = attachments(definition, kept).into_iter().map(|attachment| {
        let predefined = PREDEFINED.contains(&attachment.name.as_str());
        let endpoint = held.iter().find(|endpoint| is_of(endpoint, &attachment));
        let mut settings = attachment.settings.clone();
        if !predefined {
            settings.network_id.clone_from(&attachment.id);
        }
        if running {
            let network = if predefined { network_id(&attachment.name) } else { attachment.id.clone() };
            settings.endpoint_id = endpoint_id(&attachment.name, &definition.id);
            settings.network_id = network;
            settings.dns_names = attachment.names(&kept.name, &definition.id, &definition.config.hostname);
        }
        if let Some(endpoint) = endpoint {
            operational(&mut settings, endpoint);
        }
        (attachment.name, settings)
    });
    shown.collect()
}

/// Whether an endpoint is what came of an attachment.
pub(crate) fn is_of(endpoint: &Endpoint, attachment: &Attachment) -> bool {
    match endpoint.network_name.as_str() {
        // A record that is older than networks.
        "" => attachment.name == "bridge",
        name => name == attachment.name,
    }
}

/// What came of what was asked for.
fn operational(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.mac_address = mac_text(endpoint.mac);
    for address in &endpoint.addresses {
        match address {
            IpNet::V4(v4) if settings.ip_address.is_empty() => {
                settings.ip_address = v4.addr().to_string();
                settings.ip_prefix_len = i64::from(v4.prefix_len());
            }
            IpNet::V6(v6) if settings.global_ipv6_address.is_empty() => {
                settings.global_ipv6_address = v6.addr().to_string();
                settings.global_ipv6_prefix_len = i64::from(v6.prefix_len());
            }
            // Link-local ones, which were asked for.
            IpNet::V4(_) | IpNet::V6(_) => {}
        }
    }
    for gateway in endpoint.gateways.iter().filter(|gateway| !gateway.is_unspecified()) {
        let field = if gateway.is_ipv4() { &mut settings.gateway } else { &mut settings.ipv6_gateway };
        *field = gateway.to_string();
    }
}

fn port_key(mapping: &PortMapping) -> String {
    format!("{}/{}", mapping.container_port, mapping.protocol)
}

/// Exposed and published ports of a running container, as `inspect` shows them.
pub(crate) fn port_map(definition: &Definition, endpoints: &[Endpoint]) -> PortMap {
    let mut map = PortMap::new();
    for port in ports::exposed(&definition.config).unwrap_or_default() {
        map.insert(port.to_string(), None);
    }
    for mapping in endpoints.iter().flat_map(|endpoint| &endpoint.ports) {
        let binding = PortBinding {
            host_ip: mapping.host_address.to_string(),
            host_port: if mapping.host_port == 0 { String::new() } else { mapping.host_port.to_string() },
        };
        map.entry(port_key(mapping)).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// Exposed and published ports of a running container, as `ps` shows them.
pub(crate) fn port_summaries(definition: &Definition, endpoints: &[Endpoint]) -> Vec<PortSummary> {
    let published: Vec<&PortMapping> = endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.ports)
        .filter(|mapping| mapping.host_port != 0)
        .collect();
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
        let same = |m: &&PortMapping| m.container_port == port.port && m.protocol == port.protocol;
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

impl Parts {
    /// The networks that always exist, unless there is no default bridge.
    fn predefined(&self) -> Vec<Object> {
        let object = |name: &str, driver| Object::plain(network_id(name), name, driver, self.since);
        let bridge = self.networks.default_bridge().map(|settled| Object {
            created: self.since,
            options: bridge_options(self, &settled),
            ..Object::clone(&settled)
        });
        let others = [object("host", Driver::Host), object("none", Driver::Null)];
        bridge.into_iter().chain(others).collect()
    }

    /// All networks, those that always exist first, the others in the order of their creation.
    pub(crate) fn all_networks(&self) -> Vec<Object> {
        let mut made = self.networks.objects();
        made.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        self.predefined().into_iter().chain(made).collect()
    }

    /// A network by its ID, its name, or the beginning of its ID.
    pub(crate) fn find_network(&self, term: &str) -> Result<Object, Error> {
        find(self.all_networks(), term)
    }

    /// The network of an attachment, if it is there: by its ID, or by its name if one of that ID is gone.
    pub(crate) fn network_of(&self, attachment: &Attachment) -> Option<Object> {
        if let Some(segment) = self.networks.segment(&attachment.id) {
            return Some(segment.object.clone());
        }
        self.all_networks().into_iter().find(|object| object.name == attachment.name)
    }
}

fn find(networks: Vec<Object>, term: &str) -> Result<Object, Error> {
    let exact = networks.iter().position(|object| object.id == term);
    let exact = exact.or_else(|| networks.iter().position(|object| object.name == term));
    if let Some(index) = exact {
        return networks.into_iter().nth(index).ok_or_else(|| Error::NoSuchNetwork(term.to_owned()));
    }
    let mut matches = networks.into_iter().filter(|object| !term.is_empty() && object.id.starts_with(term));
    match (matches.next(), matches.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Error::NoSuchNetwork(term.to_owned())),
        (Some(_), Some(_)) => {
            let count = matches.count() + 2;
            Err(Error::InvalidParameter(format!(
                "network {term} is ambiguous ({count} matches found based on ID prefix)"
            )))
        }
    }
}

/// Docker's names for what is true of the default bridge.
fn bridge_options(parts: &Parts, settled: &Object) -> StringMap {
    let bridge = &parts.settings.bridge;
    let link = settled.bridge_link().unwrap_or_default();
    let pairs = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", bridge.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", bridge.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", bridge.publish_address.to_string()),
        ("com.docker.network.bridge.name", link),
        ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// A network as the tests of its neighbours want it.
#[cfg(test)]
pub(crate) fn example(name: &str, driver: Driver) -> Object {
    Object::plain(network_id(name), name, driver, jiff::Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::{Running, State};
    use crate::create::NetworkPlan;
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
            ..Endpoint::default()
        }
    }

    fn exposing(ports: &[&str]) -> Definition {
        let mut definition = crate::create::tests::definition();
        definition.config.exposed_ports =
            Some(ports.iter().map(|port| ((*port).to_owned(), berth_api::Empty {})).collect());
        definition
    }

    fn running(endpoints: Vec<Endpoint>) -> Kept {
        let mut kept = Kept::new("web".into());
        let running = Running {
            pid: 7,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            paused: false,
            endpoints,
            oom_killed: false,
            resolver: None,
        };
        kept.state = State::Running(running);
        kept
    }

    #[test]
    fn an_endpoint_is_shown_as_docker_shows_it() {
        let definition = exposing(&[]);
        let shown = super::endpoints(&definition, &running(vec![endpoint()]));
        let bridge = &shown["bridge"];
        assert_eq!((bridge.ip_address.as_str(), bridge.ip_prefix_len), ("172.17.0.2", 16));
        assert_eq!(
            (bridge.gateway.as_str(), bridge.mac_address.as_str()),
            ("172.17.0.1", "02:42:ac:11:00:02")
        );
        assert_eq!(bridge.network_id, network_id("bridge"));
        assert_eq!(bridge.dns_names, None);
        let stopped = super::endpoints(&definition, &Kept::new("web".into()));
        assert_eq!(stopped["bridge"], EndpointSettings::default());
    }

    #[test]
    fn networks_of_users_have_names() {
        let mut definition = exposing(&[]);
        definition.network = NetworkPlan::Named("mine".into());
        definition.attachments = vec![Attachment::new("mine", "abc", EndpointSettings::default())];
        let own = Endpoint { network: "abc".into(), network_name: "mine".into(), ..endpoint() };
        let shown = super::endpoints(&definition, &running(vec![own]));
        assert_eq!(shown["mine"].network_id, "abc");
        assert_eq!(shown["mine"].dns_names.as_deref().unwrap()[0], "web");
        assert_eq!(shown["mine"].ip_address, "172.17.0.2");
    }

    #[test]
    fn published_ports_have_bindings_and_exposed_ones_none() {
        let definition = exposing(&["80/tcp", "53/udp"]);
        let held = [endpoint()];
        let map = port_map(&definition, &held);
        assert_eq!(map["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
        assert_eq!(map["53/udp"], None);
        let list = port_summaries(&definition, &held);
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].private_port, list[0].public_port), (53, None));
        assert_eq!(
            (list[1].private_port, list[1].public_port, list[1].ip.as_str()),
            (80, Some(8080), "0.0.0.0")
        );
    }

    #[test]
    fn networks_are_found_by_the_beginning_of_their_id() {
        let all = || vec![example("host", Driver::Host), example("none", Driver::Null)];
        assert_eq!(find(all(), &network_id("none")[..8]).unwrap().name, "none");
        assert_eq!(find(all(), "nothing").unwrap_err().to_string(), "network nothing not found");
        assert!(find(all(), "").is_err());
    }
}
