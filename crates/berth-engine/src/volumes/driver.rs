//! Volume drivers that are plugins: programs of the host that keep volumes of their own.
//!
//! All calls block: they are made from threads that may wait.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_api::StringMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::LOCAL;
use crate::Error;
use crate::plugin::{Directories, Plugin, PluginError};

/// What plugins of this kind say they implement.
const INTERFACE: &str = "VolumeDriver";
/// How long a plugin that is not there yet is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a plugin may take to make or mount a volume; as in Docker.
const LONG: Duration = Duration::from_secs(120);
/// How long it may take for all else.
const SHORT: Duration = Duration::from_secs(60);

/// The drivers that were asked for anything so far, and what is known of their volumes.
#[derive(Debug, Default)]
pub(crate) struct Drivers {
    directories: Directories,
    /// A cell each: while one driver is looked for, nobody waits who wants another.
    drivers: Mutex<HashMap<String, Arc<OnceCell<Arc<Driver>>>>>,
    volumes: Mutex<HashMap<String, Known>>,
}

/// What is known of a volume that a plugin keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Its driver.
    pub driver: String,
    /// `local` or `global`; empty until its driver has been asked.
    pub scope: String,
    /// Where it is mounted, as its driver said last; empty if it said nothing.
    pub place: PathBuf,
}

/// A driver that has answered.
#[derive(Debug)]
pub(super) struct Driver {
    plugin: Plugin,
    /// Whether its volumes are this host's or everybody's: `local` or `global`.
    pub scope: String,
}

/// A volume as its driver describes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Described {
    /// Its name.
    pub name: String,
    /// Where it is mounted, if it is.
    pub mountpoint: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whatever the driver wants to be shown.
    pub status: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "ID", skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<&'a StringMap>,
}

/// All that an answer may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    mountpoint: String,
    volume: Option<Described>,
    volumes: Option<Vec<Described>>,
    capabilities: Capabilities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: String,
}

