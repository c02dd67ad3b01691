//! Networks of users on the host: made and removed.

use std::sync::Arc;

use berth_network::ipam::Taken;
use ipnet::IpNet;

use super::object::{Driver, Object, Subnet};
use super::room;
use super::setup::network_state;
use super::{Networks, lock};
use crate::Error;
use crate::blocking::blocking;

impl Networks {
    /// What is taken of a subnet of a network of this driver: links of a parent are all on one cable, and may share it.
    pub(super) fn taken(&self, driver: &Driver, net: IpNet) -> Taken {
        let shares = |driver: &Driver| matches!(driver, Driver::Sublinks(_));
        if !shares(driver) {
            return Taken::default();
        }
        let segments = lock(&self.segments);
        let mut others = segments.values().filter(|other| shares(&other.object.driver));
        others.find_map(|other| other.taken(net)).unwrap_or_default()
    }

    /// Subnets that others of such networks may share.
    pub fn shared_subnets(&self) -> Vec<Subnet> {
        let segments = lock(&self.segments);
        let sharing = segments.values().filter(|one| matches!(one.object.driver, Driver::Sublinks(_)));
        sharing.flat_map(|segment| segment.object.subnets.clone()).collect()
    }

    /// Whether a network is to set addresses aside that others have, who share its subnet.
    pub fn wants_others_addresses(&self, object: &Object) -> bool {
        object.subnets.iter().any(|subnet| {
            let taken = self.taken(&object.driver, subnet.net);
            subnet.set_aside().any(|address| taken.has(address))
        })
    }

    /// Makes a network known and its links. What was made is taken back after an error.
    pub async fn create(&self, object: Object) -> Result<(), Error> {
        if object.link().is_none() {
            self.insert(object);
            return Ok(());
        }
        self.ready().await?;
        let Some(segment) = self.insert(object) else { return Ok(()) };
        let (host, made) = (Arc::clone(&self.host), Arc::clone(&segment));
        let (forwarding, firewall) = (Arc::clone(&self.forwarding), Arc::clone(&self.firewall));
        let outcome = blocking(move || {
            made.link.ensure(&host)?;
            made.forwarded().into_iter().try_for_each(|v6| forwarding.note(v6))?;
            firewall.set_drops(forwarding.drops())?;
            firewall.add(&network_state(&made))?;
            made.forwarded().into_iter().try_for_each(|v6| forwarding.enable(&host, v6))
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            let undone = self.remove(&segment.object.id).await;
            if let Err(error) = undone {
                tracing::warn!(network = segment.object.id, %error, "a network was not taken back whole");
            }
        }
        outcome
    }

    /// Takes a network's links away, and forgets it. Nobody may be on it ([`Segment::close`]).
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        if lock(&self.others).remove(id).is_some() {
            return Ok(());
        }
        self.ready().await?;
        let Some(segment) = self.segment(id) else { return Ok(()) };
        let (host, gone, firewall) =
            (Arc::clone(&self.host), Arc::clone(&segment), Arc::clone(&self.firewall));
        let shared = lock(&self.segments)
            .values()
            .any(|other| other.object.id != segment.object.id && other.link.shares(&segment.link));
        blocking(move || {
            firewall.remove(&network_state(&gone))?;
            if !shared {
                firewall.remove(&room::continuations(&host, std::iter::once(&gone)))?;
            }
            match shared {
                true => Ok(()),
                false => Ok(gone.link.remove(&host)?),
            }
        })
        .await?;
        lock(&self.segments).remove(id);
        segment.end();
        Ok(())
    }
}
