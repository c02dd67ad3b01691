//! Which names are known in which network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::{Config, Member};

/// The networks' names and addresses. Names are compared without regard to case.
#[derive(Debug, Default)]
pub(super) struct Table {
    networks: HashMap<String, Network>,
}

#[derive(Debug, Default)]
struct Network {
    name: String,
    members: HashMap<String, Rc<Member>>,
    names: HashMap<String, Vec<Rc<Member>>>,
    addresses: HashMap<IpAddr, Vec<Rc<Member>>>,
}

/// A container's networks, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct View {
    networks: Vec<(String, HashMap<String, String>)>,
}

impl View {
    pub(super) fn new(config: &Config) -> View {
        let lower = |(alias, target): &(String, String)| (alias.to_lowercase(), target.to_lowercase());
        let networks = config.networks.iter();
        View {
            networks: networks.map(|m| (m.network.clone(), m.links.iter().map(lower).collect())).collect(),
        }
    }
}

impl Table {
    /// Sets a member, in place of what its owner had in that network.
    pub(super) fn join(&mut self, network: &str, network_name: &str, member: Member) {
        self.leave(network, &member.owner);
        let network = self.networks.entry(network.to_string()).or_default();
        network.name = network_name.to_string();
        network.add(Rc::new(member));
    }

    /// Removes a member; a network goes with its last.
    pub(super) fn leave(&mut self, id: &str, owner: &str) {
        let Some(network) = self.networks.get_mut(id) else { return };
        network.remove(owner);
        if network.members.is_empty() {
            self.networks.remove(id);
        }
    }

    /// Removes a container everywhere.
    pub(super) fn forget(&mut self, owner: &str) {
        self.retain(|other| other != owner);
    }

    /// Removes the containers that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for network in self.networks.values_mut() {
            let gone: Vec<String> = network.members.keys().filter(|owner| !keep(owner)).cloned().collect();
            for owner in gone {
                network.remove(&owner);
            }
        }
        self.networks.retain(|_, network| !network.members.is_empty());
    }

    /// Network IDs and their members, in order.
    pub(super) fn members(&self) -> Vec<(String, Member)> {
        let all = self.networks.iter();
        let all = all.flat_map(|(id, n)| n.members.values().map(|m| (id.clone(), m.as_ref().clone())));
        let mut members: Vec<(String, Member)> = all.collect();
        members.sort_by(|a, b| (&a.0, &a.1.owner).cmp(&(&b.0, &b.1.owner)));
        members
    }

    /// Who is meant by `name`, in lower case and without a final dot, in the first of the viewer's networks that knows it.
    /// The end of the name may be a network's: for `a.b.c` that is `a.b.c` in any, `a.b` in `c`, then `a` in `b.c`.
    pub(super) fn resolve(&self, view: &View, name: &str) -> Option<&[Rc<Member>]> {
        let mut at = name.len();
        let mut within = None;
        loop {
            let found = self.find(view, &name[..at], within, true);
            if let Some(members) = found.or_else(|| self.find(view, &name[..at], within, false)) {
                return Some(members);
            }
            at = name[..at].rfind('.')?;
            within = Some(&name[at + 1..]);
        }
    }

    /// The members called `name` in the viewer's networks (or the one called `within`), by way of a link or by their own name.
    fn find(&self, view: &View, name: &str, within: Option<&str>, link: bool) -> Option<&[Rc<Member>]> {
        view.networks.iter().find_map(|(id, links)| {
            let network = self.networks.get(id)?;
            if within.is_some_and(|within| !network.name.eq_ignore_ascii_case(within)) {
                return None;
            }
            let name = match (links.get(name), link) {
                (Some(target), true) => target,
                (None, false) => name,
                _ => return None,
            };
            network.names.get(name).map(Vec::as_slice)
        })
    }

    /// The name that belongs to an address in one of the viewer's networks, with the network's.
    pub(super) fn reverse(&self, view: &View, address: IpAddr) -> Option<String> {
        view.networks.iter().find_map(|(id, _)| {
            let network = self.networks.get(id)?;
            let member = network.addresses.get(&address)?.first()?;
            Some(format!("{}.{}", member.names.first()?, network.name))
        })
    }
}

impl Network {
    fn add(&mut self, member: Rc<Member>) {
        for name in &member.names {
            let members = self.names.entry(name.to_lowercase()).or_default();
            if !members.iter().any(|other| Rc::ptr_eq(other, &member)) {
                members.push(member.clone());
            }
        }
        for address in &member.addresses {
            self.addresses.entry(*address).or_default().push(member.clone());
        }
        self.members.insert(member.owner.clone(), member);
    }

