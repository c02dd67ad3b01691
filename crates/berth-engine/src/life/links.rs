//! Links between containers on the default bridge: Docker's names from before networks had them.
//!
//! Who has a link finds its target by the hosts file and by variables, as they were when it started; entries of the hosts
//! file follow a target that is started again.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::container::HostConfig;
use berth_network::Endpoint;
use ipnet::IpNet;

use super::owner::{Owner, Request, ask};
use super::policy;
use crate::container::links::{self, Link, full_name};
use crate::container::state::State;
use crate::container::{Container, Kept};
use crate::create::NetworkPlan;
use crate::engine::Parts;
use crate::network::attachment::link_of;
use crate::network::linked::Party;
use crate::{Engine, Error};

/// How long a container that starts with the engine waits for those it has links to.
const TARGETS_PATIENCE: Duration = Duration::from_secs(5);

/// What a container's links make of its environment.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// Variables.
    pub(super) variables: Vec<String>,
    /// Lines of the hosts file.
    pub(super) hosts: Vec<(IpAddr, String)>,
}

/// Reads the links that a container is created with, and looks their targets up. On networks of users links are names
/// that the name server has, and not these.
pub(super) fn settle(parts: &Parts, host: &HostConfig, plan: &NetworkPlan) -> Result<Vec<Link>, Error> {
    let mut found = Vec::new();
    if matches!(plan, NetworkPlan::Named(_)) {
        return Ok(found);
    }
    for text in host.links.iter().flatten() {
        let (name, alias) = link_of(text)?;
        let missing = |name: &str| {
            let name = name.to_owned();
            move |error| Error::InvalidParameter(format!("could not get container for {name}: {error}"))
        };
        let mut target = parts.containers.find(name).map_err(missing(name))?;
        // Who shares a network is found where the network is.
        while let NetworkPlan::Container(name) = &target.definition.network {
            target = parts.containers.find(name).map_err(missing(name))?;
        }
        if target.definition.network == NetworkPlan::Host {
            return Err(Error::InvalidParameter(
                "conflicting options: host type networking can't be used with links. This would result in undefined \
                 behavior"
                    .into(),
            ));
        }
        found.push(Link { target: target.id().to_owned(), alias: alias.trim_matches('/').to_owned() });
    }
    Ok(found)
}

impl Parts {
    /// Makes a container's links names of their targets; those that stay. Of two with one alias the first does.
    pub(crate) fn know_links(&self, id: &str, name: &str, links: Vec<Link>) -> Vec<Link> {
        let known = |link: &Link| {
            let there = self.containers.find(&link.target).is_ok();
            there && self.containers.link(id, &link.target, &full_name(name, &link.alias))
        };
        links.into_iter().filter(known).collect()
    }

    /// A container's links as `inspect` shows them.
    pub(crate) fn shown_links(&self, kept: &Kept) -> Option<Vec<String>> {
        let shown = kept.links.iter().filter_map(|link| {
            let target = self.containers.find(&link.target).ok()?;
            Some(format!("/{}:/{}", target.name(), full_name(&kept.name, &link.alias)))
        });
        Some(shown.collect()).filter(|shown: &Vec<String>| !shown.is_empty())
    }
}

impl Engine {
    /// Whether this is the name of a link, `container/alias`.
    pub fn is_link(&self, name: &str) -> bool {
        self.parts.containers.is_link(name)
    }

    /// Removes a link by its name, `container/alias`.
    pub async fn remove_link(&self, name: &str) -> Result<(), Error> {
        self.parts.containers.find(name)?;
        let bare = name.trim_matches('/');
        let Some((parent, alias)) = bare.split_once('/') else {
            return Err(Error::Conflict(
                "Conflict, cannot remove the default link name of the container".into(),
            ));
        };
        let parent = self.parts.containers.find(parent).map_err(|_| {
            Error::InvalidParameter(format!("Cannot get parent /{parent} for link name /{bare}"))
        })?;
        ask(&parent, |answer| Request::Unlink(alias.to_owned(), answer)).await
    }
}

