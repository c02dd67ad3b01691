//! Links on a default bridge whose containers else do not reach each other: which ports are open between whom.
//!
//! Ports of such a bridge are isolated. Those of containers that take part in a link are not, for as long as the firewall
//! knows them: it does before they are let go, and until they are isolated again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use berth_api::container::Config;
use berth_network::firewall::{Firewall, FirewallState, Linked};
use berth_network::{Endpoint, Host, Protocol};
use ipnet::IpNet;

use super::bridge_id;
use crate::Error;
use crate::container::links::Link;
use crate::create::ports;

/// What a container is in links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// IDs of those that it has links to.
    targets: Vec<String>,
    /// What those that have links to it reach.
    exposed: BTreeSet<(Protocol, u16)>,
}

impl Party {
    /// What a container with these links and this configuration is.
    pub fn new(links: &[Link], config: &Config) -> Party {
        let exposed = ports::exposed(config).unwrap_or_default();
        Party {
            targets: links.iter().map(|link| link.target.clone()).collect(),
            exposed: exposed.iter().map(|port| (port.protocol, port.port)).collect(),
        }
    }
}

/// A party that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Present {
    party: Party,
    host_link: String,
    /// One of each family at most.
    addresses: Vec<IpAddr>,
}

impl Present {
    /// The addresses by which it reaches another, and that one's.
    fn reaches(&self, other: &Present) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let of_family = |from: IpAddr| other.addresses.iter().find(move |to| to.is_ipv6() == from.is_ipv6());
        self.addresses.iter().filter_map(move |from| Some((*from, *of_family(*from)?)))
    }
}

/// The links of running containers on the default bridge.
pub struct Links {
    host: Arc<Host>,
    firewall: Arc<Firewall>,
    present: Mutex<BTreeMap<String, Present>>,
}

impl Links {
    /// None yet.
    pub fn new(host: Arc<Host>, firewall: Arc<Firewall>) -> Links {
        Links { host, firewall, present: Mutex::default() }
    }

    /// Takes over a container that runs already; its links are open with [`Links::settle`].
    pub fn adopt(&self, container: &str, party: Party, endpoints: &[Endpoint]) {
        if let Some(present) = present(party, endpoints) {
            self.lock().insert(container.to_owned(), present);
        }
    }

    /// What the firewall has to know on a bridge of this name.
    pub fn state(&self, bridge: &str) -> FirewallState {
        opened(bridge, &self.lock())
    }

    /// Isolates the ports of a bridge that just became such a one, or that an earlier engine left otherwise. The firewall
    /// knows the links. Blocks.
    pub fn settle(&self, bridge: &str, ports: &[String]) -> Result<(), Error> {
        let partners = self.state(bridge).partners;
        for port in ports {
            self.host.isolate(port, !partners.contains(port))?;
        }
        Ok(())
    }

    /// Opens what comes with a container, whose link is there. Blocks.
    pub fn enter(
        &self,
        bridge: &str,
        container: &str,
        party: Party,
        endpoints: &[Endpoint],
    ) -> Result<(), Error> {
        self.change(bridge, |all| match present(party, endpoints) {
            Some(present) => drop(all.insert(container.to_owned(), present)),
            None => drop(all.remove(container)),
        })
    }

    /// Closes what a container was part of. Blocks.
    pub fn leave(&self, bridge: &str, container: &str) -> Result<(), Error> {
        self.change(bridge, |all| drop(all.remove(container)))
    }