    fn remove(&mut self, owner: &str) {
        let Some(member) = self.members.remove(owner) else { return };
        for name in member.names.iter().map(|name| name.to_lowercase()) {
            if let Some(members) = self.names.get_mut(&name) {
                members.retain(|other| other.owner != owner);
                if members.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &member.addresses {
            if let Some(members) = self.addresses.get_mut(address) {
                members.retain(|other| other.owner != owner);
                if members.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Membership;

    fn member(owner: &str, names: &[&str], address: &str) -> Member {
        let names = names.iter().map(|n| n.to_string()).collect();
        Member { owner: owner.into(), names, addresses: vec![address.parse().unwrap()] }
    }

    fn view(networks: &[&str], links: &[(&str, &str)]) -> View {
        let links: Vec<_> = links.iter().map(|(a, t)| (a.to_string(), t.to_string())).collect();
        let networks =
            networks.iter().map(|n| Membership { network: n.to_string(), links: links.clone() }).collect();
        View::new(&Config { networks, ..Config::default() })
    }

    fn owners(found: Option<&[Rc<Member>]>) -> Vec<&str> {
        found.unwrap_or_default().iter().map(|m| m.owner.as_str()).collect()
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.join("n1", "Front", member("c1", &["Web", "abc123", "svc"], "10.0.0.2"));
        table.join("n1", "Front", member("c2", &["web2", "def456", "svc"], "10.0.0.3"));
        table.join("n2", "back.end", member("c3", &["db", "web"], "10.1.0.2"));
        table
    }

    #[test]
    fn names_aliases_and_services_of_the_viewers_networks() {
        let table = table();
        let one = view(&["n1"], &[]);
        assert_eq!(owners(table.resolve(&one, "web")), ["c1"]);
        assert_eq!(owners(table.resolve(&one, "abc123")), ["c1"]);
        assert_eq!(owners(table.resolve(&one, "svc")), ["c1", "c2"]);
        assert_eq!(owners(table.resolve(&one, "svc.front")), ["c1", "c2"]);
        assert!(table.resolve(&one, "db").is_none(), "another network");
        assert!(table.resolve(&one, "db.back.end").is_none(), "another network");
        let both = view(&["n2", "n1"], &[]);
        assert_eq!(owners(table.resolve(&both, "web")), ["c3"], "the first network wins");
        assert_eq!(owners(table.resolve(&both, "web.front")), ["c1"]);
        assert_eq!(owners(table.resolve(&both, "db.back.end")), ["c3"]);
        assert!(table.resolve(&both, "db.end").is_none());
        assert!(table.resolve(&both, "").is_none());
    }

    #[test]
    fn links_are_the_viewers_own() {
        let table = table();
        let linked = view(&["n1"], &[("DB", "Web"), ("web2", "web"), ("gone", "nobody")]);
        assert_eq!(owners(table.resolve(&linked, "db")), ["c1"]);
        assert_eq!(owners(table.resolve(&linked, "db.front")), ["c1"]);
        assert_eq!(owners(table.resolve(&linked, "web2")), ["c1"], "the link hides the name");
        assert!(table.resolve(&linked, "gone").is_none());
        assert!(table.resolve(&view(&["n1"], &[]), "db").is_none());
    }

    #[test]
    fn addresses_lead_back_to_the_first_name() {
        let table = table();
        let one = view(&["n1"], &[]);
        assert_eq!(table.reverse(&one, "10.0.0.3".parse().unwrap()).as_deref(), Some("web2.Front"));
        assert_eq!(table.reverse(&one, "10.1.0.2".parse().unwrap()), None);
    }

    #[test]
    fn what_left_is_forgotten_whole() {
        let mut table = table();
        let all = view(&["n1", "n2"], &[]);
        table.join("n1", "Front", member("c1", &["renamed"], "10.0.0.9"));
        assert_eq!(owners(table.resolve(&all, "svc")), ["c2"]);
        assert_eq!(owners(table.resolve(&all, "renamed")), ["c1"]);
        assert_eq!(table.reverse(&all, "10.0.0.2".parse().unwrap()), None);
        assert_eq!(table.members().len(), 3);
        table.leave("n1", "c2");
        table.forget("c1");
        table.retain(|owner| owner == "nobody");
        assert!(table.networks.is_empty());
    }
}
