//! Writable layers of containers, over the layers of an image, kept in one of several ways.
//!
//! [`Snapshots`] is the interface, and does what all ways have in common: rows, limits, leases, order of steps. A [`Way`]
//! says what the directory of a container holds; [`Snapshot`] tells the users of files how to mount and read it, so that
//! none of them needs to know the ways. `tests/snapshots.rs` holds every way to the same rules.

mod copy;
mod overlay;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_archive::marks::Marks;
use berth_archive::overlay::Overlay as View;
use berth_oci::Digest;
use berth_sys::ids::Mappings;
use rusqlite::{OptionalExtension, params};
use rustix::fs::Mode;

use crate::database::{digest, failed};
use crate::leases::Object;
use crate::root::EMPTY_LAYER;
use crate::{Driver, Error, Lease, Result, Shared, SnapshotLease, garbage, layers, projects};

/// One way to keep a container's files, in a directory that is the container's alone.
pub(crate) trait Way: std::fmt::Debug + Sync {
    /// The marks in layers of images.
    fn marks(&self) -> Marks;

    /// Directories that a container's limit counts, with their modes. They are made, empty, before [`Way::fill`].
    fn directories(&self) -> &'static [(&'static str, u32)];

    /// Completes the directory of a container over `lower`, the top one first. What it leaves when it fails is removed by
    /// the caller, also after a crash. Stops before less than `keep_free` bytes are free. With `owners`, which is for whole
    /// copies alone, files belong on the disk to those who are outside who their owners are inside.
    fn fill(
        &self,
        directory: &Path,
        lower: &[PathBuf],
        keep_free: u64,
        owners: Option<&Mappings>,
    ) -> Result<()>;

    /// What a filled directory is to its users.
    ///
    /// # Errors
    /// File errors.
    fn snapshot(&self, directory: &Path, lower: Vec<PathBuf>) -> Result<Snapshot>;

    /// Bytes of the files that the container has written.
    fn written(&self, snapshot: &Snapshot) -> Result<u64>;
}

/// The way of a driver.
pub(crate) fn way(driver: Driver) -> &'static dyn Way {
    match driver {
        Driver::Overlay => &overlay::Overlay,
        Driver::Copy => &copy::Copy,
    }
}

/// What the root of a container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The image's layers, the top one first; never empty. An overlay's lower directories.
    pub lower: Vec<PathBuf>,
    /// The writable directory: what the container changed, in an overlay; without one, all of its files.
    pub upper: PathBuf,
    /// The work directory of an overlay, on the file system of `upper`. Where there is none, `upper` is the root itself.
    pub work: Option<PathBuf>,
    /// Set where the owners in `upper` are those outside of a user namespace. Views show them as inside.
    pub owners: Option<Arc<Mappings>>,
    /// Marks in `upper`, and in the layers.
    marks: (Marks, Marks),
}

impl Snapshot {
    /// What the container has, to be compared with [`Snapshot::image`].
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn written(&self) -> berth_archive::Result<View> {
        Ok(View::open_marked([(&self.upper, self.marks.0)])?.with_owners(self.owners.as_ref()))
    }

    /// What the image has.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn image(&self) -> berth_archive::Result<View> {
        View::open_marked(self.lower.iter().map(|path| (path, self.marks.1)))
    }

    /// What the image's top layer has, to be compared with [`Snapshot::nothing`].
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn top(&self) -> berth_archive::Result<View> {
        View::open_marked(self.lower.iter().take(1).map(|path| (path, self.marks.1)))
    }

    /// No files at all.
    ///
    /// # Errors
    /// None.
    pub fn nothing() -> berth_archive::Result<View> {
        View::open_marked(Vec::<(PathBuf, Marks)>::new())
    }

    /// What the container sees.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn merged(&self) -> berth_archive::Result<View> {
        let lower = self.lower.iter().map(|path| (path, self.marks.1));
        let view = View::open_marked([(&self.upper, self.marks.0)].into_iter().chain(lower))?;
        Ok(view.with_owners(self.owners.as_ref()))
    }
}

