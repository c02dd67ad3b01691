//! Networks shown: lists, and everything about one.

use std::collections::BTreeMap;

use berth_api::filter::Filters;
use berth_api::network::{EndpointResource, Network, NetworkStatus, SubnetStatus};
use berth_network::Endpoint;
use ipnet::IpNet;

use super::{endpoint_id, mac_text};
use crate::engine::Parts;
use crate::list::filter::{check_known, has_labels};
use crate::network::object::{Object, PREDEFINED};
use crate::{Engine, Error};

const KNOWN_FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

impl Engine {
    /// Networks, without their endpoints.
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<Network>, Error> {
        check(&filters)?;
        let networks = self.parts.all_networks();
        let shown =
            networks.iter().filter(|object| passes(&filters, object, || is_used(&self.parts, object)));
        Ok(shown.map(Object::to_api).collect())
    }

    /// Everything about a network, by its name or ID. `scope` is empty or what its scope has to be.
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn network_inspect(&self, name: &str, scope: &str, verbose: bool) -> Result<Network, Error> {
        let object = self.parts.find_network(name)?;
        if !matches!(scope, "" | "local") {
            return Err(Error::NoSuchNetwork(name.to_owned()));
        }
        let mut network = object.to_api();
        network.containers = Some(containers(&self.parts, &object));
        network.services = verbose.then(BTreeMap::new);
        let mut status = NetworkStatus::default();
        if let Some(segment) = self.parts.networks.segment(&object.id) {
            for (net, usage) in segment.usage() {
                let shown = SubnetStatus { ips_in_use: usage.in_use, dynamic_ips_available: usage.available };
                status.ipam.subnets.insert(net.to_string(), shown);
            }
        }
        network.status = Some(status);
        Ok(network)
    }
}

/// The running containers on a network.
fn containers(parts: &Parts, object: &Object) -> BTreeMap<String, EndpointResource> {
    let held = parts.networks.segment(&object.id).map(|segment| segment.endpoints()).unwrap_or_default();
    let mut found = BTreeMap::new();
    for container in parts.containers.all() {
        let kept = container.kept();
        if kept.state.running().is_none() {
            continue;
        }
        let attached = super::attachments(&container.definition, &kept);
        if let Some(attachment) = attached.iter().find(|attachment| attachment.name == object.name) {
            let endpoint = held.get(container.id());
            let resource = resource(&attachment.name, &kept.name, container.id(), endpoint);
            found.insert(container.id().to_owned(), resource);
        }
    }
    found
}

fn resource(network: &str, name: &str, id: &str, endpoint: Option<&Endpoint>) -> EndpointResource {
    let addresses = endpoint.map(|endpoint| endpoint.addresses.as_slice()).unwrap_or_default();
    let text = |wanted: fn(&IpNet) -> bool| {
        addresses.iter().copied().find(wanted).map(|address| address.to_string()).unwrap_or_default()
    };
    EndpointResource {
        name: name.to_owned(),
        endpoint_id: endpoint_id(network, id),
        mac_address: endpoint.map(|endpoint| mac_text(endpoint.mac)).unwrap_or_default(),
        ipv4_address: text(|address| matches!(address, IpNet::V4(_))),
        ipv6_address: text(|address| matches!(address, IpNet::V6(_))),
    }
}

/// Whether a running container is on a network.
pub fn is_used(parts: &Parts, object: &Object) -> bool {
    parts.networks.segment(&object.id).is_some_and(|segment| segment.is_used())
}

fn check(filters: &Filters) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::InvalidParameter(text));
    check_known(filters, &KNOWN_FILTERS)?;
    let dangling: Vec<&str> = filters.get("dangling").collect();
    match dangling.as_slice() {
        [] | ["0" | "1" | "true" | "false"] => {}
        [_] => {
            return invalid(
                "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"
                    .into(),
            );
        }
        _ => return invalid("got more than one value for filter key \"dangling\"".into()),
    }
    match filters.get("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
        Some(kind) => invalid(format!("invalid filter: 'type'='{kind}'")),
        None => Ok(()),
    }
}

/// Whether a network satisfies Docker's filters; `used` tells whether a running container is on it.
fn passes(filters: &Filters, object: &Object, used: impl Fn() -> bool) -> bool {
    let any = |filter: &str, matches: &dyn Fn(&str) -> bool| {
        !filters.has(filter) || filters.get(filter).any(matches)
    };
    let predefined = PREDEFINED.contains(&object.name.as_str());
    any("name", &|wanted| object.name.contains(wanted))
        && any("id", &|wanted| object.id.starts_with(wanted))
        && any("driver", &|wanted| object.driver.name() == wanted)
        && any("scope", &|wanted| wanted == "local")
        && any("type", &|wanted| (wanted == "builtin") == predefined)
        && any("dangling", &|wanted| {
            let dangles = !predefined && !used();
            dangles == matches!(wanted, "true" | "1")
        })
        && has_labels(filters, Some(&object.labels))
}

#[cfg(test)]
mod tests {
    use super::super::{example, network_id};
    use super::*;
    use crate::network::bridge::BridgeOptions;
    use crate::network::object::Driver;

    #[test]
    fn filters_select_networks() {
        let mut mine = example("mine", Driver::Bridge(BridgeOptions::default()));
        mine.labels.insert("a".into(), "1".into());
        let bridge = example("bridge", Driver::Bridge(BridgeOptions::default()));
        let all = [bridge, example("host", Driver::Host), example("none", Driver::Null), mine];
        let names = |text: &str, used: bool| -> Vec<&str> {
            let filters = Filters::parse(text).unwrap();
            check(&filters).unwrap();
            all.iter()
                .filter(|object| passes(&filters, object, || used))
                .map(|object| object.name.as_str())
                .collect()
        };
        assert_eq!(names("", false).len(), 4);
        assert_eq!(names(r#"{"name":["br"]}"#, false), ["bridge"]);
        assert_eq!(names(r#"{"driver":["null","host"]}"#, false), ["host", "none"]);
        assert_eq!(names(r#"{"type":["custom"]}"#, false), ["mine"]);
        assert_eq!(names(r#"{"dangling":["true"]}"#, false), ["mine"]);
        assert!(names(r#"{"dangling":["true"]}"#, true).is_empty());
        assert_eq!(names(r#"{"dangling":["0"]}"#, false).len(), 3);
        assert_eq!(names(r#"{"label":["a=1"]}"#, false), ["mine"]);
        assert!(names(r#"{"scope":["swarm"]}"#, false).is_empty());
        assert_eq!(names(&format!(r#"{{"id":["{}"]}}"#, &network_id("host")[..6]), false), ["host"]);
        for bad in [r#"{"colour":["red"]}"#, r#"{"type":["x"]}"#, r#"{"dangling":["x"]}"#] {
            assert!(check(&Filters::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
