//! Names of containers on networks: what the name servers in the net process are told, and told again.
//!
//! What was told is remembered, so that a new net process can be filled, and one that outlived a daemon be brought up to
//! date. Containers that are on the default bridge alone have no name server and cost nothing here.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use berth_network::Endpoint;
use berth_network::names::{Client, Config, Member, Membership, Upstream};
use berth_network::net::NetClient;
use ipnet::IpNet;

use super::attachment::{Attachment, link_of};
use super::segment::{gateways, in_order};
use super::{lock, object};
use crate::Error;
use crate::blocking::blocking;

/// Who asks, and who is asked for, on the networks of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Process ID of its init, whose network namespace is served.
    pub pid: i32,
    /// How its own questions are answered.
    pub config: Config,
    /// What others find it by: the network's ID and name, and its names and addresses there.
    pub members: Vec<(String, String, Member)>,
}

/// Where questions go that no container's name answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Whom to ask.
    pub upstreams: Vec<Upstream>,
    /// Whether host or user set `ndots`.
    pub ndots_set: bool,
}

/// A container as its names are made of it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its name, without a slash.
    pub name: &'a str,
    /// Its ID.
    pub id: &'a str,
    /// Its host name.
    pub hostname: &'a str,
}

/// Whether one of the endpoints is on a network that has names.
pub fn has_names(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().any(|endpoint| !endpoint.pending && is_named(&endpoint.network_name))
}

fn is_named(network: &str) -> bool {
    // Records that are older than networks have no name for the default bridge.
    !network.is_empty() && !object::is_predefined(network)
}

impl Served {
    /// What a container is on its networks, and what it finds there.
    pub fn new(
        named: Named<'_>,
        pid: i32,
        attachments: &[Attachment],
        endpoints: &[Endpoint],
        forwarding: Forwarding,
    ) -> Served {
        let (mut members, mut networks) = (Vec::new(), Vec::new());
        for endpoint in in_order(endpoints).into_iter().filter(|endpoint| !endpoint.pending) {
            let Some(attachment) = attachments.iter().find(|one| crate::networks::is_of(endpoint, one))
            else {
                continue;
            };
            let Some(names) = attachment.names(named.name, named.id, named.hostname) else { continue };
            let addresses = endpoint.addresses.iter().map(IpNet::addr).collect();
            let member = Member { owner: named.id.to_owned(), names, addresses };
            members.push((endpoint.network.clone(), endpoint.network_name.clone(), member));
            let links = attachment.settings.links.iter().flatten().filter_map(|text| link_of(text).ok());
            let links = links.map(|(name, alias)| (alias.to_owned(), name.to_owned())).collect();
            networks.push(Membership { network: endpoint.network.clone(), links });
        }
        let config = Config {
            networks,
            upstreams: forwarding.upstreams,
            forward: gateways(endpoints).iter().any(Option::is_some),
            ndots_set: forwarding.ndots_set,
        };
        Served { pid, config, members }
    }

    /// Networks of an earlier state that are none of this one.
    fn left(&self, before: &Served) -> Vec<String> {
        let gone = |network: &&String| !self.members.iter().any(|(now, ..)| now == *network);
        before.members.iter().map(|(network, ..)| network).filter(gone).cloned().collect()
    }
}

/// The name servers of an engine's containers.
pub struct Names {
    client: Client,
    served: Mutex<BTreeMap<String, Served>>,
    /// Held while the net process is told of a change: what it is told last is what is remembered.
    turn: tokio::sync::Mutex<()>,
}

