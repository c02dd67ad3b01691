//! Ports published, and no longer published, while a container is there: beyond Docker, at once if it runs.
//!
//! New ports are reserved before anything else changes, so that one in use is told and nothing has happened. The row comes
//! next, and the firewall last: an engine that ends in between leaves a row that the next one makes the firewall fit to.

use berth_api::container::{HostConfig, PortsUpdate};
use berth_api::network::{PortBinding, PortMap};
use berth_network::Endpoint;

use super::owner::{Owner, Request, ask};
use crate::container::state::State;
use crate::create::ports::{self, ContainerPort};
use crate::event::ContainerEvent;
use crate::{Engine, Error};

impl Engine {
    /// Publishes ports of a container, and takes others back.
    pub async fn update_ports(&self, name: &str, changes: PortsUpdate) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        ask(&container, |answer| Request::Ports(Box::new(changes), answer)).await
    }
}

impl Owner {
    pub(super) async fn update_ports(&mut self, changes: &PortsUpdate) -> Result<(), Error> {
        let outcome = self.try_update_ports(changes).await;
        outcome
            .map_err(|error| Error::Update { id: self.container.id().to_owned(), source: Box::new(error) })?;
        self.tell(ContainerEvent::Update);
        Ok(())
    }

    async fn try_update_ports(&mut self, changes: &PortsUpdate) -> Result<(), Error> {
        let definition = &self.container.definition;
        if matches!(self.container.state(), State::Removing) {
            return Err(Error::Conflict(
                "container is marked for removal and cannot be \"update\"".to_owned(),
            ));
        }
        if !definition.network.has_endpoints() {
            return Err(Error::Conflict(
                "conflicting options: port publishing and the container type network mode".to_owned(),
            ));
        }
        let current = self.container.current().into_owned();
        let before = self.container.kept().ports;
        let endpoints = self.container.kept().state.endpoints().to_vec();
        let bindings = changed(&whole(&current.config, &current.host)?, changes, &endpoints)?;
        let host = HostConfig { port_bindings: Some(bindings.clone()), ..HostConfig::default() };
        let publications = ports::publications(&current.config, &host)?;
        let Some(running) = self.container.kept().state.running().cloned() else {
            return self.change(|kept| kept.ports = Some(bindings));
        };
        let networks = &self.parts.networks;
        let id = self.container.id();
        let old = running.endpoints;
        let mut now = old.clone();
        let placed = networks.place_ports(id, &mut now, &publications).await;
        placed.map_err(|error| self.network_error(error))?;
        let mut outcome = self.change(|kept| kept_ports(kept, Some(bindings), &now));
        if outcome.is_ok() {
            outcome = networks.republish(&old, &now).await;
        }
        if let Err(first) = outcome {
            let mut undo = Vec::new();
            undo.extend(networks.republish(&now, &old).await.err().map(|error| error.to_string()));
            undo.extend(networks.restore_ports(id, &old).await.err().map(|error| error.to_string()));
            self.change_regardless(|kept| kept_ports(kept, before.clone(), &old));
            return Err(match undo.is_empty() {
                true => first,
                false => Error::Unwound { first: Box::new(first), undo },
            });
        }
        networks.settle(id, now.clone(), None);
        if super::network::publishes(&now) {
            self.parts.watch_net_process();
        }
        Ok(())
    }
}

fn kept_ports(kept: &mut crate::container::Kept, bindings: Option<PortMap>, endpoints: &[Endpoint]) {
    kept.ports = bindings;
    if let State::Running(running) = &mut kept.state {
        running.endpoints = endpoints.to_vec();
    }
}

/// All that is published, with what is so only because it is exposed.
fn whole(config: &berth_api::container::Config, host: &HostConfig) -> Result<PortMap, Error> {
    let mut bindings = host.port_bindings.clone().unwrap_or_default();
    if host.publish_all_ports {
        for port in ports::exposed(config)? {
            bindings.entry(port.to_string()).or_insert_with(|| Some(vec![PortBinding::default()]));
        }
    }
    // No binding at all asks for any port, as an empty one does.
    for bindings in bindings.values_mut() {
        let list = bindings.get_or_insert_default();
        if list.is_empty() {
            list.push(PortBinding::default());
        }
    }
    Ok(bindings)
}

