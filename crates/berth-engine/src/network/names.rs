//! Who is found by which names on a network: what a resolver has to know.

use std::net::IpAddr;

use berth_network::Endpoint;
use ipnet::IpNet;

use super::attachment::Attachment;

/// A container on a network that has names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// ID of the network.
    pub network: String,
    /// Its names there, aliases included; the first is the answer to questions about its addresses.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

/// What a container is on each of its networks that have names.
pub fn members(
    container: &str,
    id: &str,
    hostname: &str,
    attachments: &[Attachment],
    endpoints: &[Endpoint],
) -> Vec<Member> {
    let member = |endpoint: &Endpoint| {
        let attachment = attachments.iter().find(|one| crate::networks::is_of(endpoint, one))?;
        Some(Member {
            network: endpoint.network.clone(),
            names: attachment.names(container, id, hostname)?,
            addresses: endpoint.addresses.iter().map(IpNet::addr).collect(),
        })
    };
    endpoints.iter().filter(|endpoint| !endpoint.pending).filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::network::EndpointSettings;

    #[test]
    fn only_networks_of_users_have_names() {
        let attachment = |name: &str| Attachment::new(name, name, EndpointSettings::default());
        let endpoint = |name: &str, address: &str| Endpoint {
            network: name.into(),
            network_name: name.into(),
            addresses: vec![address.parse().unwrap()],
            ..Endpoint::default()
        };
        let found = members(
            "web",
            "0123456789abcdef",
            "host",
            &[attachment("bridge"), attachment("mine")],
            &[endpoint("bridge", "172.17.0.2/16"), endpoint("mine", "10.1.0.2/16")],
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].names, ["web", "0123456789ab", "host"]);
        assert_eq!(found[0].addresses, ["10.1.0.2".parse::<IpAddr>().unwrap()]);
    }
}