impl Names {
    /// The name servers in this net process.
    pub fn new(net: Arc<NetClient>) -> Names {
        Names { client: Client::new(net), served: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Whether any container has a name server.
    pub fn is_used(&self) -> bool {
        !lock(&self.served).is_empty()
    }

    /// Whether a container has a name server.
    pub fn serves(&self, container: &str) -> bool {
        lock(&self.served).contains_key(container)
    }

    /// Takes over a container that runs already; [`Names::take_over`] tells the net process of all of them.
    pub fn remember(&self, container: &str, served: Served) {
        lock(&self.served).insert(container.to_owned(), served);
    }

    /// Serves a container, or changes how it is served: one round trip.
    pub async fn serve(
        &self,
        container: &str,
        served: Served,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let before = lock(&self.served).insert(container.to_owned(), served.clone());
        let left = before.map(|before| served.left(&before)).unwrap_or_default();
        let (client, owner) = (self.client.clone(), container.to_owned());
        let namespace = namespace.try_clone_to_owned().map_err(|source| Error::Io {
            operation: "keep the container's network namespace".into(),
            source,
        })?;
        blocking(move || {
            let life = life(served.pid);
            let life = life.as_ref().map(AsFd::as_fd);
            Ok(client.serve(&owner, namespace.as_fd(), life, &served.config, &served.members, &left)?)
        })
        .await
    }

    /// Ends a container's name server, if it has one.
    pub async fn forget(&self, container: &str) -> Result<(), Error> {
        if !self.serves(container) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        lock(&self.served).remove(container);
        let (client, owner) = (self.client.clone(), container.to_owned());
        blocking(move || Ok(client.detach(&owner)?)).await
    }

    /// Brings a net process that outlived an engine up to date with what this one has taken over, and has it forget the rest.
    pub async fn take_over(&self) -> Result<(), Error> {
        self.fill(true).await
    }

    /// Tells a new net process everything.
    pub async fn refill(&self) -> Result<(), Error> {
        self.fill(false).await
    }

    /// Everybody's names first: who asks early must not be told that there is no such name.
    async fn fill(&self, forget_others: bool) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let all = lock(&self.served).clone();
        let client = self.client.clone();
        blocking(move || {
            let members: Vec<_> = all.values().flat_map(|served| &served.members).cloned().collect();
            client.fill(&members)?;
            let mut first = Ok(());
            for (owner, served) in &all {
                let attached = attach(&client, owner, served);
                first = first.and(attached);
            }
            if forget_others {
                let owners: Vec<String> = all.into_keys().collect();
                client.retain(&owners)?;
            }
            first
        })
        .await
    }
}

fn attach(client: &Client, owner: &str, served: &Served) -> Result<(), Error> {
    let path = format!("/proc/{}/ns/net", served.pid);
    // One that has just ended is detached by its owner.
    let Ok(namespace) = File::open(path) else { return Ok(()) };
    let life = life(served.pid);
    Ok(client.attach(owner, namespace.as_fd(), life.as_ref().map(AsFd::as_fd), &served.config)?)
}

/// What tells the net process that the container has ended, also while no daemon runs.
fn life(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::network::EndpointSettings;

    fn endpoint(name: &str, address: &str, gateway: Option<&str>) -> Endpoint {
        Endpoint {
            network: format!("id-of-{name}"),
            network_name: name.into(),
            addresses: vec![address.parse().unwrap()],
            gateways: gateway.into_iter().map(|text| text.parse().unwrap()).collect(),
            ..Endpoint::default()
        }
    }

    fn served(endpoints: &[Endpoint]) -> Served {
        let links =
            EndpointSettings { links: Some(vec!["db:database".into(), "web".into()]), ..Default::default() };
        let attachments = [
            Attachment::new("bridge", "", EndpointSettings::default()),
            Attachment::new("mine", "", links),
            Attachment::new("inside", "", EndpointSettings::default()),
        ];
        let named = Named { name: "web", id: "0123456789abcdef", hostname: "host" };
        Served::new(named, 7, &attachments, endpoints, Forwarding::default())
    }

    #[test]
    fn only_networks_of_users_have_names() {
        let all =
            [endpoint("bridge", "172.17.0.2/16", Some("172.17.0.1")), endpoint("mine", "10.1.0.2/16", None)];
        let found = served(&all);
        assert_eq!(found.members.len(), 1);
        let (network, name, member) = &found.members[0];
        assert_eq!((network.as_str(), name.as_str()), ("id-of-mine", "mine"));
        assert_eq!(member.names, ["web", "0123456789ab", "host"]);
        assert_eq!(member.addresses, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
        let pair = |alias: &str, name: &str| (alias.to_owned(), name.to_owned());
        assert_eq!(found.config.networks[0].links, [pair("database", "db"), pair("web", "web")]);
        assert!(found.config.forward, "by way of the default bridge");
        assert!(has_names(&all) && !has_names(&all[..1]));
    }

    #[test]
    fn a_container_on_internal_networks_alone_forwards_nothing() {
        assert!(!served(&[endpoint("inside", "10.2.0.2/16", None)]).config.forward);
        let both =
            [endpoint("inside", "10.2.0.2/16", None), endpoint("mine", "10.1.0.2/16", Some("10.1.0.1"))];
        let found = served(&both);
        assert!(found.config.forward);
        assert_eq!(found.config.networks[0].network, "id-of-mine", "who has the way out is asked first");
        assert_eq!(served(&both[..1]).left(&found), ["id-of-mine"]);
    }
}
