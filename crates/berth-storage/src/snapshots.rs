//! Writable layers of containers: an upper and a work directory each, over the layers of an image.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_oci::Digest;
use rusqlite::{OptionalExtension, params};
use rustix::fs::Mode;

use crate::database::{digest, failed};
use crate::root::EMPTY_LAYER;
use crate::{Error, Result, Shared, SnapshotLease, garbage, layers, projects};

/// What an overlay of a container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Lower directories, the top one first; never empty.
    pub lower: Vec<PathBuf>,
    /// The writable directory.
    pub upper: PathBuf,
    /// The work directory, on the same file system.
    pub work: PathBuf,
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

    /// Makes a container's directory with an empty upper over the layer `chain` and all below it.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotFound`] for the layer; file and database errors.
    pub fn create(&self, id: &str, chain: Option<&Digest>) -> Result<()> {
        self.create_limited(id, chain, None)
    }

    /// As [`Snapshots::create`]; the container can write so many bytes at most, if a limit is given.
    ///
    /// # Errors
    /// As [`Snapshots::create`]; [`Error::NoQuotas`] for a limit on a file system that cannot keep it.
    pub fn create_limited(&self, id: &str, chain: Option<&Digest>, limit: Option<u64>) -> Result<()> {
        check(id)?;
        let path = relative(id);
        let root = self.shared.root.fd();
        match rustix::fs::mkdirat(root, &path, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::Exists { kind: "snapshot", id: id.to_owned() });
            }
            other => other.map_err(|error| Error::file("creating", &path, error))?,
        }
        let result = self.fill(id, chain, limit);
        if result.is_err() {
            let abandoned = self.shared.write(|transaction| projects::abandon(transaction, id));
            if let Err(error) = abandoned.and_then(|()| self.shared.root.trash(&path)) {
                tracing::warn!(%error, "a half-made snapshot stays until the next start");
            }
            self.shared.waker.wake();
        }
        result
    }

    fn fill(&self, id: &str, chain: Option<&Digest>, limit: Option<u64>) -> Result<()> {
        let path = relative(id);
        for (name, mode) in [("upper", 0o755), ("work", 0o700), ("log", 0o700)] {
            let path = format!("{path}/{name}");
            rustix::fs::mkdirat(self.shared.root.fd(), &path, Mode::from_raw_mode(mode))
                .map_err(|error| Error::file("creating", path, error))?;
        }
        self.like_image(&self.directory(id).join("upper"), chain)?;
        if let Some(bytes) = limit {
            // Both: files are moved from the one to the other, which the kernel refuses between projects.
            let directories = [format!("{path}/upper"), format!("{path}/work")];
            projects::limit(self.shared, id, &directories, bytes)?;
        }
        let _structure = self.shared.structure();
        self.shared.write(|transaction| {
            let missing = match chain {
                Some(chain) => layers::ancestry(transaction, &chain.to_string())?.is_empty(),
                None => false,
            };
            if let (true, Some(chain)) = (missing, chain) {
                return Err(Error::not_found("layer", chain));
            }
            transaction
                .prepare_cached("INSERT INTO snapshots (id, chain) VALUES (?, ?)")
                .and_then(|mut statement| statement.execute(params![id, chain.map(ToString::to_string)]))
                .map(drop)
                .map_err(failed("recording a snapshot"))
        })
    }

    /// The root directory of a container is its upper: it has the mode and owner of the image's.
    fn like_image(&self, upper: &Path, chain: Option<&Digest>) -> Result<()> {
        let failed = |error| Error::file("preparing", upper, error);
        let (mode, owner) = match chain {
            Some(chain) => match std::fs::metadata(layers::directory(self.shared, chain)) {
                Ok(metadata) => (metadata.mode() & 0o7777, Some((metadata.uid(), metadata.gid()))),
                Err(_) => return Err(Error::not_found("layer", chain)),
            },
            None => (0o755, None),
        };
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (0, 0)) {
            std::os::unix::fs::chown(upper, Some(uid), Some(gid)).map_err(failed)?;
        }
        std::fs::set_permissions(upper, std::fs::Permissions::from_mode(mode)).map_err(failed)
    }

    /// The directories to mount.
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
        let mut lower = Vec::with_capacity(stack.len().max(1));
        for chain in &stack {
            lower.push(layers::directory(self.shared, &digest(chain)?));
        }
        if lower.is_empty() {
            lower.push(self.shared.root.path().join("layers").join(EMPTY_LAYER).join("fs"));
        }
        let directory = self.directory(id);
        Ok(Snapshot { lower, upper: directory.join("upper"), work: directory.join("work") })
    }

    /// Bytes of the files that the container has written. Blocks: the directory is walked.
    ///
    /// # Errors
    /// [`Error::NotFound`]; file errors.
    pub fn size(&self, id: &str) -> Result<u64> {
        check(id)?;
        let path = format!("{}/upper", relative(id));
        let upper = self.shared.root.open_directory(&path)?;
        berth_archive::tree::content_size(upper.as_fd())
            .map_err(|error| Error::file("measuring", path, error))
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
