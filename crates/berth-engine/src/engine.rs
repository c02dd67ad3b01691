//! The engine: its parts, and how they are put together and taken apart.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use berth_api::version::ApiVersion;
use berth_image::Images;
use berth_shim::spawner::Spawner;
use berth_storage::Storage;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apparmor::AppArmor;
use crate::build::lent::Lent;
use crate::build::under_way::UnderWay;
use crate::container::Index;
use crate::event::Bus;
use crate::life::exec::Execs;
use crate::network::Networks;
use crate::paced::Paced;
use crate::reload::Current;
use crate::usage::ceiling::Ceiling;
use crate::volumes::Volumes;
use crate::{Error, Settings};

/// The composition of storage, images, network, shims and runtime. One per daemon.
pub struct Engine {
    pub(crate) parts: Arc<Parts>,
}

/// What every operation and every container's owner works with.
pub(crate) struct Parts {
    /// What the engine was opened with. What may change since is in `current`.
    pub settings: Settings,
    /// The settings as they are now.
    pub current: Current,
    /// Whether and how AppArmor confines containers.
    pub apparmor: AppArmor,
    /// The ID of this installation.
    pub installation: String,
    /// The data root.
    pub storage: Arc<Storage>,
    /// Images on it.
    pub images: Images,
    /// Volumes, as far as they are more than rows.
    pub volumes: Volumes,
    /// The host's side of networks.
    pub networks: Networks,
    /// The process that forks shims.
    pub spawner: Spawner,
    /// All containers.
    pub containers: Index,
    /// What containers of builds get for their runs.
    pub lent: Lent,
    /// Steps of builds that are being made.
    pub steps: UnderWay,
    /// What keeps the cache of builds small.
    pub ceiling: Ceiling,
    /// All exec instances.
    pub execs: Execs,
    /// Threads that serve at the pace of clients.
    pub paced: Paced,
    /// What happens.
    pub events: Bus,
    /// Cancelled when the engine ends: owners leave their containers as they are.
    pub ending: CancellationToken,
    /// The containers' owners.
    pub owners: TaskTracker,
    /// When the engine was opened.
    pub since: Timestamp,
    /// Clients that offer something to their builds.
    pub sessions: Arc<berth_session::Sessions>,
    /// Processors of the host.
    pub cpus: usize,
    /// The engine is ending: policies start nothing again.
    pub closing: AtomicBool,
    /// A removal of all unused containers is under way.
    pub pruning: AtomicBool,
    /// The same of all unused images.
    pub pruning_images: AtomicBool,
    /// The same of all unused volumes.
    pub pruning_volumes: AtomicBool,
    /// The same of all unused networks.
    pub pruning_networks: AtomicBool,
    /// Held while the hosts file of a container that runs is changed.
    pub hosts_edits: Mutex<()>,
    /// A task waits for the end of the net process.
    pub net_watched: AtomicBool,
}

impl Parts {
    /// Puts the parts together.
    pub(crate) fn new(
        settings: Settings,
        storage: Arc<Storage>,
        networks: Networks,
        spawner: Spawner,
        apparmor: AppArmor,
    ) -> Result<Parts, Error> {
        Ok(Parts {
            images: images(&settings, &storage),
            volumes: Volumes::new(&storage),
            current: Current::new(settings.clone()),
            installation: crate::installation::id(&settings.data_root)?,
            settings,
            apparmor,
            networks,
            spawner,
            containers: Index::default(),
            lent: Lent::default(),
            steps: UnderWay::default(),
            ceiling: Ceiling::default(),
            execs: Execs::default(),
            paced: Paced::default(),
            events: Bus::restore(&storage)?,
            ending: CancellationToken::new(),
            owners: TaskTracker::new(),
            since: Timestamp::now(),
            sessions: Arc::default(),
            cpus: crate::system::cpus(),
            closing: AtomicBool::new(false),
            pruning: AtomicBool::new(false),
            pruning_images: AtomicBool::new(false),
            pruning_volumes: AtomicBool::new(false),
            pruning_networks: AtomicBool::new(false),
            hosts_edits: Mutex::new(()),
            net_watched: AtomicBool::new(false),
            storage,
        })
    }
}

fn images(settings: &Settings, storage: &Arc<Storage>) -> Images {
    let config = settings.registry.client_config();
    let images = Images::new(Arc::clone(storage), berth_registry::Client::new(config.clone()));
    images.configure(config, settings.registry.limits());
    images
}

impl Engine {
    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.parts.current.get()
    }

    /// The oldest version of the API that clients may speak.
    pub fn oldest_api(&self) -> ApiVersion {
        self.parts.settings.oldest_api
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Owners hold the parts; without this they would wait for requests for ever.
        self.parts.ending.cancel();
    }
}
