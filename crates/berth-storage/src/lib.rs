//! Blobs, layers, snapshots, the metadata database, leases and garbage collection.
//!
//! The data root holds large things as files and directories, named by content or by container, and a row for each in
//! one SQLite database. The order of steps keeps both consistent at any moment:
//!
//! - To add: fill in `staging/`, rename into place, insert the row, and with it a mark that the files may not have reached
//!   the disk (`unsynced.rs`). A crash before the row leaves an orphan; after a power cut, what is marked is checked.
//! - To remove: delete the row, rename into `staging/trash/`, remove the tree in the background. A crash after the row
//!   leaves an orphan.
//! - The next start sweeps orphans. So a row always names what exists, and nothing half-done is ever named.
//!
//! One mutex-held connection writes and reads: a commit takes tens of microseconds, less than a hand-over to a writer
//! thread and back, and SQLite admits one writer anyway. Checkpoints, which sync, run on the housekeeper's own
//! connection.
#![forbid(unsafe_code)]

mod blobs;
mod boot;
mod build_caches;
mod build_steps;
mod containers;
mod contexts;
mod database;
mod draft;
mod driver;
mod error;
mod events;
mod garbage;
mod housekeeper;
mod images;
mod kv;
mod layers;
mod leases;
mod lineage;
mod networks;
mod once;
mod owners;
mod partials;
mod projects;
mod root;
mod scratch;
mod snapshots;
mod sweep;
mod unsynced;
mod usage;
mod volumes;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::ids::Mappings;

pub use blobs::{BlobInfo, BlobKind, BlobWriter, Blobs, CachedLayer, Expected};
pub use boot::boot_id;
pub use build_caches::{BuildCache, BuildCaches, CacheLease, CacheUse};
pub use build_steps::{BuildStep, BuildSteps};
pub use containers::{ContainerRecord, Containers};
pub use contexts::{Contexts, KeptContext};
pub use draft::BlobDraft;
pub use driver::Driver;
pub use error::{Error, Result};
pub use events::Events;
pub use images::{ImageRecord, Images, RemovedImage, Source, Tag};
pub use kv::Kv;
pub use layers::{Layer, LayerStaging, Layers, NewLayer};
pub use leases::{Lease, SnapshotLease};
pub use lineage::Listed;
pub use networks::{NetworkRecord, Networks};
pub use once::read_once;
pub use partials::PartialBlob;
pub use scratch::Scratch;
pub use snapshots::{Snapshot, Snapshots, Wish};
pub use usage::DiskUsage;
pub use volumes::{Pairs, VolumeRecord, VolumeRemoval, Volumes};

use database::Database;
use housekeeper::Housekeeper;
use leases::LeaseTable;
use root::Root;

/// Share of the file system that stays free by default, and the most that this comes to.
const KEPT_SHARE: u64 = 20;
const KEPT_MOST: u64 = 256 << 20;

/// Settings of a data root.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that stay free on the file system: writers stop before they go below. `None` is a twentieth of the file
    /// system, 256 MiB at most.
    pub keep_free_bytes: Option<u64>,
    /// Bytes of compressed layers kept; `None` is a tenth of the file system.
    pub blob_cache_bytes: Option<u64>,
    /// How writable layers are kept; `None` is overlayfs wherever it works.
    pub driver: Option<Driver>,
    /// To whom files of containers and volumes belong on the disk that ask for it, instead of those whom they belong to
    /// inside: where mounts cannot show them so. Containers have whole copies then.
    pub owners: Option<Mappings>,
}

/// An open data root. Dropping the last reference ends the background thread and lets the lock go.
///
/// Calls are synchronous. They are quick (one transaction, one rename) unless their documentation says that they block.
#[derive(Debug)]
pub struct Storage {
    shared: Arc<Shared>,
    housekeeper: Housekeeper,
}