/// The bindings after a change. What is taken back may leave out the host's address and port.
fn changed(before: &PortMap, changes: &PortsUpdate, endpoints: &[Endpoint]) -> Result<PortMap, Error> {
    let mut bindings = before.clone();
    for (key, asked) in changes.unpublish.iter().flatten() {
        let port = ContainerPort::parse(key)?;
        let any = [PortBinding::default()];
        let asked = asked.as_deref().filter(|asked| !asked.is_empty()).unwrap_or(&any);
        for wanted in asked {
            let list = bindings.get_mut(&port.to_string()).and_then(Option::as_mut);
            let kept_back = |list: &mut Vec<PortBinding>| {
                let count = list.len();
                list.retain(|binding| !matches(binding, wanted, port, endpoints));
                count != list.len()
            };
            if !list.is_some_and(kept_back) {
                return Err(Error::InvalidParameter(format!(
                    "port {} is not published",
                    shown(wanted, port)
                )));
            }
        }
    }
    for (key, asked) in changes.publish.iter().flatten() {
        let port = ContainerPort::parse(key)?;
        let list = bindings.entry(port.to_string()).or_default().get_or_insert_default();
        let asked = asked.clone().unwrap_or_default();
        list.extend(if asked.is_empty() { vec![PortBinding::default()] } else { asked });
    }
    bindings.retain(|_, list| list.as_ref().is_some_and(|list| !list.is_empty()));
    Ok(bindings)
}

/// Whether a binding is what someone means. Of a port that the engine chose, the one it has chosen counts.
fn matches(binding: &PortBinding, wanted: &PortBinding, port: ContainerPort, endpoints: &[Endpoint]) -> bool {
    let chosen = || {
        let held = endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        held.filter(|held| held.container_port == port.port && held.protocol == port.protocol)
            .any(|held| held.host_port.to_string() == wanted.host_port)
    };
    let certain = binding.host_port.bytes().all(|byte| byte.is_ascii_digit());
    let number = wanted.host_port.is_empty()
        || binding.host_port == wanted.host_port
        || (!certain || matches!(binding.host_port.as_str(), "" | "0")) && chosen();
    number && (wanted.host_ip.is_empty() || binding.host_ip == wanted.host_ip)
}

fn shown(wanted: &PortBinding, port: ContainerPort) -> String {
    match (wanted.host_ip.as_str(), wanted.host_port.as_str()) {
        ("", "") => port.to_string(),
        ("", number) => format!("{number}:{port}"),
        (address, number) if address.contains(':') => format!("[{address}]:{number}:{port}"),
        (address, number) => format!("{address}:{number}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use berth_network::{PortMapping, Protocol};

    use super::*;

    fn map(entries: &[(&str, &[(&str, &str)])]) -> PortMap {
        let binding = |(ip, port): &(&str, &str)| PortBinding {
            host_ip: (*ip).to_owned(),
            host_port: (*port).to_owned(),
        };
        let entry = |(key, list): &(&str, &[(&str, &str)])| {
            ((*key).to_owned(), Some(list.iter().map(binding).collect()))
        };
        entries.iter().map(entry).collect()
    }

    fn update(publish: PortMap, unpublish: PortMap) -> PortsUpdate {
        PortsUpdate { publish: Some(publish), unpublish: Some(unpublish) }
    }

    #[test]
    fn ports_come_and_go() {
        let before = map(&[("80/tcp", &[("", "8080"), ("127.0.0.1", "81")]), ("53/udp", &[("", "")])]);
        let held = Endpoint {
            ports: vec![PortMapping {
                protocol: Protocol::Udp,
                host_address: "0.0.0.0".parse().unwrap(),
                host_port: 32_768,
                container_port: 53,
            }],
            ..Endpoint::default()
        };
        let with =
            |publish, unpublish| changed(&before, &update(publish, unpublish), std::slice::from_ref(&held));
        let none = PortMap::new;
        assert_eq!(with(none(), map(&[("80", &[("", "")])])).unwrap(), map(&[("53/udp", &[("", "")])]));
        let left = with(map(&[("9/sctp", &[("", "9")])]), map(&[("80/tcp", &[("", "8080")])])).unwrap();
        assert_eq!(
            left,
            map(&[("80/tcp", &[("127.0.0.1", "81")]), ("53/udp", &[("", "")]), ("9/sctp", &[("", "9")])])
        );
        assert_eq!(with(none(), map(&[("53/udp", &[("", "32768")])])).unwrap().len(), 1, "the chosen port");
        let error = |unpublish| with(none(), unpublish).unwrap_err().to_string();
        assert_eq!(error(map(&[("80", &[("", "8081")])])), "port 8081:80/tcp is not published");
        assert_eq!(error(map(&[("53/udp", &[("::1", "5")])])), "port [::1]:5:53/udp is not published");
        assert_eq!(error(map(&[("7", &[])])), "port 7/tcp is not published");
    }
}
