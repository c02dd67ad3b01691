//! Networks made and removed.

use berth_api::filter::Filters;
use berth_api::network::{NetworkCreate, NetworkCreated, NetworksPruned};
use berth_network::subnets::AddressPool;
use ipnet::IpNet;
use jiff::Timestamp;

use super::list::is_used;
use crate::event::{Event, NetworkEvent};
use crate::life::prune::{Turn, is_labelled, until};
use crate::list::filter::check_known;
use crate::network::object::{Driver, Object, PREDEFINED, Subnet, is_predefined};
use crate::network::request::{Wanted, free};
use crate::{Engine, Error};

const KNOWN_PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

fn check_free(name: &str, named: impl Fn(&str) -> Option<Object>) -> Result<(), Error> {
    match named(name) {
        Some(_) => Err(Error::Conflict(format!("network with name {name} already exists"))),
        None => Ok(()),
    }
}

impl Engine {
    /// Makes a network.
    pub async fn network_create(&self, mut request: NetworkCreate) -> Result<NetworkCreated, Error> {
        let parts = &self.parts;
        self.add_default_options(&mut request);
        let named = |name: &str| parts.all_networks().into_iter().find(|object| object.name == name);
        let mut wanted = Wanted::parse(request, named)?;
        check_free(wanted.name(), named)?;
        wanted.look_at_plugin(&parts.networks.plugins).await?;
        // The default bridge's subnet is settled first: it must not be given away.
        parts.networks.settle_default().await?;
        let object = match wanted.addresses_by().map(str::to_owned) {
            None => {
                self.make(wanted.name().to_owned(), |pools, taken, shared| {
                    wanted.settle(pools, taken, shared)
                })
                .await?
            }
            Some(plugin) => self.make_by_plugin(wanted, &plugin).await?,
        };
        if let Driver::Plugin(driver) = &object.driver
            && let Err(error) = parts.networks.plugins.create_network(&driver.name, &object).await
        {
            let undone = self.forget(&object).await;
            return Err(match undone {
                Ok(()) => error,
                Err(undo) => Error::Unwound { first: Box::new(error), undo: vec![undo.to_string()] },
            });
        }
        self.tell(&object, NetworkEvent::Create);
        Ok(NetworkCreated { id: object.id, warning: String::new() })
    }

    /// Makes a network of subnets that a plugin gives: it is asked while others may make theirs.
    async fn make_by_plugin(&self, wanted: Wanted, plugin: &str) -> Result<Object, Error> {
        let networks = &self.parts.networks;
        let object = wanted.settle_by_plugin(&networks.plugins, plugin, &networks.subnets().1).await?;
        let made = self.make(object.name.clone(), |_, taken, _| {
            // What its links lead to, whoever makes them knows.
            if !matches!(object.driver, Driver::Plugin(_)) {
                object.subnets.iter().try_for_each(|subnet| free(subnet.net, taken).map(drop))?;
            }
            Ok(object.clone())
        });
        let made = made.await;
        if made.is_err() {
            networks.plugins.release_pools(&object).await;
        }
        made
    }

    /// Makes a network on the host: its row first, so that a crash leaves nothing that no row tells of. `settle` gets the
    /// pools, the subnets that are taken, and those of them that can be shared.
    async fn make(
        &self,
        name: String,
        settle: impl FnOnce(&[AddressPool], &[IpNet], &[Subnet]) -> Result<Object, Error>,
    ) -> Result<Object, Error> {
        let parts = &self.parts;
        let _alone = parts.networks.changes.lock().await;
        check_free(&name, |name| parts.all_networks().into_iter().find(|object| object.name == name))?;
        let (pools, taken) = parts.networks.subnets();
        let mut object = settle(pools, &taken, &parts.networks.shared_subnets())?;
        if parts.networks.wants_others_addresses(&object) {
            return Err(Error::Forbidden("Address already in use".into()));
        }
        if let Driver::Sublinks(options) = &mut object.driver {
            let exists = |name: &str| parts.networks.link_exists(name);
            options.settle(&object.id, &parts.networks.objects(), exists)?;
        }
        self.check_link(&object)?;
        if let Driver::Bridge(options) = &mut object.driver {
            // Before its row: whatever becomes of the network, such a link stays.
            options.found = parts.networks.foreign_bridge(&options.link_name(&object.id))?;
        }
        parts.storage.networks().insert(&object.record()?)?;
        if let Err(error) = parts.networks.create(object.clone()).await {
            return Err(match parts.storage.networks().remove(&object.id) {
                Ok(()) => error,
                Err(undo) => Error::Unwound { first: Box::new(error), undo: vec![undo.to_string()] },
            });
        }
        Ok(object)
    }

