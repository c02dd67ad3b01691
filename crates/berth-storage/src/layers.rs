//! Unpacked layers: directories named by chain ID, shared by all images and containers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_archive::marks::Marks;
use berth_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use rustix::fs::{Mode, OFlags};

use crate::database::{digest, failed, integer, now, optional_digest, size};
use crate::leases::Object;
use crate::{Error, Lease, Result, Shared, unsynced};

/// A stored layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Chain ID: the identity of the layer on top of all below it.
    pub chain: Digest,
    /// The layer below.
    pub parent: Option<Digest>,
    /// Digest of the uncompressed tar.
    pub diff: Digest,
    /// Bytes of the files in it.
    pub size: u64,
}

/// What [`Layers::commit`] records of a layer that has been unpacked.
pub type NewLayer = Layer;

/// Access to layers.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A new directory for a layer's files, in the staging area.
    ///
    /// # Errors
    /// [`Error::DiskFull`]; file errors.
    pub fn stage(&self) -> Result<LayerStaging> {
        self.shared.root.check_space(self.shared.keep_free_bytes)?;
        let name = format!("staging/{}", self.shared.root.unique());
        let root = self.shared.root.fd();
        for (path, mode) in [(name.clone(), 0o700), (format!("{name}/fs"), 0o755)] {
            rustix::fs::mkdirat(root, &path, Mode::from_raw_mode(mode))
                .map_err(|error| Error::file("creating", &path, error))?;
        }
        // mkdir takes the umask away.
        rustix::fs::chmodat(
            root,
            format!("{name}/fs"),
            Mode::from_raw_mode(0o755),
            rustix::fs::AtFlags::empty(),
        )
        .map_err(|error| Error::file("changing the mode of", &name, error))?;
        Ok(LayerStaging { shared: Arc::clone(self.shared), name, done: false })
    }

    /// The marks that layers have in their directories.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.shared.way.marks()
    }

    /// Makes everything written to the data root's file system so far durable. Blocks. Only for layers with files that
    /// their tars have not: a check after a power cut would not find these damaged.
    ///
    /// # Errors
    /// File errors.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(self.shared.root.fd())
            .map_err(|error| Error::file("syncing", self.shared.root.path(), error))
    }

    /// Puts a staged layer in its place, held by `lease`. If it is there already, and whole, the staged one is thrown away.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the parent is missing; file and database errors.
    pub fn commit(&self, mut staging: LayerStaging, layer: &NewLayer, lease: &mut Lease) -> Result<()> {
        let place = relative(&layer.chain);
        let _structure = self.shared.structure();
        if let Some(parent) = &layer.parent
            && self.get(parent)?.is_none()
        {
            return Err(Error::not_found("layer", parent));
        }
        lease.add(Object::Layer(layer.chain.clone()));
        let known = self.get(&layer.chain)?.is_some();
        if known && !unsynced::is_damaged(self.shared, &layer.chain)? {
            return Ok(());
        }
        if known {
            self.shared.root.trash(&place)?;
        }
        let root = self.shared.root.fd();
        rustix::fs::renameat(root, &staging.name, root, &place)
            .map_err(|error| Error::file("renaming", &staging.name, error))?;
        staging.done = true;
        self.shared.write(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO layers (chain, parent, diff, size, created) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT DO NOTHING",
                )
                .and_then(|mut statement| {
                    statement.execute(params![
                        layer.chain.to_string(),
                        layer.parent.as_ref().map(ToString::to_string),
                        layer.diff.to_string(),
                        integer(layer.size),
                        now()
                    ])
                })
                .map_err(failed("recording a layer"))?;
            unsynced::mark(transaction, self.shared, "layer", &layer.chain)
        })?;
        Ok(())
    }

    /// The layer with a chain ID.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, chain: &Digest) -> Result<Option<Layer>> {
        let row = self.shared.database.read(|connection| {
            connection
                .prepare_cached("SELECT chain, parent, diff, size FROM layers WHERE chain = ?")
                .and_then(|mut statement| statement.query_row([chain.to_string()], columns).optional())
                .map_err(failed("looking up a layer"))
        })?;
        row.map(layer).transpose()
    }

    /// Whether a layer is stored and whole, with all below it; if so, `lease` holds it from now on.
    ///
    /// # Errors
    /// Database errors.
    pub fn hold(&self, chain: &Digest, lease: &mut Lease) -> Result<bool> {
        let _structure = self.shared.structure();
        let found = self.get(chain)?.is_some() && !unsynced::is_damaged(self.shared, chain)?;
        if found {
            lease.add(Object::Layer(chain.clone()));
        }
        Ok(found)
    }

    /// All layers.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<Layer>> {
        let rows = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT chain, parent, diff, size FROM layers ORDER BY chain")
                .map_err(failed("listing layers"))?;
            let rows = statement.query_map([], columns).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            rows.map_err(failed("listing layers"))
        })?;
        rows.into_iter().map(layer).collect()
    }

    /// The directories of a layer and all below it, the top one first: what overlayfs takes as lower directories.
    ///
    /// # Errors
    /// [`Error::NotFound`]; database errors.
    pub fn paths(&self, chain: &Digest) -> Result<Vec<PathBuf>> {
        let chains = self.shared.database.read(|connection| ancestry(connection, &chain.to_string()))?;
        if chains.is_empty() {
            return Err(Error::not_found("layer", chain));
        }
        chains.iter().map(|text| Ok(directory(self.shared, &digest(text)?))).collect()
    }
}