/// What handles of all kinds share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: Root,
    pub(crate) database: Database,
    pub(crate) leases: Arc<LeaseTable>,
    /// Held over a row change together with the rename that belongs to it, so that adding and removing the same thing
    /// never interleave. Never held over a sync, a copy or a tree removal.
    structure: Mutex<()>,
    pub(crate) options: Options,
    driver: driver::Choice,
    pub(crate) way: &'static dyn snapshots::Way,
    /// Holds the lock of the whole data root where the driver's data is in a part of it.
    _outer: Option<Root>,
    pub(crate) keep_free_bytes: u64,
    /// Whether the file system keeps limits of writable layers.
    pub(crate) enforces_quotas: bool,
    pub(crate) waker: housekeeper::Waker,
    /// This boot, for marks of what is not synced.
    pub(crate) boot: String,
    pub(crate) sync_wanted: unsynced::Wanted,
    pub(crate) syncs: unsynced::Syncs,
    pub(crate) caches: build_caches::InUse,
    /// Names of volumes that are being made from others.
    pub(crate) copied_volumes: Mutex<HashSet<String>>,
}

impl Shared {
    pub(crate) fn structure(&self) -> MutexGuard<'_, ()> {
        self.structure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transaction; now and then the housekeeper is told to write the log back.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T>) -> Result<T> {
        let value = self.database.write(work)?;
        if self.database.is_due_for_checkpoint() {
            self.waker.wake();
        }
        Ok(value)
    }
}

