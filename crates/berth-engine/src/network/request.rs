//! From a request to what a network is: checked and settled, in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::StringMap;
use berth_api::network::{IpamConfig, NetworkCreate};
use berth_network::ipam;
use berth_network::subnets::{self, AddressPool};
use ipnet::IpNet;
use jiff::Timestamp;

use super::bridge::{BridgeOptions, boolean};
use super::object::{AddressDriver, Driver, Object, PluginDriver, Subnet, is_predefined};
use super::plugin::Plugins;
use super::sublink::SublinkOptions;
use crate::{Error, name};

/// A network to make, checked as far as it can be without looking at others.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The network without its subnets.
    pub(super) object: Object,
    /// Its subnets.
    pub(super) subnets: Vec<WantedSubnet>,
}

/// A subnet of a request; what is missing is chosen.
#[derive(Debug, Clone)]
pub(super) struct WantedSubnet {
    pub(super) v6: bool,
    pub(super) net: Option<IpNet>,
    pub(super) range: Option<IpNet>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) auxiliary: BTreeMap<String, IpAddr>,
}

impl Wanted {
    /// Reads a request. `source` finds the configuration-only network that it may refer to.
    pub fn parse(
        mut request: NetworkCreate,
        source: impl Fn(&str) -> Option<Object>,
    ) -> Result<Wanted, Error> {
        if is_predefined(&request.name) {
            return Err(Error::Forbidden(format!(
                "operation is not permitted on predefined {} network ",
                request.name
            )));
        }
        if request.name.trim().is_empty() {
            return Err(Error::InvalidParameter("invalid name: name is empty".into()));
        }
        let from = request.config_from.take().map(|from| from.network).filter(|name| !name.is_empty());
        check_operator_fields(&request, from.as_deref())?;
        if let Some(from) = from {
            let found = source(&from)
                .filter(|found| found.config_only)
                .ok_or_else(|| Error::NotFound(format!("configuration network \"{from}\" does not exist")))?;
            return copied(request, found, from);
        }
        let options = request.options.take().unwrap_or_default();
        let ipv4 = enabled(request.enable_ipv4, &options, "com.docker.network.enable_ipv4", true)?;
        let ipv6 = enabled(request.enable_ipv6, &options, "com.docker.network.enable_ipv6", false)?;
        let asked = request.ipam.clone().unwrap_or_default();
        let subnets = wanted_subnets(asked.config.as_deref().unwrap_or_default(), ipv6)?;
        let driver = if request.config_only {
            Driver::Null
        } else {
            driver(&request.driver, &options, request.internal)?
        };
        let object = Object {
            id: name::new_id()
                .map_err(|source| Error::Io { operation: "read random bytes".into(), source })?,
            name: request.name,
            created: Timestamp::now(),
            driver,
            ipv4,
            ipv6,
            internal: request.internal,
            attachable: request.attachable,
            config_only: request.config_only,
            config_from: None,
            labels: request.labels.unwrap_or_default(),
            options,
            addresses: AddressDriver::named(&asked.driver),
            ipam_options: asked.options,
            subnets: Vec::new(),
        };
        families(object, subnets)
    }

    /// The name of the network.
    pub fn name(&self) -> &str {
        &self.object.name
    }

    /// The plugin that gives out its addresses, if one does.
    pub fn addresses_by(&self) -> Option<&str> {
        match &self.object.addresses {
            AddressDriver::Plugin(name) if !self.object.config_only => Some(name),
            _ => None,
        }
    }

    /// Asks the plugin that is to make its links, if there is one, what it can do.
    pub async fn look_at_plugin(&mut self, plugins: &Plugins) -> Result<(), Error> {
        let Driver::Plugin(mut driver) = self.object.driver.clone() else { return Ok(()) };
        plugins.look_at(&mut driver, &self.object).await?;
        self.object.driver = Driver::Plugin(driver);
        Ok(())
    }

