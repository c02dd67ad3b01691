//! Subnets and addresses that a plugin gives out: `IpamDriver`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::StringMap;
use berth_network::{Endpoint, subnets};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Kind, Plugins, lie};
use crate::Error;
use crate::network::attachment::Asked;
use crate::network::endpoint_mac;
use crate::network::object::{AddressDriver, Object, Subnet};
use crate::network::request::{Wanted, WantedSubnet};

/// In what belongs to a pool: its gateway. Of a request: that the address is to be one.
const GATEWAY: &str = "com.docker.network.gateway";
/// What an address is to be.
const PURPOSE: &str = "RequestAddressType";
/// Whose an address is to be.
const HARDWARE_ADDRESS: &str = "com.docker.network.endpoint.macaddress";
/// Pools that are tried where a plugin offers what other networks have.
const POOLS: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spaces {
    #[serde(rename = "LocalDefaultAddressSpace")]
    local: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PoolRequest<'a> {
    address_space: &'a str,
    pool: String,
    sub_pool: String,
    options: &'a StringMap,
    v6: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolAnswer {
    #[serde(rename = "PoolID")]
    id: String,
    #[serde(rename = "Pool")]
    net: String,
    #[serde(rename = "Data")]
    data: Option<StringMap>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct AddressAnswer {
    address: String,
}

fn text(net: Option<IpNet>) -> String {
    net.map(|net| net.to_string()).unwrap_or_default()
}

impl Wanted {
    /// Settles what is open as the plugin `name` has it. What it gave is given back after an error.
    pub async fn settle_by_plugin(
        self,
        plugins: &Plugins,
        name: &str,
        others: &[IpNet],
    ) -> Result<Object, Error> {
        let Wanted { mut object, subnets } = self;
        let spaces: Spaces =
            plugins.ask((Kind::Addresses, name), "GetDefaultAddressSpaces", &json!({})).await?;
        let mut taken = others.to_vec();
        for wanted in subnets {
            let settled = plugins.subnet(name, &spaces.local, &object, &wanted, &taken).await;
            match settled {
                Ok(subnet) => {
                    taken.push(subnet.net);
                    object.subnets.push(subnet);
                }
                Err(error) => {
                    plugins.release_pools(&object).await;
                    return Err(error);
                }
            }
        }
        Ok(object)
    }
}

impl Plugins {
    /// A subnet of a network, with its gateway and the addresses that are never given out.
    async fn subnet(
        &self,
        name: &str,
        space: &str,
        object: &Object,
        wanted: &WantedSubnet,
        taken: &[IpNet],
    ) -> Result<Subnet, Error> {
        let options = object.ipam_options.clone().unwrap_or_default();
        let request = PoolRequest {
            address_space: space,
            pool: text(wanted.net),
            sub_pool: text(wanted.range),
            options: &options,
            v6: wanted.v6,
        };
        let mut held = Vec::new();
        let found = self.pool(name, &request, wanted.net, taken, &mut held).await;
        // They overlapped; while they were held, the plugin did not offer them again.
        for id in held {
            self.release_pool(name, &id).await;
        }
        let (id, net, offered) = found?;
        let mut subnet =
            Subnet { net, range: wanted.range, gateway: None, auxiliary: BTreeMap::new(), pool: id };
        let outcome = self.reserve(name, object, wanted, offered, &mut subnet).await;
        if let Err(error) = outcome {
            self.release_subnet(name, &subnet).await;
            return Err(error);
        }
        Ok(subnet)
    }

    /// A pool that fits: its ID, its subnet, and its gateway if it comes with one.
    async fn pool(
        &self,
        name: &str,
        request: &PoolRequest<'_>,
        wanted: Option<IpNet>,
        taken: &[IpNet],
        held: &mut Vec<String>,
    ) -> Result<(String, IpNet, Option<IpAddr>), Error> {
        while held.len() < POOLS {
            let answer: PoolAnswer = self.ask((Kind::Addresses, name), "RequestPool", request).await?;
            let net = answer.net.parse::<IpNet>().ok().filter(|net| is_v6(net) == request.v6);
            let net = net.filter(|net| wanted.is_none_or(|wanted| wanted == net.trunc()));
            let Some(net) = net.map(|net| net.trunc()) else {
                held.push(answer.id);
                let family = if request.v6 { "IPv6" } else { "IPv4" };
                return Err(lie(
                    name,
                    format!("{:?} is not the {family} pool that it was asked for", answer.net),
                ));
            };
            if wanted.is_some() || !taken.iter().any(|other| subnets::overlap(other, &net)) {
                let gateway = answer.data.unwrap_or_default().remove(GATEWAY);
                let gateway =
                    gateway.and_then(|text| text.parse::<IpNet>().ok()).map(|gateway| gateway.addr());
                return Ok((answer.id, net, gateway.filter(|gateway| net.contains(gateway))));
            }
            held.push(answer.id);
        }
        Err(lie(name, format!("{POOLS} pools that it offered overlap with other networks")))
    }

    /// Takes the addresses of a subnet that no container is to have.
    async fn reserve(
        &self,
        name: &str,
        object: &Object,
        wanted: &WantedSubnet,
        offered: Option<IpAddr>,
        subnet: &mut Subnet,
    ) -> Result<(), Error> {
        let purpose = StringMap::from([(PURPOSE.to_owned(), GATEWAY.to_owned())]);
        subnet.gateway = match (wanted.gateway, offered) {
            (None, Some(offered)) => Some(offered),
            (None, None) if !object.driver.wants_gateway(wanted.v6) => None,
            (given, _) => Some(self.address(name, subnet, given, &purpose).await?.addr()),
        };
        for (key, address) in &wanted.auxiliary {
            self.address(name, subnet, Some(*address), &StringMap::new()).await?;
            subnet.auxiliary.insert(key.clone(), *address);
        }
        Ok(())
    }

    /// One address of a subnet.
    async fn address(
        &self,
        name: &str,
        subnet: &Subnet,
        wanted: Option<IpAddr>,
        options: &StringMap,
    ) -> Result<IpNet, Error> {
        let text = wanted.map(|wanted| wanted.to_string()).unwrap_or_default();
        let question = json!({"PoolID": subnet.pool, "Address": text, "Options": options});
        let answer: AddressAnswer = self.ask((Kind::Addresses, name), "RequestAddress", &question).await?;
        let given: Option<IpNet> = answer.address.parse().ok();
        let fits = |given: &IpNet| {
            subnet.net.contains(&given.addr()) && wanted.is_none_or(|wanted| wanted == given.addr())
        };
        given.filter(fits).ok_or_else(|| {
            let of = if text.is_empty() { subnet.net.to_string() } else { text };
            lie(name, format!("{:?} is not the address that it was asked for, {of}", answer.address))
        })
    }

    /// Takes the addresses of a container's endpoint, and what follows from them.
    pub(super) async fn take_addresses(
        &self,
        object: &Object,
        asked: &Asked,
        endpoint: &mut Endpoint,
    ) -> Result<(), Error> {
        let AddressDriver::Plugin(name) = &object.addresses else { return Ok(()) };
        let mut options = StringMap::new();
        let (_, capabilities) = self.find(Kind::Addresses, name, super::PATIENCE).await?;
        if capabilities.needs_hardware_address {
            if endpoint.mac == [0; 6] {
                endpoint.mac = endpoint_mac(None);
            }
            options.insert(HARDWARE_ADDRESS.into(), crate::networks::mac_text(endpoint.mac));
        }
        for v6 in [false, true].into_iter().filter(|v6| !v6 || !asked.disables_ipv6()) {
            let wanted = if v6 { asked.ipv6.map(IpAddr::V6) } else { asked.ipv4.map(IpAddr::V4) };
            let mut outcome = Ok(());
            for subnet in object.subnets.iter().filter(|subnet| subnet.is_v6() == v6) {
                if wanted.is_some_and(|wanted| !subnet.net.contains(&wanted)) {
                    continue;
                }
                match self.address(name, subnet, wanted, &options).await {
                    Ok(address) => {
                        // Before those that are the link's alone.
                        let first =
                            endpoint.addresses.iter().take_while(|own| object.has_subnet_of(own)).count();
                        endpoint.addresses.insert(first, address);
                        endpoint.gateways.extend(object.gateway(subnet));
                        outcome = Ok(());
                        break;
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            if let Err(error) = outcome {
                self.give_back_addresses(object, endpoint).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives the addresses of a container's endpoint back.
    pub(super) async fn give_back_addresses(&self, object: &Object, endpoint: &Endpoint) {
        let AddressDriver::Plugin(name) = &object.addresses else { return };
        for address in endpoint.addresses.iter().map(IpNet::addr) {
            let subnet = object.subnets.iter().find(|subnet| subnet.net.contains(&address));
            if let Some(subnet) = subnet
                && !self.release_address(name, &subnet.pool, address).await
            {
                return;
            }
        }
    }

    /// Gives back what a network has of its plugin.
    pub async fn release_pools(&self, object: &Object) {
        let AddressDriver::Plugin(name) = &object.addresses else { return };
        for subnet in object.subnets.iter().filter(|subnet| !subnet.pool.is_empty()) {
            self.release_subnet(name, subnet).await;
        }
    }

    async fn release_subnet(&self, name: &str, subnet: &Subnet) {
        for address in subnet.gateway.iter().chain(subnet.auxiliary.values()) {
            if !self.release_address(name, &subnet.pool, *address).await {
                break;
            }
        }
        self.release_pool(name, &subnet.pool).await;
    }

    async fn release_pool(&self, name: &str, pool: &str) {
        let told = self.tell((Kind::Addresses, name), "ReleasePool", &json!({"PoolID": pool})).await;
        if let Err(error) = told {
            tracing::warn!(plugin = name, pool, %error, "a pool of addresses was not taken back");
        }
    }

    /// Whether the plugin is there, whatever it says.
    async fn release_address(&self, name: &str, pool: &str, address: IpAddr) -> bool {
        let news = json!({"PoolID": pool, "Address": address});
        let Err(error) = self.tell((Kind::Addresses, name), "ReleaseAddress", &news).await else {
            return true;
        };
        tracing::warn!(plugin = name, pool, %address, %error, "an address was not taken back");
        super::is_there(&error)
    }
}

fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}
