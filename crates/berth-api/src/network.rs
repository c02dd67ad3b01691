//! Networks, endpoints and ports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::StringMap;
use crate::time::Time;

/// Published ports: `80/tcp` to where it is bound; `null` for exposed, not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// One host address and port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    /// Host address; empty: all.
    pub host_ip: String,
    /// Host port or range; empty: chosen by the daemon.
    pub host_port: String,
}

/// A port in a list of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortSummary {
    /// Host address.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Port in the container.
    pub private_port: u16,
    /// Port on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// `tcp`, `udp`, `sctp`.
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// The networks a new container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    /// Endpoints by network name.
    pub endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

/// An endpoint: what the user asked for, and what it got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSettings {
    /// Addresses asked for.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    /// Legacy links.
    pub links: Option<Vec<String>>,
    /// More names in the network.
    pub aliases: Option<Vec<String>>,
    /// Driver options.
    pub driver_opts: Option<StringMap>,
    /// The endpoint with the highest gives the default route.
    pub gw_priority: i64,
    /// Network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// MAC address.
    pub mac_address: String,
    /// Length of the IPv4 prefix.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Length of the IPv6 prefix.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// All names in the network.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Addresses asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointIpamConfig {
    /// IPv4.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// IPv6.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Link-local.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Option::is_none")]
    pub link_local_ips: Option<Vec<String>>,
}

/// `GET /networks/{id}`, and an element of `GET /networks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// Name.
    pub name: String,
    /// ID.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// IPv4 in use.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// IPv6 in use.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Address management.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out.
    pub internal: bool,
    /// Swarm only.
    pub attachable: bool,
    /// Swarm only.
    pub ingress: bool,
    /// Swarm only.
    pub config_from: ConfigReference,
    /// Swarm only.
    pub config_only: bool,
    /// Driver options.
    pub options: StringMap,
    /// Labels.
    pub labels: StringMap,
    /// Endpoints by container ID; in an inspection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<BTreeMap<String, EndpointResource>>,
    /// How full it is; in an inspection since 1.52.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<NetworkStatus>,
    /// Services of a cluster; in a verbose inspection. There are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<String, crate::Empty>>,
}

/// How full a network is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStatus {
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: IpamStatus,
}

/// How full a network's subnets are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamStatus {
    /// Figures by subnet.
    pub subnets: BTreeMap<String, SubnetStatus>,
}

/// How full a subnet is. Numbers saturate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetStatus {
    /// Addresses in use or never given out.
    #[serde(rename = "IPsInUse")]
    pub ips_in_use: u64,
    /// Addresses that may still be given out.
    #[serde(rename = "DynamicIPsAvailable")]
    pub dynamic_ips_available: u64,
}

/// `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkCreate {
    /// Name.
    pub name: String,
    /// `bridge` if it is empty.
    pub driver: String,
    /// `local` if it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// IPv4; on unless it says otherwise. Since 1.48.
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// IPv6.
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Address management.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// No way out.
    pub internal: bool,
    /// Swarm only.
    pub attachable: bool,
    /// Swarm only.
    pub ingress: bool,
    /// Nothing but a configuration for others.
    pub config_only: bool,
    /// The network whose configuration this one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigReference>,
    /// Driver options.
    pub options: Option<StringMap>,
    /// Labels.
    pub labels: Option<StringMap>,
}

/// What `POST /networks/create` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkCreated {
    /// ID of the new network.
    pub id: String,
    /// What was ignored.
    pub warning: String,
}

/// `POST /networks/{id}/connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkConnect {
    /// The container.
    pub container: String,
    /// Its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_config: Option<EndpointSettings>,
}

/// `POST /networks/{id}/disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkDisconnect {
    /// The container.
    pub container: String,
    /// Also if the network is gone.
    pub force: bool,
}

/// What `POST /networks/prune` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworksPruned {
    /// Names of the networks that were removed.
    pub networks_deleted: Option<Vec<String>>,
}

/// A network that another takes its configuration from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    /// Its name.
    pub network: String,
}

/// Address management of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    /// Driver options.
    pub options: Option<StringMap>,
    /// Subnets.
    pub config: Option<Vec<IpamConfig>>,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    /// The subnet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// The part of it that is given out.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// The gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses that are not given out, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auxiliary_addresses: Option<StringMap>,
}

/// An endpoint in a network's inspection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointResource {
    /// The container's name.
    pub name: String,
    /// Endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// MAC address.
    pub mac_address: String,
    /// IPv4 address with prefix.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// IPv6 address with prefix.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}