/// Waits for an answer on a thread that may.
fn wait<T>(future: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
    match Handle::try_current() {
        Ok(handle) => handle.block_on(future),
        Err(error) => {
            Err(PluginError::Unreachable { method: INTERFACE.to_owned(), reason: error.to_string() })
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drivers {
    /// The driver of a name, which is looked for if it has not answered yet.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Driver>, PluginError> {
        let cell = Arc::clone(lock(&self.drivers).entry(name.to_owned()).or_default());
        if let Some(driver) = cell.get() {
            return Ok(Arc::clone(driver));
        }
        let found = wait(cell.get_or_try_init(|| Driver::activate(&self.directories, name))).cloned();
        if found.is_err() {
            // Names are the users': what is not there must not be remembered.
            lock(&self.drivers).retain(|_, cell| cell.initialized() || Arc::strong_count(cell) > 2);
        }
        found
    }

    /// Those that have answered, by name.
    pub(super) fn active(&self) -> BTreeMap<String, Arc<Driver>> {
        let drivers = lock(&self.drivers);
        drivers.iter().filter_map(|(name, cell)| Some((name.clone(), Arc::clone(cell.get()?)))).collect()
    }

    /// Names of all drivers that have answered, and of the one that needs none.
    pub(crate) fn names(&self) -> Vec<String> {
        std::iter::once(LOCAL.to_owned()).chain(self.active().into_keys()).collect()
    }

    /// What is known of a volume, if a plugin keeps it.
    pub(super) fn known(&self, volume: &str) -> Option<Known> {
        lock(&self.volumes).get(volume).cloned()
    }

    /// The driver of a volume.
    pub(crate) fn of(&self, volume: &str) -> String {
        self.known(volume).map_or_else(|| LOCAL.to_owned(), |known| known.driver)
    }

    /// Notes that a driver keeps a volume, or what it said about it.
    pub(super) fn note(&self, volume: &str, driver: &str, change: impl FnOnce(&mut Known)) {
        let mut volumes = lock(&self.volumes);
        let known = volumes.entry(volume.to_owned()).or_default();
        if known.driver != driver {
            *known = Known { driver: driver.to_owned(), ..Known::default() };
        }
        change(known);
    }

    /// Forgets a volume that is gone.
    pub(super) fn forget(&self, volume: &str) {
        lock(&self.volumes).remove(volume);
    }

    /// A volume that no row tells of, if one of the active drivers has it, with its driver.
    pub(super) fn search(&self, volume: &str) -> Option<(String, Described)> {
        self.active().into_iter().find_map(|(name, driver)| match driver.get(volume) {
            Ok(found) => Some((name, found?)),
            Err(error) => {
                tracing::debug!(driver = name, volume, %error, "a volume driver did not answer");
                None
            }
        })
    }
}

impl Driver {
    async fn activate(directories: &Directories, name: &str) -> Result<Arc<Self>, PluginError> {
        let plugin = Plugin::activate(directories, name, INTERFACE, PATIENCE).await?;
        let answer: Result<Answer, _> =
            plugin.call_for("VolumeDriver.Capabilities", &Question::default(), SHORT).await;
        // A driver need not answer this.
        let scope = answer.map(|answer| answer.capabilities.scope.to_lowercase()).unwrap_or_default();
        let scope = if scope == "global" { scope } else { LOCAL.to_owned() };
        Ok(Arc::new(Self { plugin, scope }))
    }

    fn ask(&self, method: &str, question: &Question<'_>) -> Result<Answer, PluginError> {
        let limit = if matches!(method, "Create" | "Mount") { LONG } else { SHORT };
        // What has nothing to say may say `null`.
        let answer: Option<Answer> =
            wait(self.plugin.call_for(&format!("VolumeDriver.{method}"), question, limit))?;
        Ok(answer.unwrap_or_default())
    }

    /// Makes a volume.
    pub fn create(&self, name: &str, options: Option<&StringMap>) -> Result<(), PluginError> {
        let none = StringMap::new();
        let opts = Some(options.unwrap_or(&none));
        self.ask("Create", &Question { name, opts, ..Question::default() }).map(drop)
    }

    /// A volume; none if the driver has none of that name.
    pub fn get(&self, name: &str) -> Result<Option<Described>, PluginError> {
        match self.ask("Get", &Question { name, ..Question::default() }) {
            Ok(answer) => Ok(answer.volume),
            Err(error @ (PluginError::Unreachable { .. } | PluginError::Unanswered { .. })) => Err(error),
            // There is no telling why it refuses; as in Docker, it has no such volume.
            Err(_) => Ok(None),
        }
    }

    /// All volumes.
    pub fn list(&self) -> Result<Vec<Described>, PluginError> {
        Ok(self.ask("List", &Question::default())?.volumes.unwrap_or_default())
    }

    /// Where a volume is mounted.
    pub fn path(&self, name: &str) -> Result<PathBuf, PluginError> {
        Ok(self.ask("Path", &Question { name, ..Question::default() })?.mountpoint.into())
    }

    /// Mounts a volume for the user `id`, and says where.
    pub fn mount(&self, name: &str, id: &str) -> Result<PathBuf, PluginError> {
        Ok(self.ask("Mount", &Question { name, id, ..Question::default() })?.mountpoint.into())
    }

    /// Undoes [`Driver::mount`].
    pub fn unmount(&self, name: &str, id: &str) -> Result<(), PluginError> {
        self.ask("Unmount", &Question { name, id, ..Question::default() }).map(drop)
    }

    /// Removes a volume.
    pub fn remove(&self, name: &str) -> Result<(), PluginError> {
        self.ask("Remove", &Question { name, ..Question::default() }).map(drop)
    }
}

/// A driver that was needed to make a volume, and is not there.
pub(super) fn not_found(volume: &str, driver: &str, error: &PluginError) -> Error {
    Error::NoSuchVolumeDriver {
        name: volume.to_owned(),
        driver: driver.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_leave_out_anything() {
        for text in ["{}", r#"{"Err":""}"#, r#"{"Volumes":null,"Volume":null}"#] {
            let answer: Option<Answer> = serde_json::from_str(text).unwrap();
            assert!(answer.unwrap().volume.is_none());
        }
        let null: Option<Answer> = serde_json::from_str("null").unwrap();
        assert!(null.is_none());
        let text = r#"{"Volume":{"Name":"a","Mountpoint":"/m","CreatedAt":"2026-01-02T03:04:05Z","Status":{"x":1}}}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        let volume = answer.volume.unwrap();
        assert_eq!((volume.name.as_str(), volume.mountpoint.as_str()), ("a", "/m"));
        assert!(volume.created_at.is_some() && volume.status.is_some());
    }

    #[test]
    fn volumes_belong_to_their_drivers() {
        let drivers = Drivers::default();
        assert_eq!(drivers.of("v"), LOCAL);
        drivers.note("v", "other", |known| known.place = "/m".into());
        assert_eq!(drivers.of("v"), "other");
        drivers.note("v", "third", |_| ());
        assert_eq!(drivers.known("v").unwrap().place, PathBuf::new());
        drivers.forget("v");
        assert_eq!((drivers.of("v").as_str(), drivers.names()), (LOCAL, vec![LOCAL.to_owned()]));
    }
}
