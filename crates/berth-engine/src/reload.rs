//! Settings that change while the engine runs.

use std::sync::{Arc, PoisonError, RwLock};

use berth_api::StringMap;

use crate::event::Event;
use crate::{AddedRuntime, Engine, Settings};

/// The settings as they are now.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Settings>>);

impl Current {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    pub(crate) fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

impl Settings {
    /// These settings with those of `new` that may change while an engine runs. Places, networks and the bounds of
    /// logs stay until the next start.
    fn with_changes(&self, new: &Settings) -> Settings {
        let mut settings = self.clone();
        settings.live_restore = new.live_restore;
        settings.shutdown_timeout = new.shutdown_timeout;
        settings.labels.clone_from(&new.labels);
        settings.debug = new.debug;
        settings.authorization_plugins.clone_from(&new.authorization_plugins);
        settings.registry.clone_from(&new.registry);
        settings.defaults.shm_size = new.defaults.shm_size;
        settings.defaults.ipc_mode.clone_from(&new.defaults.ipc_mode);
        settings.defaults.cgroupns_mode.clone_from(&new.defaults.cgroupns_mode);
        settings.runtimes.clone_from(&new.runtimes);
        settings.defaults.runtime.clone_from(&new.defaults.runtime);
        settings.defaults.stop_timeout = new.defaults.stop_timeout;
        settings
    }

    /// What the event of a reload says, with Docker's names.
    fn attributes(&self) -> StringMap {
        let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
        let seconds = i64::try_from(self.shutdown_timeout.as_secs()).unwrap_or(-1);
        let registry = &self.registry;
        [
            ("debug", self.debug.to_string()),
            ("default-cgroupns-mode", self.defaults.cgroupns_mode.clone()),
            ("default-ipc-mode", self.defaults.ipc_mode.clone()),
            ("default-runtime", self.defaults.runtime.clone()),
            ("default-shm-size", self.defaults.shm_size.to_string()),
            ("default-stop-timeout", self.defaults.stop_timeout.as_secs().to_string()),
            ("features", "map[]".to_owned()),
            ("insecure-registries", list(&registry.insecure)),
            ("labels", list(&self.labels)),
            ("live-restore", self.live_restore.to_string()),
            ("max-concurrent-downloads", registry.concurrent_downloads.to_string()),
            ("max-concurrent-uploads", registry.concurrent_uploads.to_string()),
            ("max-download-attempts", registry.download_attempts.to_string()),
            ("registry-mirrors", list(&registry.mirror_texts())),
            ("runtimes", self.runtime_list()),
            ("shutdown-timeout", seconds.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The runtimes as Docker lists them in that event: each name with the program behind it.
    fn runtime_list(&self) -> String {
        let program = |added: Option<&AddedRuntime>| match added {
            Some(added) if added.path.is_empty() => added.kind.clone(),
            Some(added) => added.path.clone(),
            None => String::new(),
        };
        let list: Vec<_> =
            self.runtimes.iter().map(|(name, added)| format!("{name}:{}", program(added))).collect();
        list.join(" ")
    }
}

impl Engine {
    /// Takes over what may change of `new` while an engine runs, and tells an event. Containers that run keep what
    /// they were started with.
    pub fn reload(&self, new: &Settings) {
        let settings = self.parts.current.get().with_changes(new);
        self.parts.images.configure(settings.registry.client_config(), settings.registry.limits());
        let told = settings.attributes();
        self.parts.current.set(settings);
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = self.parts.installation.clone();
        self.parts.events.publish(Event::DaemonReload { id, name, settings: told });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_and_the_rest_changes() {
        let old = Settings::new("/a", "/b");
        let mut new = Settings::new("/c", "/d");
        new.labels = vec!["x=y".into()];
        new.registry.concurrent_downloads = 9;
        new.live_restore = false;
        new.defaults.shm_size = 7;
        let changed = old.with_changes(&new);
        assert_eq!(changed.data_root, old.data_root);
        let attributes = changed.attributes();
        for (name, value) in [
            ("labels", r#"["x=y"]"#),
            ("max-concurrent-downloads", "9"),
            ("live-restore", "false"),
            ("default-shm-size", "7"),
            ("registry-mirrors", "[]"),
            ("shutdown-timeout", "15"),
        ] {
            assert_eq!(attributes[name], value, "{name}");
        }
    }
}