/// Chain IDs from a layer downwards.
pub(crate) fn ancestry(connection: &Connection, chain: &str) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached(
            "WITH RECURSIVE stack (chain, parent, depth) AS (
                 SELECT chain, parent, 0 FROM layers WHERE chain = ?
                 UNION ALL
                 SELECT layers.chain, layers.parent, depth + 1 FROM layers JOIN stack ON layers.chain = stack.parent
             ) SELECT chain FROM stack ORDER BY depth",
        )
        .map_err(failed("listing the layers of an image"))?;
    let rows = statement.query_map([chain], |row| row.get(0)).and_then(Iterator::collect);
    rows.map_err(failed("listing the layers of an image"))
}

type Columns = (String, Option<String>, String, i64);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn layer((chain, parent, diff, bytes): Columns) -> Result<Layer> {
    Ok(Layer {
        chain: digest(&chain)?,
        parent: optional_digest(parent)?,
        diff: digest(&diff)?,
        size: size(bytes),
    })
}

/// The place of a layer below the data root.
pub(crate) fn relative(chain: &Digest) -> String {
    format!("layers/{}", chain.hex())
}

/// The directory of a layer's files.
pub(crate) fn directory(shared: &Shared, chain: &Digest) -> PathBuf {
    shared.root.path().join(relative(chain)).join("fs")
}

/// A layer that is being unpacked. Dropped before [`Layers::commit`], it is thrown away.
#[derive(Debug)]
pub struct LayerStaging {
    shared: Arc<Shared>,
    name: String,
    done: bool,
}

impl LayerStaging {
    /// The directory that receives the files.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.shared.root.path().join(&self.name).join("fs")
    }

    /// The directory that receives the files, open.
    ///
    /// # Errors
    /// File errors.
    pub fn open(&self) -> Result<OwnedFd> {
        let path = format!("{}/fs", self.name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.shared.root.fd(), &path, flags, Mode::empty())
            .map_err(|error| Error::file("opening", path, error))
    }

    /// The file that receives what a directory cannot return (raw tar headers).
    ///
    /// # Errors
    /// File errors.
    pub fn meta(&self) -> Result<File> {
        let path = self.shared.root.path().join(&self.name).join("meta");
        File::create_new(&path).map_err(|error: io::Error| Error::file("creating", path, error))
    }

    /// What [`LayerStaging::meta`] received, to bring back the tar.
    ///
    /// # Errors
    /// File errors.
    pub fn open_meta(&self) -> Result<File> {
        let path = self.shared.root.path().join(&self.name).join("meta");
        File::open(&path).map_err(|error| Error::file("opening", path, error))
    }
}

impl Drop for LayerStaging {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Err(error) = self.shared.root.trash(&self.name) {
            tracing::warn!(%error, "a half-made layer stays until the next start");
        }
        self.shared.waker.wake();
    }
}

/// The file with what a directory cannot return, of a stored layer.
pub(crate) fn meta(shared: &Shared, chain: &Digest) -> PathBuf {
    Path::new(shared.root.path()).join(relative(chain)).join("meta")
}

impl Layers<'_> {
    /// Opens what was recorded beside a layer's files, to bring back its tar.
    ///
    /// # Errors
    /// File errors.
    pub fn open_meta(&self, chain: &Digest) -> Result<File> {
        let path = meta(self.shared, chain);
        File::open(&path).map_err(|error| Error::file("opening", path, error))
    }
    /// Opens the directory of a layer's files.
    ///
    /// # Errors
    /// File errors.
    pub fn open(&self, chain: &Digest) -> Result<OwnedFd> {
        let path = format!("{}/fs", relative(chain));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.shared.root.fd(), &path, flags, Mode::empty())
            .map_err(|error| Error::file("opening", path, error))
    }
}