    /// Settles what is open: subnets and gateways that overlap none of `others`, nor what the host routes.
    /// `shared` are those of `others` that networks of links of a parent may have, too.
    pub fn settle(self, pools: &[AddressPool], others: &[IpNet], shared: &[Subnet]) -> Result<Object, Error> {
        let Wanted { mut object, subnets } = self;
        let mut taken = others.to_vec();
        for wanted in subnets {
            let net = match wanted.net {
                Some(net) if object.config_only => net,
                // No address is a wish for a size: any subnet of the pools will do.
                Some(net) if net.addr().is_unspecified() => {
                    let sized = pools.iter().filter(|pool| pool.base.prefix_len() <= net.prefix_len());
                    let sized: Vec<AddressPool> =
                        sized.map(|pool| AddressPool { size: net.prefix_len(), ..pool.clone() }).collect();
                    subnets::choose(&sized, wanted.v6, &taken)
                        .map_err(|error| Error::InvalidParameter(error.to_string()))?
                }
                Some(net) if is_shared(&object.driver, net, wanted.range, shared) => net,
                Some(net) => free(net, &taken)?,
                None => subnets::choose(pools, wanted.v6, &taken)
                    .map_err(|error| Error::InvalidParameter(error.to_string()))?,
            };
            taken.push(net);
            let gateway = match (&object.driver, wanted.gateway) {
                (driver, None) if driver.wants_gateway(wanted.v6) => {
                    Some(first_gateway(net, wanted.range, &wanted.auxiliary)?)
                }
                (_, given) => given,
            };
            if gateway.is_some_and(|gateway| wanted.auxiliary.values().any(|taken| *taken == gateway)) {
                return Err(Error::Forbidden("Address already in use".into()));
            }
            let (range, auxiliary) = (wanted.range, wanted.auxiliary);
            object.subnets.push(Subnet { net, range, gateway, auxiliary, pool: String::new() });
        }
        Ok(object)
    }
}

fn check_operator_fields(request: &NetworkCreate, from: Option<&str>) -> Result<(), Error> {
    let forbidden = |text: &str| Err(Error::Forbidden(text.to_owned()));
    if request.config_only {
        if request.ingress || request.internal || request.attachable || !request.scope.is_empty() {
            return forbidden(
                "configuration network can only contain network specific fields. Network operator fields like \
                 [ ingress | internal | attachable | scope ] are not supported.",
            );
        }
        if from.is_some() {
            return forbidden("a configuration network cannot depend on another configuration network");
        }
    }
    if from.is_some() {
        let filled = |map: &Option<StringMap>| map.as_ref().is_some_and(|map| !map.is_empty());
        let ipam = request.ipam.as_ref();
        let configured = request.enable_ipv4 == Some(false)
            || request.enable_ipv6 == Some(true)
            || filled(&request.labels)
            || ipam.is_some_and(|ipam| {
                filled(&ipam.options)
                    || ipam.config.as_ref().is_some_and(|config| !config.is_empty())
                    || !matches!(ipam.driver.as_str(), "" | "default")
            });
        if configured {
            return forbidden(
                "user-specified configurations are not supported if the network depends on a configuration network",
            );
        }
        if filled(&request.options) {
            return forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            );
        }
    }
    if request.ingress {
        return forbidden("Ingress network can only be global scope network");
    }
    match request.scope.as_str() {
        "" | "local" => Ok(()),
        "swarm" => forbidden("cannot create a swarm scoped network when swarm is not active"),
        other => Err(Error::InvalidParameter(format!("invalid scope: {other}"))),
    }
}

/// A network with the configuration of another.
fn copied(request: NetworkCreate, found: Object, from: String) -> Result<Wanted, Error> {
    let wanted = |subnet: Subnet| WantedSubnet {
        v6: subnet.is_v6(),
        net: Some(subnet.net),
        range: subnet.range,
        gateway: subnet.gateway,
        auxiliary: subnet.auxiliary,
    };
    let subnets = found.subnets.into_iter().map(wanted).collect();
    let object = Object {
        id: name::new_id().map_err(|source| Error::Io { operation: "read random bytes".into(), source })?,
        name: request.name,
        created: Timestamp::now(),
        driver: driver(&request.driver, &found.options, request.internal)?,
        ipv4: found.ipv4,
        ipv6: found.ipv6,
        internal: request.internal,
        attachable: request.attachable,
        config_only: false,
        config_from: Some(from),
        labels: found.labels,
        options: found.options,
        addresses: found.addresses,
        ipam_options: found.ipam_options,
        subnets: Vec::new(),
    };
    families(object, subnets)
}

