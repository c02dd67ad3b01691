//! Networks whose links, and addresses, plugins keep: the protocols of Docker's remote drivers.
//!
//! What a container needs before it runs, a plugin is asked for with patience. What has ended, it is told once: nobody
//! waits for one that is away, and what it did not hear, it hears when the same endpoint is made again, or its network
//! removed.

mod addresses;
mod driver;
mod endpoint;

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lock;
use crate::Error;
use crate::blocking::blocking;
use crate::plugin::{Directories, Plugin, PluginError};

/// How long a plugin that is not there yet is waited for by a container on its network.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a plugin may take over what it is only told.
const TELLING: Duration = Duration::from_secs(5);

/// What a plugin is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It makes links.
    Network,
    /// It gives out subnets and addresses.
    Addresses,
}

impl Kind {
    /// Docker's name of the interface.
    fn interface(self) -> &'static str {
        match self {
            Kind::Network => "NetworkDriver",
            Kind::Addresses => "IpamDriver",
        }
    }
}

/// What a plugin says about itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    /// Of networks: whether they are this host's or a cluster's, `local` or `global`.
    scope: String,
    /// Of networks: that it wants to be asked which gateways it needs.
    gw_alloc_checker: bool,
    /// Of addresses: that it has to know whose they are to be.
    #[serde(rename = "RequiresMACAddress")]
    needs_hardware_address: bool,
}

/// The plugins that networks use.
#[derive(Debug, Default)]
pub struct Plugins {
    directories: Directories,
    /// Those that have answered. Where one is, is looked up for each call: it may have moved.
    known: Mutex<HashMap<(Kind, String), Capabilities>>,
}

impl From<PluginError> for Error {
    fn from(error: PluginError) -> Error {
        match error {
            PluginError::NotFound(name) => Error::NotFound(format!(
                "could not find plugin {name} in v1 plugin registry: plugin not found"
            )),
            error => Error::NetworkPlugin(error),
        }
    }
}

impl Plugins {
    /// Names of those that have made networks since the engine was opened.
    pub fn names(&self) -> BTreeSet<String> {
        let known = lock(&self.known);
        known.keys().filter(|(kind, _)| *kind == Kind::Network).map(|(_, name)| name.clone()).collect()
    }

    /// Sees whether a plugin of this kind is there. One that may come later is waited for as long as `patience`.
    async fn find(
        &self,
        kind: Kind,
        name: &str,
        patience: Duration,
    ) -> Result<(Plugin, Capabilities), Error> {
        let key = (kind, name.to_owned());
        let known = lock(&self.known).get(&key).cloned();
        if let Some(capabilities) = known
            && let Ok(plugin) = self.locate(name).await
        {
            return Ok((plugin, capabilities));
        }
        let plugin = Plugin::activate(&self.directories, name, kind.interface(), patience).await?;
        let method = format!("{}.GetCapabilities", kind.interface());
        let answer: Result<Option<Capabilities>, PluginError> = plugin.call(&method, &json!({})).await;
        let capabilities = match (kind, answer) {
            // Who keeps addresses need not answer this.
            (Kind::Addresses, Err(PluginError::Call { .. } | PluginError::NoMethod { .. })) => {
                Capabilities::default()
            }
            (_, answer) => answer?.unwrap_or_default(),
        };
        let scope = capabilities.scope.as_str();
        if kind == Kind::Network && !matches!(scope, "local" | "global") {
            let reason = format!("invalid capability: expecting 'local' or 'global', got {scope}");
            return Err(PluginError::Call { method, reason }.into());
        }
        lock(&self.known).insert(key, capabilities.clone());
        Ok((plugin, capabilities))
    }

    async fn locate(&self, name: &str) -> Result<Plugin, Error> {
        let (directories, name) = (self.directories.clone(), name.to_owned());
        blocking(move || Ok(Plugin::locate(&directories, &name)?)).await
    }

    /// Asks a plugin for something.
    async fn ask<Q: Serialize, A: DeserializeOwned + Default>(
        &self,
        (kind, name): (Kind, &str),
        method: &str,
        question: &Q,
    ) -> Result<A, Error> {
        let (plugin, _) = self.find(kind, name, PATIENCE).await?;
        // What has nothing to say may say `null`.
        let answer: Option<A> = plugin.call(&format!("{}.{method}", kind.interface()), question).await?;
        Ok(answer.unwrap_or_default())
    }

    /// Tells a plugin what has ended.
    async fn tell<Q: Serialize>(
        &self,
        (kind, name): (Kind, &str),
        method: &str,
        news: &Q,
    ) -> Result<(), Error> {
        let plugin = self.locate(name).await?;
        let method = format!("{}.{method}", kind.interface());
        let IgnoredAny = plugin.call_once(&method, news, TELLING).await?;
        Ok(())
    }
}

/// An answer that cannot be what was asked for.
fn lie(name: &str, what: String) -> Error {
    Error::Network(berth_network::Error::Plugin { name: name.to_owned(), what })
}

/// Whether a plugin that failed was there: it said so itself.
fn is_there(error: &Error) -> bool {
    matches!(error, Error::NetworkPlugin(PluginError::Call { .. } | PluginError::NoMethod { .. }))
}