    /// Options that an administrator wants for all networks of the driver that do not give them themselves.
    fn add_default_options(&self, request: &mut NetworkCreate) {
        let driver = match request.driver.as_str() {
            "" | "default" => "bridge",
            driver => driver,
        };
        let from_other = request.config_from.as_ref().is_some_and(|from| !from.network.is_empty());
        let Some(defaults) = self.parts.settings.networks.options.get(driver).filter(|_| !from_other) else {
            return;
        };
        let given = [
            ("com.docker.network.enable_ipv4", request.enable_ipv4.is_some()),
            ("com.docker.network.enable_ipv6", request.enable_ipv6.is_some()),
        ];
        let options = request.options.get_or_insert_default();
        for (key, value) in defaults {
            if !given.contains(&(key.as_str(), true)) {
                options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// A link that is another network's cannot be this one's too. One that an administrator made is taken as it is.
    fn check_link(&self, object: &Object) -> Result<(), Error> {
        let Some(link) = object.bridge_link() else { return Ok(()) };
        let conflict = |other: &str| {
            Err(Error::Forbidden(format!(
                "cannot create network {} ({link}): conflicts with network {other} ({link}): networks have same \
                 bridge name",
                object.id
            )))
        };
        let default = self.parts.networks.default_bridge().and_then(|bridge| bridge.bridge_link());
        if default.as_ref() == Some(&link) {
            return conflict(&super::network_id("bridge"));
        }
        let same = |other: &Object| other.bridge_link().as_ref() == Some(&link);
        match self.parts.networks.objects().iter().find(|other| same(other)) {
            Some(other) => conflict(&other.id),
            None => Ok(()),
        }
    }

    /// Removes a network that nobody is on: its row last, so that a crash leaves a network that can be removed again.
    pub async fn network_remove(&self, name: &str) -> Result<(), Error> {
        let object = self.parts.find_network(name)?;
        if is_predefined(&object.name) {
            return Err(Error::Forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                object.name
            )));
        }
        let _alone = self.parts.networks.changes.lock().await;
        self.delete(&object).await
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        let parts = &self.parts;
        let failed = |why: String| Error::Forbidden(format!("error while removing network: {why}"));
        if object.config_only {
            let uses = |other: &Object| other.config_from.as_deref() == Some(object.name.as_str());
            if parts.networks.objects().iter().any(uses) {
                return Err(failed(format!("configuration network \"{}\" is in use", object.name)));
            }
        }
        let segment = parts.networks.segment(&object.id);
        if let Some(Err(members)) = segment.as_ref().map(|segment| segment.close()) {
            let name =
                |id: &String| parts.containers.find(id).map_or_else(|_| id.clone(), |found| found.name());
            let shown = members.iter().map(|id| {
                let endpoint = super::endpoint_id(&object.name, id);
                format!("name:{:?} id:{:?}", name(id), &endpoint[..12])
            });
            let shown: Vec<_> = shown.collect();
            return Err(failed(format!(
                "network {} has active endpoints ({})",
                object.name,
                shown.join(", ")
            )));
        }
        let mut gone = Ok(());
        if let Driver::Plugin(driver) = &object.driver {
            gone = parts.networks.plugins.delete_network(&driver.name, object).await;
        }
        if gone.is_ok() {
            gone = self.forget(object).await;
        }
        if gone.is_err()
            && let Some(segment) = segment
        {
            segment.reopen();
        }
        gone?;
        self.tell(object, NetworkEvent::Destroy);
        Ok(())
    }

    /// Takes a network away from the host, and its row.
    async fn forget(&self, object: &Object) -> Result<(), Error> {
        let parts = &self.parts;
        parts.networks.remove(&object.id).await?;
        parts.networks.plugins.release_pools(object).await;
        Ok(parts.storage.networks().remove(&object.id)?)
    }

    /// Removes the networks that users made, nobody is on, and the filters let go.
    pub async fn network_prune(&self, filters: Filters) -> Result<NetworksPruned, Error> {
        check_known(&filters, &KNOWN_PRUNE_FILTERS)?;
        let until = until(&filters, Timestamp::now())?;
        let _turn = Turn::take(&self.parts.pruning_networks)?;
        let _alone = self.parts.networks.changes.lock().await;
        let mut deleted = Vec::new();
        for object in self.parts.all_networks() {
            let goes = !PREDEFINED.contains(&object.name.as_str())
                && until.is_none_or(|until| object.created <= until)
                && is_labelled(&filters, Some(&object.labels))
                && !is_used(&self.parts, &object);
            if !goes {
                continue;
            }
            match self.delete(&object).await {
                Ok(()) => deleted.push(object.name),
                Err(error) => tracing::warn!(network = object.name, %error, "prune left a network"),
            }
        }
        self.parts.events.publish(Event::NetworksPruned);
        Ok(NetworksPruned { networks_deleted: Some(deleted).filter(|deleted| !deleted.is_empty()) })
    }

    fn tell(&self, object: &Object, event: NetworkEvent) {
        self.parts.events.publish(Event::Network {
            id: object.id.clone(),
            name: object.name.clone(),
            driver: object.driver.name().to_owned(),
            container: None,
            event,
        });
    }
}
