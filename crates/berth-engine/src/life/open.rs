//! Opening the engine, and its end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_network::firewall::Backend;
use berth_network::net::NetClient;
use berth_oci::Digest;
use berth_shim::spawner::Spawner;
use berth_storage::{Driver, Options, Storage};

use super::adopt;
use super::owner::{Request, StopRequest, ask};
use super::stop::{stop_signal, stop_timeout};
use crate::apparmor::AppArmor;
use crate::blocking::blocking;
use crate::container::Container;
use crate::engine::Parts;
use crate::network::object::Object;
use crate::network::{Networks, Settled};
use crate::{Engine, Error, Settings};

/// Where the engine keeps its small values.
const TABLE: &str = "engine";
const BOOT: &str = "boot";
/// How long owners get to finish what they do.
const OWNERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long copies get to let go of what they use, once they were cut off.
const COPIES_PATIENCE: Duration = Duration::from_millis(500);

impl Engine {
    /// Opens data root and exec root, takes over the containers that run, and returns when clients can be
    /// answered. Fails if another daemon has the data root.
    pub async fn open(settings: Settings) -> Result<Arc<Engine>, Error> {
        let storage = {
            let settings = settings.clone();
            blocking(move || open_roots(&settings)).await?
        };
        let boot = berth_storage::boot_id()?;
        let rebooted = storage.kv().get(TABLE, BOOT)?.is_some_and(|last| last != boot);
        let settled = Settled::open(Arc::clone(&storage))?;
        let mut program = settings.program.clone();
        program.push(OsString::from("__net"));
        let net = NetClient::new(&settings.exec_root, program);
        let objects = known_networks(&storage)?;
        let seed = seed(&crate::installation::id(&settings.data_root)?);
        let networks = Networks::open(&settings, net, settled, objects, &seed)?;
        let parent = settings.cgroup_parent.trim_end_matches('/');
        let spawner = Spawner::start_in_cgroup(
            &settings.exec_root,
            &settings.data_root,
            Some(format!("{parent}/shims")),
        )?;
        let parts = Arc::new(Parts::new(settings, storage, networks, spawner, AppArmor::prepare().await)?);
        let engine = Arc::new(Engine { parts: Arc::clone(&parts) });
        let keeper = Arc::clone(&parts);
        tokio::spawn(async move {
            keeper.ending.run_until_cancelled(keeper.events.keep(&keeper.storage)).await;
        });
        adopt::all(&parts, rebooted).await?;
        crate::build::sweep(&engine).await;
        parts.storage.kv().put(TABLE, BOOT, &boot)?;
        if parts.networks.is_eager() {
            parts.networks.bridge().await?;
        }
        // Docker's chains are there as soon as its daemon is: administrators add to them.
        let expected = parts.networks.firewall().backend() == Backend::Iptables;
        if expected || !parts.networks.endpoints().is_empty() || parts.networks.has_networks() {
            // The firewall and the net process may have changed while no engine was there.
            let parts = Arc::clone(&parts);
            tokio::spawn(async move {
                match parts.networks.bridge().await {
                    Ok(_) => parts.watch_net_process(),
                    Err(error) => tracing::error!(%error, "the bridge could not be set up again"),
                }
            });
        }
        Ok(engine)
    }

    /// Ends gracefully: containers are stopped unless live restore is on. If the host goes down they are in any case:
    /// nothing could take them over, and they would be killed without a word.
    pub async fn shutdown(&self, host_goes_down: bool) {
        let parts = &self.parts;
        parts.closing.store(true, Ordering::SeqCst);
        let settings = parts.current.get();
        if host_goes_down || !settings.live_restore {
            let all = parts.containers.all();
            let default = settings.defaults.stop_timeout;
            let patience = all.iter().filter_map(|c| stop_timeout(c, default)).max().unwrap_or_default();
            let patience = patience.max(settings.shutdown_timeout);
            let stops = futures_util::future::join_all(all.iter().map(|container| stop(container, default)));
            if tokio::time::timeout(patience, stops).await.is_err() {
                tracing::warn!("some containers did not stop in time");
            }
        }
        parts.ending.cancel();
        parts.owners.close();
        // An owner in the middle of a start leaves a row of intent, which the next engine understands.
        let _ = tokio::time::timeout(OWNERS_PATIENCE, parts.owners.wait()).await;
        // Other archives' clients may stand still for ever.
        let _ = tokio::time::timeout(COPIES_PATIENCE, parts.paced.idle()).await;
        if let Err(error) = parts.events.write(&parts.storage).await {
            tracing::warn!(%error, "the last events could not be written");
        }
        if parts.networks.endpoints().is_empty() {
            let parts = Arc::clone(parts);
            let ended = blocking(move || {
                parts.networks.end();
                Ok(())
            });
            // There is nobody left to tell.
            let _ = ended.await;
        }
    }
}

