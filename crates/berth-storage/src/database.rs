//! The state database.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use berth_oci::Digest;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::root::Root;
use crate::{Error, Result};

/// Steps from each schema version to the next; the version is SQLite's `user_version`.
const MIGRATIONS: [&str; 9] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
    include_str!("schema/0009.sql"),
];
/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u64 = 256;

/// The connection, and the count of what it has committed.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Mutex<Connection>,
    commits: AtomicU64,
}

impl Database {
    pub(crate) fn open(root: &Root) -> Result<Self> {
        let mut connection = connect(root.path())?;
        migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection), commits: AtomicU64::new(0) })
    }

    /// Runs statements that only read.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        work(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` in one transaction; an error rolls it back.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("beginning a transaction"))?;
        let value = work(&transaction)?;
        transaction.commit().map_err(failed("committing"))?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(value)
    }

    /// Whether enough has been committed for a checkpoint.
    pub(crate) fn is_due_for_checkpoint(&self) -> bool {
        self.commits.load(Ordering::Relaxed) >= CHECKPOINT_EVERY
    }

    /// Whether enough has been committed for a checkpoint; true once per occasion.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.is_due_for_checkpoint() && self.commits.swap(0, Ordering::Relaxed) >= CHECKPOINT_EVERY
    }
}

/// Opens a connection with the settings of all connections.
pub(crate) fn connect(root: &Path) -> Result<Connection> {
    let connection = Connection::open(root.join("berth.db")).map_err(failed("opening"))?;
    // NORMAL: a commit reaches the page cache and so survives the process; a power cut loses the last commits at most.
    // The page cache is counted in KiB and small, for the daemon's memory. The automatic checkpoint is a backstop only.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
             PRAGMA cache_size = -256; PRAGMA mmap_size = 0; PRAGMA busy_timeout = 5000;
             PRAGMA wal_autocheckpoint = 8000; PRAGMA temp_store = MEMORY;",
        )
        .map_err(failed("setting up the connection"))?;
    Ok(connection)
}

/// Moves what the log holds into the database file. Blocks on syncs, but not other connections.
pub(crate) fn checkpoint(connection: &Connection) -> Result<()> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .map_err(failed("writing a checkpoint"))
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed("reading the schema version"))?;
    if found > known {
        return Err(Error::SchemaTooNew { found, known });
    }
    for (version, step) in (found + 1..=known).zip(&MIGRATIONS[found as usize..]) {
        let transaction = connection.transaction().map_err(failed("beginning a migration"))?;
        transaction.execute_batch(step).map_err(failed("migrating the schema"))?;
        transaction.pragma_update(None, "user_version", version).map_err(failed("migrating the schema"))?;
        transaction.commit().map_err(failed("committing a migration"))?;
    }
    Ok(())
}

/// Names the operation that a database error belongs to.
pub(crate) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Database { operation, source }
}

/// A digest from a row.
pub(crate) fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| Error::Record { what: "digest", value: text.to_owned() })
}

/// A digest that may be absent.
pub(crate) fn optional_digest(text: Option<String>) -> Result<Option<Digest>> {
    text.map(|text| digest(&text)).transpose()
}

/// A size as SQLite stores it. Sizes are below 2⁶³ by construction.
pub(crate) fn integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A size from a row.
pub(crate) fn size(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

/// The smallest text above all texts that begin with `prefix`, for a range query over an index. Prefixes are ASCII.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// Now, in milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    #[test]
    fn a_newer_schema_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        drop(Storage::open(temp.path().join("root"), Options::default()).unwrap());
        let connection = Connection::open(temp.path().join("root/berth.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = Storage::open(temp.path().join("root"), Options::default()).unwrap_err();
        assert!(matches!(error, Error::SchemaTooNew { found: 99, .. }), "{error}");
    }
}
