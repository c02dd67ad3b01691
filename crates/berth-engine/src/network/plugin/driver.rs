//! What a plugin is told of its networks and endpoints, and what it says about them: `NetworkDriver`.

use std::net::IpAddr;

use berth_network::{Endpoint, Route};
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{Kind, Plugins, is_there, lie};
use crate::Error;
use crate::create::mac;
use crate::create::ports::Publication;
use crate::network::attachment::Asked;
use crate::network::bridge::is_link_name;
use crate::network::object::{AddressDriver, Object, PluginDriver, Subnet};
use crate::networks::mac_text;
use crate::plugin::PluginError;

const GENERIC: &str = "com.docker.network.generic";
const IPV4: &str = "com.docker.network.enable_ipv4";
const IPV6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";
const PORTS: &str = "com.docker.network.portmap";
const EXPOSED: &str = "com.docker.network.endpoint.exposedports";

/// Where an endpoint is known: plugin, network, endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The plugin's name.
    pub plugin: &'a str,
    /// The network's ID.
    pub network: &'a str,
    /// The endpoint's ID.
    pub endpoint: &'a str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Gateways {
    #[serde(rename = "SkipIPv4")]
    skip4: bool,
    #[serde(rename = "SkipIPv6")]
    skip6: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Created {
    interface: Option<Interface>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    #[serde(rename = "Address")]
    ipv4: String,
    #[serde(rename = "AddressIPv6")]
    ipv6: String,
    #[serde(rename = "MacAddress")]
    mac: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Joined {
    #[serde(rename = "InterfaceName")]
    link: Option<LinkNames>,
    #[serde(rename = "Gateway")]
    gateway4: String,
    #[serde(rename = "GatewayIPv6")]
    gateway6: String,
    #[serde(rename = "StaticRoutes")]
    routes: Option<Vec<StaticRoute>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct LinkNames {
    src_name: String,
    dst_prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StaticRoute {
    destination: String,
    /// 0 by way of a next hop, 1 by the link alone.
    route_type: i64,
    next_hop: String,
}

impl Plugins {
    /// Sees whether a plugin can make a network such as this, and which gateways it needs none of.
    pub async fn look_at(&self, driver: &mut PluginDriver, object: &Object) -> Result<(), Error> {
        let name = driver.name.clone();
        let (_, capabilities) = self.find(Kind::Network, &name, std::time::Duration::ZERO).await?;
        if capabilities.scope == "global" {
            return Err(Error::Forbidden(format!(
                "cannot create a multi-host network: the scope of plugin {name} is global, which takes a swarm"
            )));
        }
        if capabilities.gw_alloc_checker {
            let question = json!({"Options": options(object)});
            let answer: Gateways = self.ask((Kind::Network, &name), "GwAllocCheck", &question).await?;
            driver.without_gateways = [answer.skip4, answer.skip6];
        }
        Ok(())
    }

    /// Has a plugin make a network.
    pub async fn create_network(&self, plugin: &str, object: &Object) -> Result<(), Error> {
        let question = json!({
            "NetworkID": object.id,
            "Options": options(object),
            "IPv4Data": pools(object, false),
            "IPv6Data": pools(object, true),
        });
        let IgnoredAny = self.ask((Kind::Network, plugin), "CreateNetwork", &question).await?;
        Ok(())
    }

    /// Has a plugin remove a network. As in Docker, one that is there and refuses is not asked again.
    pub async fn delete_network(&self, plugin: &str, object: &Object) -> Result<(), Error> {
        let news = json!({"NetworkID": object.id});
        match self.tell((Kind::Network, plugin), "DeleteNetwork", &news).await {
            Err(error) if is_there(&error) => {
                tracing::warn!(plugin, network = object.name, %error, "a network's plugin did not remove it");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Has a plugin make an endpoint, which may give it addresses that it has not.
    pub(super) async fn create_endpoint(
        &self,
        place: Place<'_>,
        asked: &Asked,
        endpoint: &mut Endpoint,
    ) -> Result<(), Error> {
        let own = |v6: bool| {
            let address = endpoint.addresses.iter().find(|address| matches!(address, IpNet::V6(_)) == v6);
            address.map(ToString::to_string).unwrap_or_default()
        };
        let question = json!({
            "NetworkID": place.network,
            "EndpointID": place.endpoint,
            "Interface": {"Address": own(false), "AddressIPv6": own(true), "MacAddress": mac_text(endpoint.mac)},
            "Options": asked.driver_opts,
        });
        let to = (Kind::Network, place.plugin);
        let mut answer: Result<Created, Error> = self.ask(to, "CreateEndpoint", &question).await;
        if let Err(Error::NetworkPlugin(PluginError::Call { .. })) = &answer {
            // It may not have heard of the end of an earlier run.
            self.forget_endpoint(place).await;
            answer = self.ask(to, "CreateEndpoint", &question).await;
        }
        let given = answer?.interface.unwrap_or_default();
        given.add_to(endpoint).map_err(|what| lie(place.plugin, what))
    }

    /// Has a plugin make the link of an endpoint.
    pub(super) async fn join(
        &self,
        place: Place<'_>,
        (container, asked, names): (&str, &Asked, &[String]),
        ports: &[Publication],
        endpoint: &mut Endpoint,
    ) -> Result<(), Error> {
        let options = port_options(ports);
        let question = json!({
            "NetworkID": place.network,
            "EndpointID": place.endpoint,
            // A name for the namespace, which is not there yet.
            "SandboxKey": format!("/var/run/docker/netns/{}", &crate::networks::sandbox_id(container)[..12]),
            "Options": options,
        });
        let to = (Kind::Network, place.plugin);
        let answer: Joined = self.ask(to, "Join", &question).await?;
        let taken = answer.add_to(asked, names, endpoint).map_err(|what| lie(place.plugin, what));
        let open = match taken {
            Ok(()) if !endpoint.gateways.is_empty() => {
                let question = json!({
                    "NetworkID": place.network, "EndpointID": place.endpoint, "Options": options,
                });
                self.ask(to, "ProgramExternalConnectivity", &question).await
            }
            outcome => outcome.map(|()| IgnoredAny),
        };
        match open {
            // A plugin need not know this.
            Ok(IgnoredAny) | Err(Error::NetworkPlugin(PluginError::NoMethod { .. })) => Ok(()),
            Err(error) => {
                self.leave(place).await;
                Err(error)
            }
        }
    }

    /// Tells a plugin that an endpoint's link is needed no more. Whether the plugin is there.
    async fn leave(&self, place: Place<'_>) -> bool {
        self.tell_of(place, "Leave").await
    }

    /// Tells a plugin that an endpoint is gone, which had its link or not.
    pub(super) async fn delete_endpoint(&self, place: Place<'_>) {
        self.tell_of(place, "DeleteEndpoint").await;
    }

    /// Tells a plugin that an endpoint is gone with its link.
    pub(super) async fn forget_endpoint(&self, place: Place<'_>) {
        if self.leave(place).await {
            self.delete_endpoint(place).await;
        }
    }

    /// Tells a plugin that an endpoint is reached no more from outside. It need not know this.
    pub(super) async fn revoke(&self, place: Place<'_>) -> bool {
        self.tell_of(place, "RevokeExternalConnectivity").await
    }

    async fn tell_of(&self, place: Place<'_>, method: &str) -> bool {
        let news = json!({"NetworkID": place.network, "EndpointID": place.endpoint});
        let Err(error) = self.tell((Kind::Network, place.plugin), method, &news).await else { return true };
        let known = !matches!(error, Error::NetworkPlugin(PluginError::NoMethod { .. }));
        if known {
            tracing::warn!(plugin = place.plugin, endpoint = place.endpoint, %error, "a plugin did not take note");
        }
        is_there(&error)
    }
}

fn options(object: &Object) -> Map<String, Value> {
    let mut options = Map::from_iter([
        (GENERIC.to_owned(), json!(object.options)),
        (IPV4.to_owned(), json!(object.ipv4)),
        (IPV6.to_owned(), json!(object.ipv6)),
    ]);
    if object.internal {
        options.insert(INTERNAL.into(), json!(true));
    }
    options
}

/// The subnets of one family, as plugins are told of them.
fn pools(object: &Object, v6: bool) -> Vec<Value> {
    let enabled = if v6 { object.ipv6 } else { object.ipv4 };
    if object.addresses == AddressDriver::Null && enabled {
        return vec![json!({"AddressSpace": "null", "Pool": if v6 { "::/0" } else { "0.0.0.0/0" }})];
    }
    let one = |subnet: &Subnet| {
        let with = |address: &IpAddr| format!("{address}/{}", subnet.net.prefix_len());
        let mut told = json!({"AddressSpace": "LocalDefault", "Pool": subnet.net});
        if let Some(gateway) = &subnet.gateway {
            told["Gateway"] = json!(with(gateway));
        }
        if !subnet.auxiliary.is_empty() {
            let named = subnet.auxiliary.iter().map(|(name, address)| (name.clone(), json!(with(address))));
            told["AuxAddresses"] = Value::Object(named.collect());
        }
        told
    };
    object.subnets.iter().filter(|subnet| subnet.is_v6() == v6).map(one).collect()
}

/// What a container publishes, as plugins are told of it.
fn port_options(ports: &[Publication]) -> Value {
    let published = ports.iter().map(|port| {
        let (first, last) = port.host.as_ref().map_or((0, 0), |range| (*range.start(), *range.end()));
        json!({
            "Proto": port.container.protocol.number(),
            "IP": "",
            "Port": port.container.port,
            "HostIP": port.address.map(|address| address.to_string()).unwrap_or_default(),
            "HostPort": first,
            "HostPortEnd": last,
        })
    });
    let exposed = ports
        .iter()
        .map(|port| json!({"Proto": port.container.protocol.number(), "Port": port.container.port}));
    json!({PORTS: published.collect::<Vec<_>>(), EXPOSED: exposed.collect::<Vec<_>>()})
}

impl Interface {
    /// Gives an endpoint what it has not: what is its own, a plugin cannot change.
    fn add_to(self, endpoint: &mut Endpoint) -> Result<(), String> {
        if !self.mac.is_empty() {
            // A group's address is none of a link.
            let given = mac::parse(&self.mac).filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0);
            let given = given.ok_or_else(|| format!("{:?} is no hardware address of a link", self.mac))?;
            if endpoint.mac != [0; 6] && endpoint.mac != given {
                return Err(format!(
                    "{} is to be the hardware address, not {}",
                    mac_text(endpoint.mac),
                    self.mac
                ));
            }
            endpoint.mac = given;
        }
        for (text, v6) in [(self.ipv4, false), (self.ipv6, true)] {
            if text.is_empty() {
                continue;
            }
            let is_of = |address: &IpNet| matches!(address, IpNet::V6(_)) == v6;
            let given =
                text.parse::<IpNet>().ok().filter(is_of).filter(|given| !given.addr().is_unspecified());
            let given = given.ok_or_else(|| format!("{text:?} is no address with the length of a prefix"))?;
            match endpoint.addresses.iter().find(|address| is_of(address)) {
                Some(own) if *own != given => return Err(format!("{own} is to be the address, not {given}")),
                Some(_) => {}
                None => endpoint.addresses.push(given),
            }
        }
        Ok(())
    }
}

impl Joined {
    /// Gives an endpoint its link, and the routes by way of it.
    fn add_to(self, asked: &Asked, names: &[String], endpoint: &mut Endpoint) -> Result<(), String> {
        let link = self.link.unwrap_or_default();
        if link.src_name.is_empty() {
            // The plugin has other ways; what there is inside, is its own.
            endpoint.name.clear();
            endpoint.host_link.clear();
            return Ok(());
        }
        if !is_link_name(&link.src_name) {
            return Err(format!("{:?} is no name of a link", link.src_name));
        }
        let numbered = (0..=names.len()).map(|number| format!("{}{number}", link.dst_prefix));
        let name = match &asked.link_name {
            Some(name) => Some(name.clone()),
            None => numbered.into_iter().find(|name| !names.contains(name)),
        };
        endpoint.name = name
            .filter(|name| is_link_name(name))
            .ok_or_else(|| format!("{:?} cannot begin a name of a link", link.dst_prefix))?;
        endpoint.host_link = link.src_name;
        endpoint.sysctls = asked.sysctls_of(&endpoint.name);
        for (text, v6) in [(self.gateway4, false), (self.gateway6, true)] {
            if !text.is_empty() {
                endpoint.gateways.push(hop(&text, v6)?);
            }
        }
        endpoint.routes = self.routes.unwrap_or_default().iter().map(route).collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn hop(text: &str, v6: bool) -> Result<IpAddr, String> {
    let hop = text.parse::<IpAddr>().ok().filter(|hop| hop.is_ipv6() == v6 && !hop.is_unspecified());
    hop.ok_or_else(|| format!("{text:?} is no next hop"))
}

fn route(told: &StaticRoute) -> Result<Route, String> {
    let destination: IpNet = told
        .destination
        .parse()
        .map_err(|_| format!("{:?} is no destination of a route", told.destination))?;
    let gateway = match told.route_type {
        0 => Some(hop(&told.next_hop, matches!(destination, IpNet::V6(_)))?),
        1 => None,
        other => return Err(format!("{other} is no type of a route")),
    };
    Ok(Route { destination: destination.trunc(), gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::object::Driver;

    fn endpoint() -> Endpoint {
        Endpoint {
            addresses: vec!["10.1.0.2/24".parse().unwrap()],
            name: "eth0".into(),
            host_link: "veth0".into(),
            ..Endpoint::default()
        }
    }

    fn given(text: &str) -> Result<Endpoint, String> {
        let created: Created = serde_json::from_str(text).unwrap();
        let mut endpoint = endpoint();
        created.interface.unwrap_or_default().add_to(&mut endpoint)?;
        Ok(endpoint)
    }

    fn joined(text: &str) -> Result<Endpoint, String> {
        let joined: Joined = serde_json::from_str(text).unwrap();
        let mut endpoint = endpoint();
        joined.add_to(&Asked::default(), &["eth0".to_owned()], &mut endpoint)?;
        Ok(endpoint)
    }

    #[test]
    fn a_plugin_adds_what_an_endpoint_has_not() {
        assert_eq!(given("{}").unwrap(), endpoint());
        assert_eq!(given(r#"{"Interface": null}"#).unwrap(), endpoint());
        let more =
            given(r#"{"Interface": {"AddressIPv6": "fd00::2/64", "MacAddress": "a0:b1:c2:d3:e4:f4"}}"#)
                .unwrap();
        assert_eq!((more.addresses[1].to_string().as_str(), more.mac[5]), ("fd00::2/64", 0xf4));
        for (text, expected) in [
            (
                r#"{"Interface": {"Address": "10.1.0.3/24"}}"#,
                "10.1.0.2/24 is to be the address, not 10.1.0.3/24",
            ),
            (r#"{"Interface": {"AddressIPv6": "10.1.0.3/24"}}"#, "is no address with the length of a prefix"),
            (r#"{"Interface": {"AddressIPv6": "fd00::2"}}"#, "is no address with the length of a prefix"),
            (r#"{"Interface": {"MacAddress": "01:00:5e:00:00:01"}}"#, "is no hardware address of a link"),
        ] {
            let error = given(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_plugin_names_the_link_and_its_routes() {
        let all = r#"{"InterfaceName": {"SrcName": "tap7", "DstPrefix": "eth"}, "Gateway": "10.1.0.1", "GatewayIPv6": "fe80::1",
            "StaticRoutes": [{"Destination": "10.9.1.0/16", "NextHop": "10.1.0.9"}, {"Destination": "::/1", "RouteType": 1}]}"#;
        let endpoint = joined(all).unwrap();
        assert_eq!((endpoint.host_link.as_str(), endpoint.name.as_str()), ("tap7", "eth1"));
        assert_eq!(endpoint.gateways.len(), 2);
        assert_eq!(endpoint.routes[0].destination.to_string(), "10.9.0.0/16");
        assert_eq!(endpoint.routes[1].gateway, None);
        let none = joined(r#"{"StaticRoutes": null}"#).unwrap();
        assert_eq!((none.name.as_str(), none.host_link.as_str(), none.gateways.len()), ("", "", 0));
        for (text, expected) in [
            (r#"{"InterfaceName": {"SrcName": "a/b", "DstPrefix": "eth"}}"#, "is no name of a link"),
            (r#"{"InterfaceName": {"SrcName": "a", "DstPrefix": "e th"}}"#, "cannot begin a name of a link"),
            (
                r#"{"InterfaceName": {"SrcName": "a", "DstPrefix": "e"}, "Gateway": "0.0.0.0"}"#,
                "is no next hop",
            ),
            (
                r#"{"InterfaceName": {"SrcName": "a", "DstPrefix": "e"}, "StaticRoutes": [{"Destination": "x"}]}"#,
                "is no destination of a route",
            ),
            (
                r#"{"InterfaceName": {"SrcName": "a", "DstPrefix": "e"},
                    "StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 7}]}"#,
                "7 is no type of a route",
            ),
        ] {
            let error = joined(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn subnets_are_told_with_what_is_taken_of_them() {
        let driver = Driver::Plugin(PluginDriver { name: "p".into(), without_gateways: [false; 2] });
        let mut object = crate::networks::example("net", driver);
        assert_eq!(pools(&object, false), Vec::<Value>::new());
        object.subnets.push(Subnet {
            net: "10.1.0.0/24".parse().unwrap(),
            range: None,
            gateway: Some("10.1.0.1".parse().unwrap()),
            auxiliary: [("printer".to_owned(), "10.1.0.9".parse().unwrap())].into(),
            pool: String::new(),
        });
        let expected = json!({
            "AddressSpace": "LocalDefault", "Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24",
            "AuxAddresses": {"printer": "10.1.0.9/24"},
        });
        assert_eq!(pools(&object, false), [expected]);
        object.addresses = AddressDriver::Null;
        assert_eq!(pools(&object, false), [json!({"AddressSpace": "null", "Pool": "0.0.0.0/0"})]);
        assert_eq!(pools(&object, true), Vec::<Value>::new());
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_without_harm(text in ".{0,20}", other in "[0-9a-f:./]{0,20}") {
            let interface = Interface { ipv4: other.clone(), ipv6: text.clone(), mac: other.clone() };
            let _ = interface.add_to(&mut endpoint());
            let link = LinkNames { src_name: text.clone(), dst_prefix: text };
            let joined = Joined { link: Some(link), gateway4: other, ..Joined::default() };
            let _ = joined.add_to(&Asked::default(), &[], &mut endpoint());
        }
    }
}