impl Owner {
    /// What its links give it, for a run with these endpoints. All targets have to run.
    pub(super) fn linked(&self, endpoints: &[Endpoint]) -> Result<Linked, Error> {
        let mut linked = Linked::default();
        if !endpoints.iter().any(is_default) {
            return Ok(linked);
        }
        let kept = self.container.kept();
        for link in &kept.links {
            // Whoever is gone has no link any more.
            let Ok(target) = self.parts.containers.find(&link.target) else { continue };
            let full = full_name(&kept.name, &link.alias);
            let State::Running(running) = target.state() else {
                let name = target.name();
                return Err(Error::Link(format!(
                    "Cannot link to a non running container: /{name} AS /{full}"
                )));
            };
            let addresses = default_addresses(&running.endpoints);
            let Some(first) = addresses.first() else {
                let id = target.id();
                return Err(Error::Link(format!("container {id} not attached to default bridge network")));
            };
            let config = &target.definition.config;
            linked.variables.extend(links::variables(&full, &first.to_string(), config));
            let mut names = format!("{} {}", link.alias, config.hostname);
            if link.alias != target.name() {
                names = format!("{names} {}", target.name());
            }
            linked.hosts.extend(addresses.into_iter().map(|address| (address, names.clone())));
        }
        Ok(linked)
    }

    /// Leads the names by which others have links to it to its addresses.
    pub(super) fn tell_linked(&self, endpoints: &[Endpoint]) {
        for (other, alias) in self.parts.containers.linked_by(self.container.id()) {
            if other.state().running().is_none() {
                continue;
            }
            for address in default_addresses(endpoints) {
                self.parts.edit_hosts(other.id(), |text| links::redirected(text, &alias, address));
            }
        }
    }

    /// Gives its links the name that it has now.
    pub(super) fn rename_links(&self, old: &str, new: &str) {
        for link in self.container.kept().links {
            self.parts.containers.unlink(&full_name(old, &link.alias));
            self.parts.containers.link(self.container.id(), &link.target, &full_name(new, &link.alias));
        }
    }

    /// Opens what its links open, and those to it, for a run with these endpoints.
    pub(super) async fn open_links(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let party = Party::new(&self.container.kept().links, &self.container.current().config);
        self.parts.networks.open_links(self.container.id(), party, endpoints).await
    }

    /// Removes a link.
    pub(super) async fn unlink(&self, alias: &str) -> Result<(), Error> {
        let full = full_name(&self.container.name(), alias);
        if !self.container.kept().links.iter().any(|link| link.alias == alias) {
            return Err(Error::NoSuchContainer(format!("/{full}")));
        }
        self.change(|kept| kept.links.retain(|link| link.alias != alias))?;
        self.parts.containers.unlink(&full);
        if let State::Running(running) = self.container.state() {
            self.parts.edit_hosts(self.container.id(), |text| links::without(text, alias));
            self.open_links(&running.endpoints).await?;
        }
        Ok(())
    }

    /// Waits until those run that it has links to and that start with the engine, too.
    pub(super) async fn await_targets(&self) {
        let targets = self.container.kept().links;
        let runs = targets.iter().filter_map(|link| self.parts.containers.find(&link.target).ok());
        let waits = runs.filter(|target| starts_soon(target)).map(|target| async move {
            let _ = target.life().wait_for(|life| life.up || life.removed || life.exits > 0).await;
        });
        let all = futures_util::future::join_all(waits);
        if tokio::time::timeout(TARGETS_PATIENCE, all).await.is_err() {
            tracing::warn!(container = self.container.id(), "those it has links to were not started in time");
        }
    }
}

/// Whether a container that does not run is about to be started with the engine.
fn starts_soon(target: &Container) -> bool {
    let kept = target.kept();
    match &kept.state {
        State::Restarting(_) | State::Starting { .. } => true,
        State::Exited(exited) => {
            let ended = policy::Ended {
                code: exited.code,
                by_client: kept.stopped_by_client,
                restarts: kept.restarts,
            };
            policy::starts_with_engine(&target.restart_policy(), ended)
        }
        _ => false,
    }
}

fn is_default(endpoint: &Endpoint) -> bool {
    // Records that are older than networks have no name for it.
    matches!(endpoint.network_name.as_str(), "" | "bridge")
}

fn default_addresses(endpoints: &[Endpoint]) -> Vec<IpAddr> {
    let on_it = endpoints.iter().filter(|endpoint| is_default(endpoint) && !endpoint.pending);
    on_it.flat_map(|endpoint| &endpoint.addresses).map(IpNet::addr).collect()
}
