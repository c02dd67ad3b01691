//! What the default bridge is settled to be: when the engine starts, and once more when its link is to be made, which may be
//! much later. Others may have taken the subnet meanwhile. It is kept, since containers get addresses of its subnets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use berth_network::Endpoint;
use berth_storage::Storage;
use ipnet::Ipv4Net;

use super::default::{self, Known, Remembered};
use super::object::{Object, Subnet};
use super::{Networks, bridge_id, lock};
use crate::Error;
use crate::blocking::blocking;

/// Where the engine keeps its small values.
const TABLE: &str = "engine";
const BRIDGE: &str = "default-bridge";
/// The default bridge's gateway, in data roots that are older than its subnets.
const GATEWAY: &str = "gateway";

/// What is settled, and kept.
pub struct Settled {
    storage: Arc<Storage>,
    /// The default bridge as it was settled last, perhaps by an earlier engine; containers may still be on it.
    kept: Mutex<Remembered>,
    /// `None` while nothing is settled by this engine, and inside if there is none.
    object: Mutex<Option<Option<Arc<Object>>>>,
    /// Held while it is being settled.
    turn: tokio::sync::Mutex<()>,
}

impl Settled {
    /// Reads what an earlier engine settled.
    pub fn open(storage: Arc<Storage>) -> Result<Settled, Error> {
        let kept = Mutex::new(remembered(&storage)?);
        Ok(Settled { storage, kept, object: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    fn keep(&self, object: &Object) -> Result<(), Error> {
        let now = Remembered::of(object);
        if *lock(&self.kept) == now {
            return Ok(());
        }
        let text = serde_json::to_string(&now)
            .map_err(|source| Error::Record { what: "the default bridge".into(), source })?;
        self.storage.kv().put(TABLE, BRIDGE, &text)?;
        *lock(&self.kept) = now;
        Ok(())
    }
}

fn remembered(storage: &Storage) -> Result<Remembered, Error> {
    if let Some(text) = storage.kv().get(TABLE, BRIDGE)? {
        return Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(%error, "the record of the default bridge is unreadable");
            Remembered::default()
        }));
    }
    let gateway = storage.kv().get(TABLE, GATEWAY)?.and_then(|text| text.parse::<Ipv4Net>().ok());
    let subnet = |gateway: Ipv4Net| Subnet {
        net: gateway.trunc().into(),
        range: None,
        gateway: Some(gateway.addr().into()),
        auxiliary: BTreeMap::new(),
        pool: String::new(),
    };
    Ok(Remembered { subnets: gateway.map(subnet).into_iter().collect(), ..Remembered::default() })
}

impl Networks {
    /// What the default bridge is: `None` while that is not settled, and if there is none.
    pub fn default_bridge(&self) -> Option<Arc<Object>> {
        lock(&self.settled.object).clone().flatten()
    }

    /// Settles what the default bridge is, once. All containers that run have to be known by then: they keep their
    /// addresses.
    pub async fn settle_default(&self) -> Result<Option<Arc<Object>>, Error> {
        let _turn = self.settled.turn.lock().await;
        let settled = lock(&self.settled.object).clone();
        match settled {
            Some(settled) => Ok(settled),
            None => self.settle_now().await,
        }
    }

    /// The same for its link, which is about to be made: what was settled holds if that is there.
    pub(super) async fn settle_for_link(&self) -> Result<Option<Arc<Object>>, Error> {
        let settled = self.settle_default().await?;
        let link = settled.as_ref().and_then(|object| object.bridge_link());
        if link.is_none_or(|link| self.host.link_exists(&link)) {
            return Ok(settled);
        }
        let _turn = self.settled.turn.lock().await;
        self.settle_now().await
    }

    async fn settle_now(&self) -> Result<Option<Arc<Object>>, Error> {
        let id = bridge_id();
        let on_it = |endpoint: &Endpoint| endpoint.network.is_empty() || endpoint.network == id;
        let in_use = lock(&self.endpoints).values().flatten().any(on_it);
        let mut found = None;
        if !self.settings.disabled || in_use {
            let known = Known {
                addresses: self.host.addresses(&self.settings.name)?,
                remembered: lock(&self.settled.kept).clone(),
                in_use,
                others: self.subnets().1,
                pools_chosen: !self.common.pools.is_empty() && !self.settings.lasting,
            };
            let (settings, pools) = (self.settings.clone(), self.pools.clone());
            let object = blocking(move || default::object(&settings, &known, &pools)).await?;
            self.settled.keep(&object)?;
            found = Some(Arc::new(object));
        }
        *lock(&self.settled.object) = Some(found.clone());
        Ok(found)
    }
}