/// Sees to it that each family that is enabled has a subnet, and none that is not.
fn families(object: Object, mut subnets: Vec<WantedSubnet>) -> Result<Wanted, Error> {
    let bridge = matches!(object.driver, Driver::Bridge(_));
    if object.addresses == AddressDriver::Null && !object.config_only {
        if subnets.iter().any(|subnet| subnet.net.is_some()) {
            let text = "null ipam driver does not handle specific address pool requests";
            return Err(Error::InvalidParameter(text.into()));
        }
        subnets.clear();
    } else if bridge || matches!(object.driver, Driver::Sublinks(_) | Driver::Plugin(_)) {
        if bridge && !object.ipv4 && !object.ipv6 {
            return Err(Error::InvalidParameter("IPv4 or IPv6 must be enabled".into()));
        }
        for v6 in [false, true] {
            let enabled = if v6 { object.ipv6 } else { object.ipv4 };
            let given = subnets.iter().filter(|subnet| subnet.v6 == v6).count();
            if !enabled {
                subnets.retain(|subnet| subnet.v6 != v6);
            } else if bridge && given > 1 {
                return Err(Error::Forbidden("bridge driver doesn't support multiple subnets".into()));
            } else if given == 0 {
                subnets.push(WantedSubnet {
                    v6,
                    net: None,
                    range: None,
                    gateway: None,
                    auxiliary: BTreeMap::new(),
                });
            }
        }
        subnets.sort_by_key(|subnet| subnet.v6);
    }
    Ok(Wanted { object, subnets })
}

fn driver(name: &str, options: &StringMap, internal: bool) -> Result<Driver, Error> {
    match name {
        "" | "default" | "bridge" => Ok(Driver::Bridge(BridgeOptions::parse(options, internal)?)),
        "macvlan" => Ok(Driver::Sublinks(SublinkOptions::macvlan(options)?)),
        "ipvlan" => Ok(Driver::Sublinks(SublinkOptions::ipvlan(options)?)),
        "host" => Err(Error::Forbidden("only one instance of \"host\" network is allowed".into())),
        "null" => Err(Error::Forbidden("only one instance of \"null\" network is allowed".into())),
        "overlay" => Err(Error::Forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
             to swarm and try again."
                .into(),
        )),
        other => Ok(Driver::Plugin(PluginDriver { name: other.to_owned(), without_gateways: [false; 2] })),
    }
}

fn enabled(given: Option<bool>, options: &StringMap, key: &str, default: bool) -> Result<bool, Error> {
    match (given, options.get(key)) {
        (Some(given), _) => Ok(given),
        (None, None) => Ok(default),
        (None, Some(text)) => boolean(text)
            .ok_or_else(|| Error::InvalidParameter(format!("driver-opt \"{key}\" is not a valid bool"))),
    }
}

fn wanted_subnets(configs: &[IpamConfig], ipv6: bool) -> Result<Vec<WantedSubnet>, Error> {
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for config in configs {
        match subnet(config, ipv6, &mut wrong) {
            Ok(subnet) => found.push(subnet),
            Err(error) => return Err(error),
        }
    }
    match wrong.as_slice() {
        [] => Ok(found),
        [one] => Err(Error::InvalidParameter(format!("invalid network config:\n{one}"))),
        several => {
            Err(Error::InvalidParameter(format!("invalid network config:\n* {}", several.join("\n* "))))
        }
    }
}

/// Reads one subnet. What cannot be read is an error at once, what does not fit together goes to `wrong`.
fn subnet(config: &IpamConfig, ipv6: bool, wrong: &mut Vec<String>) -> Result<WantedSubnet, Error> {
    let unreadable = |what: &str, text: &str| {
        Error::InvalidParameter(format!("invalid JSON: {what} \"{text}\": unable to parse"))
    };
    let net = |text: &str| -> Result<Option<IpNet>, Error> {
        match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| unreadable("netip.ParsePrefix", text)),
        }
    };
    let address =
        |text: &str| -> Result<IpAddr, Error> { text.parse().map_err(|_| unreadable("ParseAddr", text)) };
    let (subnet, range) = (net(&config.subnet)?, net(&config.ip_range)?);
    let gateway = match config.gateway.as_str() {
        "" => None,
        text => Some(address(text)?),
    };
    let mut auxiliary = BTreeMap::new();
    for (name, text) in config.auxiliary_addresses.iter().flatten() {
        auxiliary.insert(name.clone(), address(text)?);
    }
    let v6 = match (subnet, gateway) {
        (Some(net), _) => matches!(net, IpNet::V6(_)),
        (None, Some(gateway)) => gateway.is_ipv6(),
        (None, None) => false,
    };
    let wanted = WantedSubnet { v6, net: subnet, range, gateway, auxiliary };
    if ipv6 || !v6 {
        check_subnet(&wanted, wrong);
    }
    Ok(WantedSubnet { net: wanted.net.map(|net| net.trunc()), ..wanted })
}

