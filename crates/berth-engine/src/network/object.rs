//! What a network is: settled once, when it is made, and kept as its row.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::StringMap;
use berth_api::network::{ConfigReference, Ipam, IpamConfig, Network};
use berth_api::time::Time;
use berth_network::{Bridge, Link};
use berth_storage::NetworkRecord;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bridge::BridgeOptions;
use super::sublink::SublinkOptions;
use crate::Error;

/// Names of the networks that always exist.
pub const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// Names of auxiliary addresses that are containers' next hops, if the bridge is not: of IPv4 and of IPv6.
pub const NEXT_HOPS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// Whether users cannot make or remove a network of this name.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name) || name == "default"
}

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// What its endpoints are.
    pub driver: Driver,
    /// Whether endpoints have IPv4 addresses.
    pub ipv4: bool,
    /// Whether endpoints have IPv6 addresses.
    pub ipv6: bool,
    /// Whether there is no way out.
    pub internal: bool,
    /// Shown, of no effect without a cluster.
    #[serde(default)]
    pub attachable: bool,
    /// It is nothing but a configuration for others, and has no endpoints.
    #[serde(default)]
    pub config_only: bool,
    /// The name of the network that its configuration comes from.
    #[serde(default)]
    pub config_from: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: StringMap,
    /// The driver's options as the user gave them.
    #[serde(default)]
    pub options: StringMap,
    /// Who gives out its addresses.
    #[serde(default)]
    pub addresses: AddressDriver,
    /// Options for whoever gives out its addresses; of no effect where Berth itself does.
    #[serde(default)]
    pub ipam_options: Option<StringMap>,
    /// Its subnets, at most one of each family for a bridge.
    pub subnets: Vec<Subnet>,
}

impl Object {
    /// A network of IPv4 with nothing of its own but a name and a driver.
    pub fn plain(id: String, name: &str, driver: Driver, created: Timestamp) -> Self {
        Self {
            id,
            name: name.to_owned(),
            created,
            driver,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            config_only: false,
            config_from: None,
            labels: StringMap::new(),
            options: StringMap::new(),
            addresses: AddressDriver::Own,
            ipam_options: None,
            subnets: Vec::new(),
        }
    }
}

/// The drivers of networks. A driver is added here, in [`Object::link`] and in [`berth_network::Link`]; one that is a plugin
/// is a program of the host ([`super::plugin`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// A bridge of the host.
    Bridge(BridgeOptions),
    /// Links that share a parent of the host: `macvlan` and `ipvlan`.
    Sublinks(SublinkOptions),
    /// The host's own namespace.
    Host,
    /// A namespace with nothing but loopback, or a configuration for other networks.
    Null,
    /// Links that a plugin makes.
    Plugin(PluginDriver),
}

/// A plugin that makes links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginDriver {
    /// Its name.
    pub name: String,
    /// Whether it needs no address for a gateway: of IPv4, and of IPv6.
    #[serde(default)]
    pub without_gateways: [bool; 2],
}

/// Who gives out subnets and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressDriver {
    /// Berth itself.
    #[default]
    Own,
    /// Nobody: there are none.
    Null,
    /// A plugin of this name.
    Plugin(String),
}

impl AddressDriver {
    /// The driver of Docker's name.
    pub fn named(name: &str) -> AddressDriver {
        match name {
            "" | "default" => AddressDriver::Own,
            "null" => AddressDriver::Null,
            name => AddressDriver::Plugin(name.to_owned()),
        }
    }

    /// Docker's name.
    pub fn name(&self) -> &str {
        match self {
            AddressDriver::Own => "default",
            AddressDriver::Null => "null",
            AddressDriver::Plugin(name) => name,
        }
    }
}

impl Driver {
    /// Docker's name.
    pub fn name(&self) -> &str {
        match self {
            Driver::Plugin(plugin) => &plugin.name,
            Driver::Bridge(_) => "bridge",
            Driver::Sublinks(options) => options.driver(),
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }

    /// Whether a subnet of one family has a gateway where nobody chose one.
    pub fn wants_gateway(&self, v6: bool) -> bool {
        match self {
            Driver::Bridge(options) => !options.is_isolated(v6),
            Driver::Plugin(plugin) => !plugin.without_gateways[usize::from(v6)],
            Driver::Sublinks(_) | Driver::Host | Driver::Null => false,
        }
    }

    /// Whether a link's hardware address is Berth's to choose, if the user did not.
    pub fn has_own_hardware_address(&self) -> bool {
        match self {
            Driver::Sublinks(options) => options.kind.has_own_address(),
            Driver::Plugin(_) => false,
            Driver::Bridge(_) | Driver::Host | Driver::Null => true,
        }
    }
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub net: IpNet,
    /// The part of it that is given out to whoever does not ask for a certain address.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The next hop of its containers; none if they have no way out and the host no address.
    pub gateway: Option<IpAddr>,
    /// Addresses that are never given out, by name.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// What the plugin that gave it calls it; empty if none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
}

impl Subnet {
    /// Addresses that no container gets.
    pub fn set_aside(&self) -> impl Iterator<Item = IpAddr> {
        self.gateway.into_iter().chain(self.auxiliary.values().copied())
    }

    /// Whether it is of IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.net, IpNet::V6(_))
    }