/// The networks that users made. One that cannot be read must not keep the others from being used.
fn known_networks(storage: &Storage) -> Result<Vec<Object>, Error> {
    let mut found = Vec::new();
    for record in storage.networks().list()? {
        match Object::from_record(&record) {
            Ok(object) => found.push(object),
            Err(error) => tracing::error!(network = record.id, %error, "the network's record is unreadable"),
        }
    }
    Ok(found)
}

/// What makes this host's own IPv6 subnets unique.
fn seed(installation: &str) -> [u8; 5] {
    let digest = Digest::of(installation.as_bytes());
    let mut seed = [0; 5];
    for (byte, pair) in seed.iter_mut().zip(digest.hex().as_bytes().chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    seed
}

async fn stop(container: &Container, default: Duration) {
    if !container.life().borrow().up {
        return;
    }
    let stop = StopRequest {
        signal: stop_signal(container),
        timeout: stop_timeout(container, default),
        restart: false,
        by_client: false,
    };
    if let Err(error) = ask(container, |answer| Request::Stop(stop, answer)).await {
        tracing::debug!(container = container.id(), %error, "not stopped");
    }
}

impl Parts {
    /// The directory of a container's shim.
    pub(crate) fn exec_dir(&self, id: &str) -> PathBuf {
        self.settings.exec_root.join("containers").join(id)
    }

    /// Whether policies are suspended because the engine ends.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Starts the net process again whenever it dies while it holds ports or answers for containers.
    pub(crate) fn watch_net_process(self: &Arc<Self>) {
        if self.net_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let parts = Arc::clone(self);
        tokio::spawn(async move {
            let watched = parts.ending.run_until_cancelled(watch(&parts)).await;
            parts.net_watched.store(false, Ordering::SeqCst);
            if let Some(Err(error)) = watched {
                tracing::error!(%error, "the net process cannot be kept alive");
            }
        });
    }
}

async fn watch(parts: &Parts) -> Result<(), Error> {
    while parts.networks.needs_net_process() {
        parts.networks.net_process_ended().await?;
        if parts.networks.needs_net_process() {
            tracing::warn!("the net process has died and is started again");
            parts.networks.heal().await?;
        }
    }
    Ok(())
}

fn open_roots(settings: &Settings) -> Result<Arc<Storage>, Error> {
    private_directory(&settings.exec_root)?;
    private_directory(&settings.exec_root.join("containers"))?;
    let options = Options {
        keep_free_bytes: settings.keep_free_bytes,
        blob_cache_bytes: settings.blob_cache_bytes,
        driver: settings.storage_driver.as_deref().map(Driver::named).transpose()?,
        owners: crate::remap::owners_on_disk(settings)?,
    };
    let storage = Storage::open(&settings.data_root, options)?;
    if let Some(problem) = crate::information::cgroup_problem() {
        tracing::warn!("{problem}");
    }
    if let Some(problem) = storage.overlay_problem().filter(|_| storage.owners().is_none()) {
        let root = settings.data_root.display();
        tracing::warn!(%root, problem, "overlayfs cannot work in the data root: each container copies its image");
    }
    if settings.storage_limit.is_some_and(|bytes| bytes != 0) && !storage.enforces_quotas() {
        return Err(Error::InvalidParameter(
            "Storage option overlay2.size not supported. Filesystem does not support Project Quota".into(),
        ));
    }
    Ok(storage)
}

/// A directory that only its owner can enter (R20).
fn private_directory(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |operation: &str| {
        let operation = format!("{operation} {}", path.display());
        move |source| Error::Io { operation, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed("close"))
}