fn check_subnet(wanted: &WantedSubnet, wrong: &mut Vec<String>) {
    let family = if wanted.v6 { 6 } else { 4 };
    let Some(net) = wanted.net else {
        // Docker has no words for a range, gateway or address of a subnet that is not known.
        if wanted.range.is_some() || wanted.gateway.is_some() || !wanted.auxiliary.is_empty() {
            wrong.push("a subnet is needed for an ip-range, a gateway or an auxiliary address".into());
        }
        return;
    };
    if net != net.trunc() {
        wrong.push(format!("invalid subnet {net}: it should be {}", net.trunc()));
    }
    if let Some(range) = wanted.range {
        let invalid = |why: String| format!("invalid ip-range {range}: {why}");
        if matches!(range, IpNet::V6(_)) != wanted.v6 {
            wrong.push(invalid(format!("parent subnet is an IPv{family} block")));
        } else {
            if range.prefix_len() < net.prefix_len() {
                wrong.push(invalid(format!("CIDR block is bigger than its parent subnet {net}")));
            }
            if range != range.trunc() {
                wrong.push(invalid(format!("it should be {}", range.trunc())));
            }
            if !subnets::overlap(&range.trunc(), &net.trunc()) {
                wrong.push(invalid(format!("parent subnet {net} doesn't contain ip-range")));
            }
        }
    }
    let mut check = |what: String, address: IpAddr| {
        if address.is_ipv6() != wanted.v6 {
            wrong.push(format!("invalid {what}: parent subnet is an IPv{family} block"));
        } else if !net.contains(&address) {
            wrong.push(format!("invalid {what}: parent subnet {net} doesn't contain this address"));
        }
    };
    if let Some(gateway) = wanted.gateway {
        check(format!("gateway {gateway}"), gateway);
    }
    for (name, address) in &wanted.auxiliary {
        check(format!("auxiliary address {name}"), *address);
    }
}

/// A subnet that a user chose; it may lie over what the host routes, but not over another network.
pub fn free(net: IpNet, taken: &[IpNet]) -> Result<IpNet, Error> {
    if taken.iter().any(|other| subnets::overlap(other, &net)) {
        return Err(Error::Forbidden(
            "invalid pool request: Pool overlaps with other one on this address space".into(),
        ));
    }
    Ok(net)
}

/// Whether a subnet is shared with other networks: as in Docker, with each that has it whole, if its range is none of theirs.
fn is_shared(driver: &Driver, net: IpNet, range: Option<IpNet>, shared: &[Subnet]) -> bool {
    let Some(range) = range.filter(|_| matches!(driver, Driver::Sublinks(_))) else { return false };
    let mut same = shared.iter().filter(|other| other.net == net).peekable();
    same.peek().is_some() && same.all(|other| other.range.map(|other| other.trunc()) != Some(range.trunc()))
}