    fn to_api(&self) -> IpamConfig {
        let text = |address: &dyn ToString| address.to_string();
        let auxiliary: StringMap =
            self.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string())).collect();
        IpamConfig {
            subnet: self.net.to_string(),
            ip_range: self.range.as_ref().map(|range| text(range)).unwrap_or_default(),
            gateway: self.gateway.as_ref().map(|gateway| text(gateway)).unwrap_or_default(),
            auxiliary_addresses: Some(auxiliary).filter(|auxiliary| !auxiliary.is_empty()),
        }
    }
}

impl Object {
    /// What the host makes of it; nothing for drivers without endpoints.
    pub fn link(&self) -> Option<Link> {
        match &self.driver {
            Driver::Bridge(options) => Some(Link::Bridge(Bridge {
                name: options.link_name(&self.id),
                gateways: self.host_addresses(options),
                mtu: options.mtu,
                foreign: options.foreign,
                found: options.found.clone(),
                rules: options.rules(self.internal),
            })),
            Driver::Sublinks(options) => Some(Link::Sublinks(options.sublinks(&self.id))),
            Driver::Plugin(_) => Some(Link::Handed),
            Driver::Host | Driver::Null => None,
        }
    }

    /// Whether plugins have a part in its endpoints, or it is one without addresses: these are completed after the rest.
    pub fn is_kept_by_plugins(&self) -> bool {
        matches!(self.driver, Driver::Plugin(_)) || matches!(self.addresses, AddressDriver::Plugin(_))
    }

    /// Whether an address is of one of its subnets.
    pub fn has_subnet_of(&self, address: &IpNet) -> bool {
        self.subnets.iter().any(|subnet| subnet.net.contains(&address.addr()))
    }

    /// The name of its bridge, if it is one.
    pub fn bridge_link(&self) -> Option<String> {
        match &self.driver {
            Driver::Bridge(options) => Some(options.link_name(&self.id)),
            Driver::Sublinks(_) | Driver::Plugin(_) | Driver::Host | Driver::Null => None,
        }
    }

    /// The addresses of the bridge's own end.
    fn host_addresses(&self, options: &BridgeOptions) -> Vec<IpNet> {
        let own = self.subnets.iter().filter(|subnet| !options.is_isolated(subnet.is_v6()));
        own.filter_map(|subnet| IpNet::new(subnet.gateway?, subnet.net.prefix_len()).ok()).collect()
    }

    /// The next hop that containers have in a subnet; the unspecified address if it is the link itself.
    pub fn gateway(&self, subnet: &Subnet) -> Option<IpAddr> {
        let own = match &self.driver {
            Driver::Bridge(_) => {
                let other = subnet.auxiliary.get(NEXT_HOPS[usize::from(subnet.is_v6())]);
                other.copied().or(subnet.gateway)
            }
            // Without a parent of the host's, there is nowhere to go.
            Driver::Sublinks(options) if options.parent.is_none() => None,
            Driver::Sublinks(options) if options.routes_by_link() => Some(match subnet.net {
                IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            }),
            // It says so when a container joins.
            Driver::Plugin(_) => None,
            Driver::Sublinks(_) | Driver::Host | Driver::Null => subnet.gateway,
        };
        own.filter(|_| !self.internal)
    }

    /// As clients see it, without its endpoints.
    pub fn to_api(&self) -> Network {
        Network {
            name: self.name.clone(),
            id: self.id.clone(),
            created: Time(self.created),
            scope: "local".into(),
            driver: self.driver.name().into(),
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Ipam {
                driver: self.addresses.name().into(),
                options: self.ipam_options.clone(),
                config: self.shown_subnets(),
            },
            internal: self.internal,
            attachable: self.attachable,
            config_from: ConfigReference { network: self.config_from.clone().unwrap_or_default() },
            config_only: self.config_only,
            options: self.options.clone(),
            labels: self.labels.clone(),
            ..Network::default()
        }
    }

    fn shown_subnets(&self) -> Option<Vec<IpamConfig>> {
        let null = |net: &str| IpamConfig { subnet: net.into(), ..IpamConfig::default() };
        match (&self.driver, &self.addresses) {
            (Driver::Host | Driver::Null, _) => None,
            // As in Docker.
            (_, AddressDriver::Null) => {
                let families = [(self.ipv4, "0.0.0.0/0"), (self.ipv6, "::/0")];
                Some(families.into_iter().filter(|(enabled, _)| *enabled).map(|(_, net)| null(net)).collect())
            }
            (Driver::Bridge(_) | Driver::Sublinks(_) | Driver::Plugin(_), _) => {
                Some(self.subnets.iter().map(Subnet::to_api).collect())
            }
        }
    }

    /// Its row.
    pub fn record(&self) -> Result<NetworkRecord, Error> {
        let what = || format!("network {}", self.id);
        Ok(NetworkRecord {
            id: self.id.clone(),
            name: self.name.clone(),
            created: self.created,
            config: serde_json::to_string(self).map_err(|source| Error::Record { what: what(), source })?,
        })
    }

    /// Reads a row.
    pub fn from_record(record: &NetworkRecord) -> Result<Object, Error> {
        let what = || format!("network {}", record.id);
        serde_json::from_str(&record.config).map_err(|source| Error::Record { what: what(), source })
    }
}