/// What is asked of a new snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Bytes that the container can write at most.
    pub limit: Option<u64>,
    /// Whether its files belong to [`crate::Options::owners`], if there are such.
    pub owned: bool,
}

/// Access to snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Snapshots<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes a container's directory over the layer `chain` and all below it. Blocks, for whole copies as long as these take.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotFound`] for the layer; file and database errors.
    pub fn create(&self, id: &str, chain: Option<&Digest>) -> Result<()> {
        self.create_with(id, chain, Wish::default())
    }

    /// As [`Snapshots::create`], with what is asked of it.
    ///
    /// # Errors
    /// As [`Snapshots::create`]; [`Error::NoQuotas`] for a limit on a file system that cannot keep it.
    pub fn create_with(&self, id: &str, chain: Option<&Digest>, wish: Wish) -> Result<()> {
        check(id)?;
        let path = relative(id);
        let root = self.shared.root.fd();
        match rustix::fs::mkdirat(root, &path, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::Exists { kind: "snapshot", id: id.to_owned() });
            }
            other => other.map_err(|error| Error::file("creating", &path, error))?,
        }
        let result = self.fill(id, chain, wish);
        if result.is_err() {
            let abandoned = self.shared.write(|transaction| projects::abandon(transaction, id));
            if let Err(error) = abandoned.and_then(|()| self.shared.root.trash(&path)) {
                tracing::warn!(%error, "a half-made snapshot stays until the next start");
            }
            self.shared.waker.wake();
        }
        result
    }

    fn fill(&self, id: &str, chain: Option<&Digest>, wish: Wish) -> Result<()> {
        let path = relative(id);
        let make = |name: &str, mode: u32| {
            let path = format!("{path}/{name}");
            rustix::fs::mkdirat(self.shared.root.fd(), &path, Mode::from_raw_mode(mode))
                .map_err(|error| Error::file("creating", &path, error))?;
            Ok::<String, Error>(path)
        };
        make("log", 0o700)?;
        let counted = self.shared.way.directories().iter().map(|(name, mode)| make(name, *mode));
        let counted = counted.collect::<Result<Vec<String>>>()?;
        if let Some(bytes) = wish.limit {
            projects::limit(self.shared, id, &counted, bytes)?;
        }
        let mut held = Lease::new(Arc::clone(&self.shared.leases));
        let lower = self.hold(chain, &mut held)?;
        let owners = self.shared.options.owners.as_ref().filter(|_| wish.owned);
        self.shared.way.fill(&self.directory(id), &lower, self.shared.keep_free_bytes, owners)?;
        let _structure = self.shared.structure();
        self.shared.write(|transaction| {
            transaction
                .prepare_cached("INSERT INTO snapshots (id, chain) VALUES (?, ?)")
                .and_then(|mut statement| statement.execute(params![id, chain.map(ToString::to_string)]))
                .map(drop)
                .map_err(failed("recording a snapshot"))
        })
    }

    /// The directories of an image's layers, which stay as long as the lease is held.
    fn hold(&self, chain: Option<&Digest>, held: &mut Lease) -> Result<Vec<PathBuf>> {
        let _structure = self.shared.structure();
        let stack = match chain {
            Some(chain) => {
                self.shared.database.read(|connection| layers::ancestry(connection, &chain.to_string()))?
            }
            None => Vec::new(),
        };
        if let (true, Some(chain)) = (stack.is_empty(), chain) {
            return Err(Error::not_found("layer", chain));
        }
        if let Some(chain) = chain {
            held.add(Object::Layer(chain.clone()));
        }
        self.lower(&stack)
    }

    /// The directories of layers; that of an image without any is empty.
    fn lower(&self, stack: &[String]) -> Result<Vec<PathBuf>> {
        let mut lower = Vec::with_capacity(stack.len().max(1));
        for chain in stack {
            lower.push(layers::directory(self.shared, &digest(chain)?));
        }
        if lower.is_empty() {
            lower.push(self.shared.root.path().join("layers").join(EMPTY_LAYER).join("fs"));
        }
        Ok(lower)
    }

    /// What a container's root is made of.
    ///
    /// # Errors
    /// [`Error::NotFound`]; database errors.
    pub fn mounts(&self, id: &str) -> Result<Snapshot> {
        let stack = self.shared.database.read(|connection| {
            let chain: Option<Option<String>> = connection
                .prepare_cached("SELECT chain FROM snapshots WHERE id = ?")
                .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
                .map_err(failed("looking up a snapshot"))?;
            match chain {
                None => Err(Error::not_found("snapshot", id)),
                Some(None) => Ok(Vec::new()),
                Some(Some(chain)) => layers::ancestry(connection, &chain),
            }
        })?;
        self.shared.way.snapshot(&self.directory(id), self.lower(&stack)?)
    }

    /// Bytes of the files that the container has written. Blocks: the directory is walked.
    ///
    /// # Errors
    /// [`Error::NotFound`]; file errors.
    pub fn size(&self, id: &str) -> Result<u64> {
        self.shared.way.written(&self.mounts(id)?)
    }

    /// Bytes of the log that is kept beside what the container has written; nothing there is 0. Blocks.
    ///
    /// # Errors
    /// File errors.
    pub fn log_size(&self, id: &str) -> Result<u64> {
        check(id)?;
        let path = format!("{}/log", relative(id));
        match self.shared.root.open_directory(&path) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(0),
            directory => berth_archive::tree::content_size(directory?.as_fd())
                .map_err(|error| Error::file("measuring", path, error)),
        }
    }

    /// The right to mount the upper, until the lease is dropped.
    ///
    /// # Errors
    /// [`Error::Held`] while somebody else has it.
    pub fn acquire(&self, id: &str) -> Result<SnapshotLease> {
        self.shared.leases.claim("snapshot", id, "another start of the container").map(SnapshotLease)
    }

    /// Removes a container's directory; nothing there is success. The files go in the background.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn remove(&self, id: &str) -> Result<()> {
        check(id)?;
        let structure = self.shared.structure();
        let last = self.shared.write(|transaction| {
            let orphans = transaction
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = ? AND chain IS NOT NULL
                         AND NOT EXISTS (SELECT 1 FROM images WHERE images.chain = snapshots.chain))",
                )
                .and_then(|mut statement| statement.query_row([id], |row| row.get(0)))
                .map_err(failed("looking up a snapshot"))?;
            transaction
                .prepare_cached("DELETE FROM snapshots WHERE id = ?")
                .and_then(|mut statement| statement.execute([id]))
                .map_err(failed("removing a snapshot"))?;
            projects::abandon(transaction, id)?;
            Ok::<bool, Error>(orphans)
        })?;
        self.shared.root.trash(&relative(id))?;
        drop(structure);
        if last {
            // Its image went before it.
            garbage::collect(self.shared)?;
        }
        self.shared.waker.wake();
        Ok(())
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.shared.root.path().join(relative(id))
    }
}

/// A container's own directory, made if it is missing.
pub(crate) fn container_dir(shared: &Shared, id: &str) -> Result<PathBuf> {
    check(id)?;
    let path = relative(id);
    match rustix::fs::mkdirat(shared.root.fd(), &path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(shared.root.path().join(path)),
        Err(error) => Err(Error::file("creating", path, error)),
    }
}

fn relative(id: &str) -> String {
    format!("containers/{id}")
}

/// An identifier becomes a directory's name: nothing that could be a path is one.
fn check(id: &str) -> Result<()> {
    let plain = !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain { Ok(()) } else { Err(Error::BadIdentifier(id.to_owned())) }
}

impl Snapshots<'_> {
    /// All snapshots.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<String>> {
        garbage::column(self.shared, "SELECT id FROM snapshots ORDER BY id")
    }
}
