//! A container's networks: what it takes and gives back around a run, and joining and leaving in between.
//!
//! While it runs, a change takes two rows: the first names the endpoint that comes or goes as pending, the second is
//! what has become of it. Between them links are made or removed. Whoever takes the container over after a crash takes
//! a pending endpoint away, so that nobody's address or link is left behind.

use std::fs::File;
use std::os::fd::AsFd;

use berth_api::network::EndpointSettings;
use berth_network::Endpoint;

use super::owner::Owner;
use crate::Error;
use crate::container::state::{Running, State};
use crate::create::{NetworkPlan, mac, ports};
use crate::event::{Event, NetworkEvent};
use crate::network::Joining;
use crate::network::attachment::{Asked, Attachment};
use crate::network::object::{Driver, Object};
use crate::networks::{attachments, is_of};
use crate::spec::files;

impl Owner {
    /// Takes the endpoints of a run, with their addresses and ports.
    pub(super) async fn take_endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let definition = &self.container.definition;
        if !definition.network.has_endpoints() {
            return Ok(Vec::new());
        }
        let joining = self.joining().await.map_err(|error| self.network_error(error))?;
        if joining.is_empty() {
            return Ok(Vec::new());
        }
        let publications = self.publications()?;
        let publishes = !publications.is_empty();
        let attached = self.parts.networks.attach(self.container.id(), &joining, publications).await;
        let endpoints = attached.map_err(|error| self.network_error(error))?;
        if publishes {
            self.parts.watch_net_process();
        }
        Ok(endpoints)
    }

    /// What it publishes, as of now.
    pub(super) fn publications(&self) -> Result<Vec<ports::Publication>, Error> {
        let current = self.container.current();
        ports::publications(&current.config, &current.host)
    }

    /// The networks that it is to be on, the one it was created for first.
    async fn joining(&self) -> Result<Vec<Joining>, Error> {
        let attachments = attachments(&self.container.definition, &self.container.kept());
        let mut joining = Vec::with_capacity(attachments.len());
        for (index, attachment) in attachments.iter().enumerate() {
            let mut settings = attachment.settings.clone();
            let whole = &self.container.definition.config.mac_address;
            if index == 0 && settings.mac_address.is_empty() && mac::parse(whole).is_some() {
                settings.mac_address.clone_from(whole);
            }
            joining.extend(self.one(attachment, &settings).await?);
        }
        Ok(joining)
    }

    async fn one(
        &self,
        attachment: &Attachment,
        settings: &EndpointSettings,
    ) -> Result<Option<Joining>, Error> {
        let segment = match attachment.name.as_str() {
            "none" | "host" => return Ok(None),
            "bridge" => match self.parts.networks.bridge().await? {
                Some(segment) => std::sync::Arc::clone(segment),
                // As in Docker, containers have nothing but loopback then.
                None => return Ok(None),
            },
            name => match self.parts.networks.segment(&attachment.id) {
                Some(segment) => segment,
                None => {
                    let found = self.parts.network_of(attachment);
                    let found = found.ok_or_else(|| Error::NoSuchNetwork(name.to_owned()))?;
                    self.segment(&found)?
                }
            },
        };
        let asked = self.asked(&segment.object, settings)?;
        Ok(Some(Joining { segment, asked }))
    }

    /// What its endpoint on a network is to have.
    fn asked(&self, object: &Object, settings: &EndpointSettings) -> Result<Asked, Error> {
        let without_ipv6 = files::disables_ipv6(&self.container.definition);
        let asked = Asked::parse(&object.name, Some(object), settings)?;
        Ok(Asked { without_ipv6, ..asked })
    }

    fn segment(&self, object: &Object) -> Result<std::sync::Arc<crate::network::segment::Segment>, Error> {
        self.parts
            .networks
            .segment(&object.id)
            .ok_or_else(|| Error::Forbidden("cannot create endpoint on configuration-only network".into()))
    }

    /// In Docker's words.
    pub(super) fn network_error(&self, error: Error) -> Error {
        let error = match error {
            Error::Network(error) => Error::Network(self.parts.settings.told_of_own(error)),
            other => other,
        };
        let taken = matches!(
            error,
            Error::Network(berth_network::Error::PortInUse { .. } | berth_network::Error::PortRefused { .. })
        );
        let error = if taken {
            let (name, id) = (self.container.name(), self.container.id());
            Error::Unavailable(format!(
                "driver failed programming external connectivity on endpoint {name} ({id}): {error}"
            ))
        } else {
            error
        };
        Error::Connect(Box::new(error))
    }

    /// Tells that it joined or left all its networks.
    pub(super) fn tell_networks(&self, event: NetworkEvent) {
        for attachment in attachments(&self.container.definition, &self.container.kept()) {
            let predefined = || {
                let driver = match attachment.name.as_str() {
                    "bridge" => "bridge",
                    "host" => "host",
                    "none" => "null",
                    _ => return None,
                };
                Some((crate::networks::network_id(&attachment.name), driver.to_owned()))
            };
            let made = || {
                self.parts.network_of(&attachment).map(|object| (object.id, object.driver.name().to_owned()))
            };
            if let Some((id, driver)) = predefined().or_else(made) {
                self.tell_network(id, &attachment.name, &driver, event);
            }
        }
    }

    fn tell_network(&self, id: String, name: &str, driver: &str, event: NetworkEvent) {
        self.parts.events.publish(Event::Network {
            id,
            name: name.to_owned(),
            driver: driver.to_owned(),
            container: Some(self.container.id().to_owned()),
            event,
        });
    }

    /// Gives back addresses and ports.
    pub(super) async fn give_back_network(&self) {
        if let Err(error) = self.parts.networks.names.forget(self.container.id()).await {
            tracing::warn!(container = self.container.id(), %error, "its names were not taken back");
        }
        if let Err(error) = self.parts.networks.detach(self.container.id()).await {
            tracing::warn!(container = self.container.id(), %error, "the network was not given back whole");
        }
    }

    /// Joins a network: at once if it runs, else from its next start on.
    pub(super) async fn connect(&mut self, network: &str, settings: EndpointSettings) -> Result<(), Error> {
        self.refuse_if_removed()?;
        let kept = self.container.kept();
        let attached = attachments(&self.container.definition, &kept);
        let running = kept.state.running().cloned();
        let object = match self.parts.find_network(network) {
            Ok(object) => object,
            // As in Docker, it may be made before the next start.
            Err(Error::NoSuchNetwork(_)) if running.is_none() => {
                let attachment = Attachment::new(network, "", settings);
                Asked::parse(network, None, &attachment.settings)?;
                return self.change_attachments(&attached, |list| list.push(attachment));
            }
            Err(error) => return Err(error),
        };
        let attachment = Attachment::new(&object.name, &object.id, settings);
        let asked = self.asked(&object, &attachment.settings)?;
        let on_it = attached.iter().any(|other| other.name == object.name);
        self.check_together(&object, &attached)?;
        let Some(running) = running else {
            if on_it {
                return Ok(());
            }
            return self.change_attachments(&attached, |list| list.push(attachment));
        };
        if on_it {
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                kept.name, object.name
            )));
        }
        let segment = match object.name.as_str() {
            "bridge" => {
                let bridge = self.parts.networks.bridge().await?;
                let missing = || Error::NoSuchNetwork(network.to_owned());
                std::sync::Arc::clone(bridge.ok_or_else(missing)?)
            }
            _ => self.segment(&object)?,
        };
        self.join(running, Joining { segment, asked }, attachment).await?;
        self.tell_network(object.id.clone(), &object.name, object.driver.name(), NetworkEvent::Connect);
        Ok(())
    }

    fn refuse_if_removed(&self) -> Result<(), Error> {
        if !matches!(self.container.state(), State::Removing) {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "Container {} is marked for removal and cannot be connected or disconnected to the network",
            self.container.id()
        )))
    }

    /// Whether it can be on this network beside the others.
    fn check_together(&self, object: &Object, others: &[Attachment]) -> Result<(), Error> {
        let invalid = |text: &str| Err(Error::InvalidParameter(text.to_owned()));
        let plan = &self.container.definition.network;
        let shares = "container sharing network namespace with another container or host cannot be connected to any \
                      other network";
        match plan {
            NetworkPlan::Container(_) => return invalid(shares),
            NetworkPlan::Host if object.driver != Driver::Host => return invalid(shares),
            NetworkPlan::Host => return Ok(()),
            _ if object.driver == Driver::Host => {
                return invalid(
                    "cannot connect container to host network - container must be created in host network mode",
                );
            }
            _ => {}
        }
        let none = |name: &str| name == "none";
        let apart = others.iter().any(|other| none(&other.name) != none(&object.name));
        if apart {
            return invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            );
        }
        Ok(())
    }

    fn change_attachments(
        &self,
        now: &[Attachment],
        change: impl FnOnce(&mut Vec<Attachment>),
    ) -> Result<(), Error> {
        let mut list = now.to_vec();
        change(&mut list);
        self.change(|kept| kept.attachments = Some(list))
    }

    fn set_endpoints(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        self.change(|kept| {
            if let State::Running(running) = &mut kept.state {
                running.endpoints = endpoints.to_vec();
            }
        })
    }

    async fn join(&self, running: Running, joining: Joining, attachment: Attachment) -> Result<(), Error> {
        let networks = &self.parts.networks;
        let id = self.container.id();
        let before = running.endpoints.clone();
        let endpoint = networks.join(id, &joining).await?;
        let mut now = before.clone();
        now.push(endpoint.clone());
        let outcome = self.join_as(&running, &before, &mut now, &endpoint).await;
        if let Err(first) = outcome {
            let mut undo = Vec::new();
            undo.extend(networks.unplug(id, &endpoint).await.err().map(|error| error.to_string()));
            undo.extend(networks.republish(&now, &before).await.err().map(|error| error.to_string()));
            undo.extend(networks.restore_ports(id, &before).await.err().map(|error| error.to_string()));
            networks.settle(id, before.clone(), Some(&endpoint));
            undo.extend(self.set_endpoints(&before).err().map(|error| error.to_string()));
            return Err(if undo.is_empty() {
                first
            } else {
                Error::Unwound { first: Box::new(first), undo }
            });
        }
        now.iter_mut().for_each(|endpoint| endpoint.pending = false);
        networks.settle(id, now.clone(), None);
        if let Err(error) = self.open_links(&now).await {
            tracing::warn!(container = id, %error, "links are not open");
        }
        let mut attached = attachments(&self.container.definition, &self.container.kept());
        attached.push(attachment);
        self.change_regardless(|kept| {
            kept.attachments = Some(attached.clone());
            if let State::Running(running) = &mut kept.state {
                running.endpoints.clone_from(&now);
            }
        });
        self.edit_hosts(&endpoint, true);
        self.tell_linked(std::slice::from_ref(&endpoint));
        self.announce().await;
        Ok(())
    }

    async fn join_as(
        &self,
        running: &Running,
        before: &[Endpoint],
        now: &mut [Endpoint],
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        self.place_ports(now).await.map_err(|error| self.network_error(error))?;
        self.set_endpoints(now)?;
        let netns = namespace(running.pid)?;
        self.parts.networks.plug(self.container.id(), netns.as_fd(), endpoint, now).await?;
        self.parts.networks.republish(before, now).await
    }

    /// Gives published ports to the endpoint that has a way out, if there is one.
    pub(super) async fn place_ports(&self, endpoints: &mut [Endpoint]) -> Result<(), Error> {
        let publications = self.publications()?;
        self.parts.networks.place_ports(self.container.id(), endpoints, &publications).await?;
        if publishes(endpoints) {
            self.parts.watch_net_process();
        }
        Ok(())
    }

    /// Leaves a network: at once if it runs, else from its next start on. With `force`, also one that is gone.
    pub(super) async fn disconnect(&mut self, network: &str, force: bool) -> Result<(), Error> {
        self.refuse_if_removed()?;
        let kept = self.container.kept();
        let attached = attachments(&self.container.definition, &kept);
        let running = kept.state.running().cloned();
        let found = match self.parts.find_network(network) {
            Ok(object) => Some(object),
            Err(_) if force || running.is_none() => None,
            Err(error) => return Err(error),
        };
        let name = found.as_ref().map_or(network, |object| object.name.as_str());
        let host = found.as_ref().is_some_and(|object| object.driver == Driver::Host);
        if host && running.is_some() && self.container.definition.network == NetworkPlan::Host {
            return Err(Error::InvalidParameter(
                "cannot disconnect container from host network - container was created in host network mode"
                    .into(),
            ));
        }
        let Some(attachment) = attached.iter().find(|attachment| attachment.name == name) else {
            return Err(Error::NotConnected {
                container: self.container.id().to_owned(),
                network: if running.is_some() { name.to_owned() } else { format!("the network {name}") },
            });
        };
        let left: Vec<Attachment> = attached.iter().filter(|other| other.name != name).cloned().collect();
        match running {
            Some(running) => self.leave(&running, attachment, left).await?,
            None => self.change(|kept| kept.attachments = Some(left))?,
        }
        if let Some(object) = found
            && kept.state.running().is_some()
        {
            let driver = object.driver.name();
            self.tell_network(object.id, &object.name, driver, NetworkEvent::Disconnect);
        }
        Ok(())
    }

    async fn leave(
        &self,
        running: &Running,
        attachment: &Attachment,
        left: Vec<Attachment>,
    ) -> Result<(), Error> {
        let before = running.endpoints.clone();
        let mut leaving = before.clone();
        let index = before.iter().position(|endpoint| is_of(endpoint, attachment));
        if let Some(index) = index {
            leaving[index].pending = true;
        }
        self.change(|kept| {
            kept.attachments = Some(left);
            if let State::Running(running) = &mut kept.state {
                running.endpoints.clone_from(&leaving);
            }
        })?;
        match index {
            Some(index) => self.drop_endpoint(running, &before, index).await,
            None => Ok(()),
        }
    }

    /// Takes an endpoint away from a container that runs: its link, its addresses, and what was published on it.
    async fn drop_endpoint(&self, running: &Running, before: &[Endpoint], index: usize) -> Result<(), Error> {
        let networks = &self.parts.networks;
        let mut now = before.to_vec();
        let gone = now.remove(index);
        if let Some(first) = now.first_mut() {
            // Wherever they are, they move to who has the way out now.
            first.ports.extend(gone.ports.iter().cloned());
        }
        let placed = match now.is_empty() {
            true if gone.ports.is_empty() => Ok(()),
            true => networks.release(self.container.id()).await,
            false => self.place_ports(&mut now).await,
        };
        let unplugged = networks.unplug(self.container.id(), &gone).await;
        let rerouted = match namespace(running.pid) {
            Ok(netns) => networks.reroute(netns.as_fd(), before, &now).await,
            Err(error) => Err(error),
        };
        if let Err(error) = rerouted {
            // The container has left all the same. What is wrong with its other links, it may have done itself.
            tracing::warn!(container = self.container.id(), %error, "the container has no default route");
        }
        let republished = networks.republish(before, &now).await;
        networks.settle(self.container.id(), now.clone(), Some(&gone));
        let linked = self.open_links(&now).await;
        self.change_regardless(|kept| {
            if let State::Running(running) = &mut kept.state {
                running.endpoints.clone_from(&now);
            }
        });
        self.edit_hosts(&gone, false);
        self.announce().await;
        unplugged.and(republished).and(placed).and(linked)
    }

    /// Holds what has to be given back of a container that an earlier engine started.
    pub(super) fn hold_namespace(&self, running: &Running) {
        let held = namespace(running.pid).and_then(|netns| {
            self.parts.networks.hold(self.container.id(), netns.as_fd(), &running.endpoints)
        });
        if let Err(error) = held {
            tracing::debug!(container = self.container.id(), %error, "its links are left to the kernel");
        }
    }

    /// Takes away what an earlier engine was about to make or to remove when it was killed.
    pub(super) async fn settle_pending(&self) {
        while let State::Running(running) = self.container.state()
            && let Some(index) = running.endpoints.iter().position(|endpoint| endpoint.pending)
        {
            let before = running.endpoints.clone();
            if let Err(error) = self.drop_endpoint(&running, &before, index).await {
                tracing::warn!(container = self.container.id(), %error, "half of a network connection is left");
            }
        }
    }
}

/// Whether one of a container's endpoints has published ports.
pub(super) fn publishes(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().any(|endpoint| !endpoint.ports.is_empty())
}

/// The network namespace of a container, by its init.
pub(super) fn namespace(pid: i32) -> Result<File, Error> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(&path).map_err(|source| Error::Io { operation: format!("open {path}"), source })
}
