//! What can go wrong with stored things.

use std::io;
use std::path::{Path, PathBuf};

use berth_oci::Digest;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be stored, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data root.
    #[error("data root {root:?} is in use by process {pid}", pid = .pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    RootInUse {
        /// The data root.
        root: PathBuf,
        /// The holder, if it has written its number.
        pid: Option<u32>,
    },
    /// The data root belongs to another user, or is no directory: its contents cannot be trusted.
    #[error("data root {root:?} is refused: {problem}")]
    RootRefused {
        /// The data root.
        root: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The database was written by a newer version.
    #[error("state database has schema version {found}, this program knows {known}")]
    SchemaTooNew {
        /// The version found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The database failed.
    #[error("state database: {operation}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// A record in the database cannot be read.
    #[error("state database: {what} {value:?} is malformed")]
    Record {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: String,
    },
    /// A file operation failed.
    #[error("{operation} {path:?}")]
    File {
        /// The operation, in the -ing form.
        operation: &'static str,
        /// The path, relative to the data root.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Writing on would leave less free space than the configured reserve.
    #[error("no space left in the data root: {free} bytes are free, of which {keep} must stay free")]
    DiskFull {
        /// Free bytes at the time.
        free: u64,
        /// Bytes that a setting keeps free.
        keep: u64,
    },
    /// A container of this name exists.
    #[error("name {name:?} is in use by container {by}")]
    NameInUse {
        /// The name.
        name: String,
        /// The identifier of the container that has it.
        by: String,
    },
    /// There is no such object.
    #[error("no such {kind}: {id}")]
    NotFound {
        /// The kind of object.
        kind: &'static str,
        /// Its identifier.
        id: String,
    },
    /// A prefix names several objects.
    #[error("prefix {prefix:?} names several {kind}s")]
    Ambiguous {
        /// The kind of object.
        kind: &'static str,
        /// The prefix.
        prefix: String,
    },
    /// An object exists already.
    #[error("{kind} {id} exists already")]
    Exists {
        /// The kind of object.
        kind: &'static str,
        /// Its identifier.
        id: String,
    },
    /// Someone else holds the object.
    #[error("{kind} {id} is held by {owner}")]
    Held {
        /// The kind of object.
        kind: &'static str,
        /// Its identifier.
        id: String,
        /// Who holds it.
        owner: String,
    },
    /// A blob's content is not what its digest says.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob's length is not what was announced.
    #[error("blob {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What was announced.
        expected: u64,
        /// What came (so far).
        actual: u64,
    },
    /// A storage driver that cannot be had.
    #[error("error initializing graphdriver: {problem}: {name}")]
    Driver {
        /// Docker's name of it.
        name: String,
        /// Why not.
        problem: String,
    },
    /// Copying or comparing trees failed.
    #[error("{operation} {path:?}")]
    Tree {
        /// The operation, in the -ing form.
        operation: &'static str,
        /// The tree.
        path: PathBuf,
        /// What went wrong in it.
        #[source]
        source: berth_archive::Error,
    },
    /// The file system keeps no limits of directories.
    #[error("the data root's file system has no project quotas, or does not enforce them")]
    NoQuotas,
    /// The file system has no reflinks.
    #[error(
        "the file system of {0:?} has no reflinks, by which files share their contents (as btrfs has, and xfs)"
    )]
    NoSharing(PathBuf),
    /// An identifier that cannot be a directory's name.
    #[error("identifier {0:?} is not allowed")]
    BadIdentifier(String),
}

impl Error {
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File { operation, path: path.into(), source: source.into() }
    }

    pub(crate) fn archive(operation: &'static str, path: &Path, source: berth_archive::Error) -> Self {
        match source {
            berth_archive::Error::DiskFull { free, keep } => Self::DiskFull { free, keep },
            source => Self::Tree { operation, path: path.to_owned(), source },
        }
    }

    pub(crate) fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }

    /// Whether the cause is a full disk: the reserve reached, `ENOSPC`, `EDQUOT`, or SQLite's `SQLITE_FULL`.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Tree { source, .. } => source.is_disk_full(),
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }
}