impl Storage {
    /// Opens a data root, creating it if need be; locks it, migrates the database and sweeps what no row names.
    ///
    /// # Errors
    /// [`Error::RootInUse`] with the holder's process number; [`Error::RootRefused`]; a newer schema; file errors.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Arc<Self>> {
        let root = Root::open(root.as_ref())?;
        let driver = driver::choose(root.path(), options.driver, options.owners.is_some())?;
        let (root, outer) = match driver.driver {
            Driver::Overlay => (root, None),
            other => (Root::open(&other.directory(root.path()))?, Some(root)),
        };
        if let Some(owners) = &options.owners {
            owners::write(root.path(), owners)?;
        }
        let database = Database::open(&root)?;
        let (waker, wake) = housekeeper::channel();
        let keep_free_bytes = match options.keep_free_bytes {
            Some(bytes) => bytes,
            None => (root.file_system_size()? / KEPT_SHARE).min(KEPT_MOST),
        };
        let enforces_quotas = berth_sys::quota::is_enforced(root.fd())
            .map_err(|error| Error::file("looking for quotas of", root.path(), error))?;
        let shared = Arc::new(Shared {
            root,
            database,
            leases: Arc::default(),
            structure: Mutex::default(),
            options,
            way: snapshots::way(driver.driver),
            driver,
            _outer: outer,
            keep_free_bytes,
            enforces_quotas,
            waker,
            boot: unsynced::boot(),
            sync_wanted: unsynced::Wanted::default(),
            syncs: unsynced::Syncs::default(),
            caches: build_caches::InUse::default(),
            copied_volumes: Mutex::default(),
        });
        sweep::sweep(&shared)?;
        let housekeeper = Housekeeper::start(&shared, wake)?;
        shared.waker.wake();
        Ok(Arc::new(Self { shared, housekeeper }))
    }

    /// Whether a data root has been opened with [`Options::owners`].
    #[must_use]
    pub fn has_owners(root: &Path) -> bool {
        owners::are_noted(&Driver::Copy.directory(root))
    }

    /// Where the driver's part of the data root is, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.shared.root.path()
    }

    /// How writable layers are kept.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.shared.driver.driver
    }

    /// To whom files of containers belong on the disk, if that is not told by mounts.
    #[must_use]
    pub fn owners(&self) -> Option<&Mappings> {
        self.shared.options.owners.as_ref()
    }

    /// Why overlayfs cannot work in the data root, if it was not for the asking that another driver is used.
    #[must_use]
    pub fn overlay_problem(&self) -> Option<&str> {
        self.shared.driver.problem.as_deref()
    }

    /// Compressed layers and documents, by digest.
    #[must_use]
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(&self.shared)
    }

    /// Unpacked layers, by chain ID.
    #[must_use]
    pub fn layers(&self) -> Layers<'_> {
        Layers::new(&self.shared)
    }

    /// Images and their names.
    #[must_use]
    pub fn images(&self) -> Images<'_> {
        Images::new(&self.shared)
    }

    /// Container records.
    #[must_use]
    pub fn containers(&self) -> Containers<'_> {
        Containers::new(&self.shared)
    }

    /// Networks that users made.
    pub fn networks(&self) -> Networks<'_> {
        Networks::new(&self.shared)
    }

    /// Writable layers of containers.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots<'_> {
        Snapshots::new(&self.shared)
    }

    /// Volumes.
    #[must_use]
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes::new(&self.shared)
    }

    /// The last events.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events::new(&self.shared)
    }

    /// Steps of builds that need not be done again.
    #[must_use]
    pub fn build_steps(&self) -> BuildSteps<'_> {
        BuildSteps::new(&self.shared)
    }

    /// Files that clients sent for builds.
    #[must_use]
    pub fn contexts(&self) -> Contexts<'_> {
        Contexts::new(&self.shared)
    }

    /// Directories that steps of builds find again.
    #[must_use]
    pub fn build_caches(&self) -> BuildCaches<'_> {
        BuildCaches::new(&self.shared)
    }

    /// A private, empty directory for what is needed for a while only.
    ///
    /// # Errors
    /// File errors.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(&self.shared)
    }

    /// Small settings.
    #[must_use]
    pub fn kv(&self) -> Kv<'_> {
        Kv::new(&self.shared)
    }

    /// A lease without objects; what is added to it is not collected until it is dropped.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.shared.leases))
    }

    /// A container's own directory (`containers/<id>`), created with mode 0700 if it is missing.
    ///
    /// # Errors
    /// An identifier that is no plain name; file errors.
    pub fn container_dir(&self, id: &str) -> Result<PathBuf> {
        snapshots::container_dir(&self.shared, id)
    }

    /// Removes layers that no image, container or lease needs (such as those of interrupted pulls), and blobs over the
    /// cache's bound. Returns the layers removed.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn collect(&self) -> Result<Vec<berth_oci::Digest>> {
        let removed = garbage::collect(&self.shared)?;
        self.shared.waker.wake();
        Ok(removed.into_iter().map(|(chain, _)| chain).collect())
    }

    /// Bytes on disk, by kind. Blocks: containers' directories are walked.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        usage::disk_usage(&self.shared)
    }

    /// Fails with [`Error::DiskFull`] when less than the reserve is free, also when everything is gone that was removed
    /// before: blocks until then only if it has to.
    ///
    /// # Errors
    /// [`Error::DiskFull`]; file errors.
    pub fn check_space(&self) -> Result<()> {
        match self.shared.root.check_space(self.shared.keep_free_bytes) {
            Err(Error::DiskFull { .. }) => {
                self.settle();
                self.shared.root.check_space(self.shared.keep_free_bytes)
            }
            other => other,
        }
    }

    /// Whether writable layers can be limited: the file system has project quotas, and enforces them.
    #[must_use]
    pub fn enforces_quotas(&self) -> bool {
        self.shared.enforces_quotas
    }

    /// Bytes that stay free on the file system.
    #[must_use]
    pub fn keep_free_bytes(&self) -> u64 {
        self.shared.keep_free_bytes
    }

    /// Free bytes of the file system, whoever may take them.
    ///
    /// # Errors
    /// File errors.
    pub fn free_bytes(&self) -> Result<u64> {
        self.shared.root.free_bytes()
    }

    /// Bytes of the file system.
    ///
    /// # Errors
    /// File errors.
    pub fn file_system_size(&self) -> Result<u64> {
        self.shared.root.file_system_size()
    }

    /// Waits until everything removed so far is gone from the disk. Blocks.
    pub fn settle(&self) {
        self.housekeeper.settle();
    }
}