/// The gateway that nobody chose: the first address that nothing else has.
pub fn first_gateway(
    net: IpNet,
    range: Option<IpNet>,
    auxiliary: &BTreeMap<String, IpAddr>,
) -> Result<IpAddr, Error> {
    let mut pool = ipam::Pool::new(net, range);
    for address in auxiliary.values() {
        pool.reserve(*address);
    }
    pool.allocate(|_| false).ok_or_else(|| Error::Unavailable("no available addresses on this pool".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::network::Ipam;

    fn config(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.into(),
            ip_range: range.into(),
            gateway: gateway.into(),
            auxiliary_addresses: None,
        }
    }

    fn made(change: impl FnOnce(&mut NetworkCreate)) -> Result<Object, String> {
        let mut request = NetworkCreate { name: "mine".into(), ..NetworkCreate::default() };
        change(&mut request);
        let taken = ["10.5.0.0/16".parse().unwrap()];
        let pools = [
            AddressPool { base: "10.5.0.0/16".parse().unwrap(), size: 16 },
            AddressPool { base: "10.6.0.0/16".parse().unwrap(), size: 24 },
            AddressPool { base: "fd00:5::/48".parse().unwrap(), size: 64 },
        ];
        Wanted::parse(request, |_| None)
            .and_then(|wanted| wanted.settle(&pools, &taken, &[]))
            .map_err(|error| error.to_string())
    }

    fn with(configs: Vec<IpamConfig>) -> impl FnOnce(&mut NetworkCreate) {
        |request| request.ipam = Some(Ipam { config: Some(configs), ..Ipam::default() })
    }

    #[test]
    fn what_is_not_chosen_is_settled() {
        let plain = made(|_| ()).unwrap();
        assert_eq!((plain.subnets.len(), plain.subnets[0].net.to_string().as_str()), (1, "10.6.0.0/24"));
        assert_eq!(plain.subnets[0].gateway.unwrap().to_string(), "10.6.0.1");
        let both = made(|request| request.enable_ipv6 = Some(true)).unwrap();
        assert_eq!(both.subnets[1].net.to_string(), "fd00:5::/64");
        let six = made(|request| (request.enable_ipv4, request.enable_ipv6) = (Some(false), Some(true)));
        assert_eq!(six.unwrap().subnets.len(), 1);
        let given = made(with(vec![config("10.9.0.0/16", "10.9.8.0/24", "")])).unwrap();
        assert_eq!(given.subnets[0].gateway.unwrap().to_string(), "10.9.8.0");
        let isolated = made(|request| {
            request.internal = true;
            let key = "com.docker.network.bridge.gateway_mode_ipv4".to_owned();
            request.options = Some([(key, "isolated".to_owned())].into());
        });
        assert_eq!(isolated.unwrap().subnets[0].gateway, None);
    }

    #[test]
    fn bad_subnets_are_refused_in_dockers_words() {
        for (configs, expected) in [
            (
                vec![config("10.9.0.1/16", "", "")],
                "invalid network config:\ninvalid subnet 10.9.0.1/16: it should be 10.9.0.0/16",
            ),
            (
                vec![config("10.9.0.0/16", "10.8.0.0/8", "")],
                "invalid network config:\n* invalid ip-range 10.8.0.0/8: CIDR block is bigger than its parent subnet \
                 10.9.0.0/16\n* invalid ip-range 10.8.0.0/8: it should be 10.0.0.0/8",
            ),
            (
                vec![config("10.9.0.0/16", "", "10.8.0.1")],
                "invalid network config:\ninvalid gateway 10.8.0.1: parent subnet 10.9.0.0/16 doesn't contain this \
                 address",
            ),
            (
                vec![config("10.9.0.0/16", "fd00::/64", "")],
                "invalid network config:\ninvalid ip-range fd00::/64: parent subnet is an IPv4 block",
            ),
            (
                vec![config("10.5.7.0/24", "", "")],
                "invalid pool request: Pool overlaps with other one on this address space",
            ),
            (
                vec![config("10.8.0.0/24", "", ""), config("10.9.0.0/24", "", "")],
                "bridge driver doesn't support multiple subnets",
            ),
        ] {
            assert_eq!(made(with(configs)).unwrap_err(), expected);
        }
        assert!(made(with(vec![config("10.9/x", "", "")])).unwrap_err().contains("10.9/x"));
    }

    #[test]
    fn names_and_drivers_are_checked() {
        for (name, driver, expected) in [
            ("host", "", "operation is not permitted on predefined host network "),
            (" ", "", "invalid name: name is empty"),
            ("a", "host", "only one instance of \"host\" network is allowed"),
        ] {
            let error = made(|request| (request.name, request.driver) = (name.into(), driver.into()));
            assert_eq!(error.unwrap_err(), expected);
        }
    }

    #[test]
    fn a_network_survives_its_record() {
        let one = made(with(vec![config("10.9.0.0/16", "", "10.9.0.9")])).unwrap();
        assert_eq!(Object::from_record(&one.record().unwrap()).unwrap(), one);
    }

    proptest::proptest! {
        #[test]
        fn any_subnet_is_read_without_harm(subnet in "[0-9a-f.:/]{0,24}", range in "[0-9./]{0,18}") {
            let _ = made(with(vec![config(&subnet, &range, "")]));
        }
    }
}