    /// Whether a container is known here.
    pub fn knows(&self, container: &str) -> bool {
        self.lock().contains_key(container)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Present>> {
        // What the lock guards is whole between any two statements.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held over the whole change: of two, the second starts from what the first has made.
    fn change(&self, bridge: &str, change: impl FnOnce(&mut BTreeMap<String, Present>)) -> Result<(), Error> {
        let mut all = self.lock();
        let before = opened(bridge, &all);
        change(&mut all);
        let after = opened(bridge, &all);
        let (gone, new) = (without(&before, &after), without(&after, &before));
        for port in &gone.partners {
            self.host.isolate(port, true)?;
        }
        if gone != new {
            self.firewall.exchange(&gone, &new)?;
        }
        for port in &new.partners {
            self.host.isolate(port, false)?;
        }
        Ok(())
    }
}

/// Whether one of a container's endpoints is where links are.
pub fn is_party(endpoints: &[Endpoint]) -> bool {
    on_default(endpoints).is_some()
}

fn on_default(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    let id = bridge_id();
    let on_it = |endpoint: &Endpoint| endpoint.network.is_empty() || endpoint.network == id;
    endpoints.iter().find(|endpoint| !endpoint.pending && on_it(endpoint))
}

fn present(party: Party, endpoints: &[Endpoint]) -> Option<Present> {
    let endpoint = on_default(endpoints)?;
    let addresses = endpoint.addresses.iter().map(IpNet::addr).collect();
    Some(Present { party, host_link: endpoint.host_link.clone(), addresses })
}

/// All that is open between those that are there.
fn opened(bridge: &str, all: &BTreeMap<String, Present>) -> FirewallState {
    let (mut links, mut pairs, mut partners) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for one in all.values() {
        for target in one.party.targets.iter().filter_map(|id| all.get(id)) {
            partners.extend([one.host_link.clone(), target.host_link.clone()]);
            for (from, to) in one.reaches(target) {
                pairs.insert((from.min(to), from.max(to)));
                links.extend(target.party.exposed.iter().map(|(protocol, port)| Linked {
                    bridge: bridge.to_owned(),
                    from,
                    to,
                    protocol: *protocol,
                    port: *port,
                }));
            }
        }
    }
    FirewallState {
        links: links.into_iter().collect(),
        pairs: pairs.into_iter().collect(),
        partners: partners.into_iter().collect(),
        ..FirewallState::default()
    }
}

/// What one has and the other has not.
fn without(one: &FirewallState, other: &FirewallState) -> FirewallState {
    FirewallState {
        links: one.links.iter().filter(|link| !other.links.contains(link)).cloned().collect(),
        pairs: one.pairs.iter().filter(|pair| !other.pairs.contains(pair)).copied().collect(),
        partners: one.partners.iter().filter(|name| !other.partners.contains(name)).cloned().collect(),
        ..FirewallState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(number: u8, targets: &[&str], ports: &[u16]) -> Present {
        let party = Party {
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            exposed: ports.iter().map(|port| (Protocol::Tcp, *port)).collect(),
        };
        let addresses =
            ["172.17.0.", "fd17::"].map(|net| format!("{net}{number}").parse::<IpAddr>().unwrap());
        Present { party, host_link: format!("veth{number}"), addresses: addresses.to_vec() }
    }

    #[test]
    fn what_is_exposed_is_open_to_who_has_a_link() {
        let all: BTreeMap<String, Present> = [
            ("server".to_owned(), one(2, &[], &[80, 443])),
            ("client".to_owned(), one(3, &["server", "gone"], &[22])),
            ("other".to_owned(), one(4, &[], &[80])),
        ]
        .into();
        let state = opened("docker0", &all);
        assert_eq!(state.partners, ["veth2", "veth3"]);
        let shown: Vec<String> = state.pairs.iter().map(|(one, other)| format!("{one} {other}")).collect();
        assert_eq!(shown, ["172.17.0.2 172.17.0.3", "fd17::2 fd17::3"]);
        let opened: Vec<String> =
            state.links.iter().map(|link| format!("{} {} {}", link.from, link.to, link.port)).collect();
        assert_eq!(
            opened,
            [
                "172.17.0.3 172.17.0.2 80",
                "172.17.0.3 172.17.0.2 443",
                "fd17::3 fd17::2 80",
                "fd17::3 fd17::2 443"
            ]
        );
        assert_eq!(without(&state, &state), FirewallState::default());
        assert_eq!(without(&state, &FirewallState::default()), state);
    }
}
