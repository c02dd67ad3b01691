//! Directories that outlive the builds whose steps write into them.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_oci::Digest;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use rustix::fs::Mode;

use crate::database::{failed, now};
use crate::{Error, Result, Shared};

/// Where they are in the data root.
pub(crate) const DIRECTORY: &str = "build-cache";
/// How often someone who waits looks whether that is still wanted.
const PAUSE: Duration = Duration::from_millis(100);

/// How a directory is used together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// By several at once.
    Shared,
    /// By one after the other: whoever comes later waits.
    Alone,
    /// By nobody else: where it is in use, another one takes its place.
    Own,
}

/// What is known of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildCache {
    /// What tells it apart from others.
    pub key: String,
    /// What it is for.
    pub description: String,
    /// Bytes on disk.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// How often it was used.
    pub uses: u64,
    /// Whether a step uses it now.
    pub held: bool,
}

/// Who uses which directory.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    table: Mutex<HashMap<String, Holders>>,
    changed: Condvar,
}

/// Those who use one directory. It is in the table as long as there is one.
#[derive(Debug, Default)]
struct Holders {
    count: usize,
    alone: bool,
    /// The only one of them fills a new directory, which is not on record yet.
    making: bool,
}

impl InUse {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Holders>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(table: &mut HashMap<String, Holders>, key: &str, alone: bool) -> bool {
        let holders = table.entry(key.to_owned()).or_default();
        if holders.alone || holders.making || alone && holders.count > 0 {
            return false;
        }
        holders.count += 1;
        holders.alone = alone;
        true
    }

    fn leave(&self, key: &str) {
        let mut table = self.lock();
        if let Some(holders) = table.get_mut(key) {
            holders.count -= 1;
            if holders.count == 0 {
                table.remove(key);
            }
        }
        self.changed.notify_all();
    }
}

/// A directory in use. Its user lets go of it by dropping this.
#[derive(Debug)]
pub struct CacheLease {
    shared: Arc<Shared>,
    key: String,
    directory: String,
    new: bool,
}

impl CacheLease {
    /// Opens it.
    ///
    /// # Errors
    /// File errors.
    pub fn open(&self) -> Result<OwnedFd> {
        self.shared.root.open_directory(&self.directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.shared.root.path().join(&self.directory)
    }

    /// Whether it was made just now: it is empty, and forgotten unless [`CacheLease::keep`] is called.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Puts a new directory on record, now that it holds what it is to begin with.
    ///
    /// # Errors
    /// Database errors.
    pub fn keep(&mut self, description: &str) -> Result<()> {
        let name = self.directory.rsplit('/').next().unwrap_or_default();
        self.shared.write(|transaction| {
            transaction
                .execute(
                    "INSERT INTO build_caches (key, directory, description, created, used, uses)
                     VALUES (?1, ?2, ?3, ?4, ?4, 1)",
                    params![self.key, name, description, now()],
                )
                .map(drop)
                .map_err(failed("recording a cache of builds"))
        })?;
        self.new = false;
        if let Some(holders) = self.shared.caches.lock().get_mut(&self.key) {
            holders.making = false;
        }
        self.shared.caches.changed.notify_all();
        Ok(())
    }
}

impl Drop for CacheLease {
    fn drop(&mut self) {
        // Left behind, it goes with the next start.
        if self.new
            && let Err(error) = self.shared.root.trash(&self.directory)
        {
            tracing::warn!(%error, "a directory stays until the next start");
        }
        self.shared.caches.leave(&self.key);
    }
}

/// Access to the directories.
#[derive(Clone, Copy, Debug)]
pub struct BuildCaches<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> BuildCaches<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The directory that `key` stands for, made if it is not there. Waits where that is needed, as long as `go_on` says
    /// so; none if it does not any more. Blocks.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn acquire(
        &self,
        key: &Digest,
        way: CacheUse,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<CacheLease>> {
        let mut table = self.shared.caches.lock();
        let mut number = 0_u32;
        let key = loop {
            let wanted = match number {
                0 => key.hex().to_owned(),
                number => format!("{}-{number}", key.hex()),
            };
            if InUse::take(&mut table, &wanted, way != CacheUse::Shared) {
                break wanted;
            }
            if way == CacheUse::Own {
                number += 1;
                continue;
            }
            if !go_on() {
                return Ok(None);
            }
            let waited = self.shared.caches.changed.wait_timeout(table, PAUSE);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        // Two that share a new one must not both make it.
        let made = self.find_or_make(&key);
        if let (Ok((_, true)), Some(holders)) = (&made, table.get_mut(&key)) {
            holders.making = true;
        }
        drop(table);
        match made {
            Ok((directory, new)) => {
                Ok(Some(CacheLease { shared: Arc::clone(self.shared), key, directory, new }))
            }
            Err(error) => {
                self.shared.caches.leave(&key);
                Err(error)
            }
        }
    }

    /// Its directory, and whether that is new.
    fn find_or_make(&self, key: &str) -> Result<(String, bool)> {
        let found: Option<String> = self.shared.write(|transaction| {
            transaction
                .query_row(
                    "UPDATE build_caches SET used = ?2, uses = uses + 1 WHERE key = ?1 RETURNING directory",
                    params![key, now()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(failed("looking up a cache of builds"))
        })?;
        if let Some(name) = found {
            return Ok((format!("{DIRECTORY}/{name}"), false));
        }
        let directory = format!("{DIRECTORY}/{}", self.shared.root.unique());
        rustix::fs::mkdirat(self.shared.root.fd(), &directory, Mode::RWXU)
            .map_err(|error| Error::file("creating", &directory, error))?;
        Ok((directory, true))
    }

    /// All that are on record, those first that were not used for longest. Blocks: each is walked.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<BuildCache>> {
        type Row = (String, String, String, i64, i64, i64);
        let rows: Vec<Row> = self.shared.database.read(|connection| {
            let query =
                "SELECT key, directory, description, created, used, uses FROM build_caches ORDER BY used";
            let mut statement =
                connection.prepare_cached(query).map_err(failed("listing caches of builds"))?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            });
            rows.and_then(Iterator::collect).map_err(failed("listing caches of builds"))
        })?;
        let time = |number| Timestamp::from_millisecond(number).unwrap_or_default();
        let caches = rows.into_iter().map(|(key, directory, description, created, used, uses)| BuildCache {
            held: self.shared.caches.lock().contains_key(&key),
            size: self.size(&directory),
            key,
            description,
            created: time(created),
            used: time(used),
            uses: u64::try_from(uses).unwrap_or_default(),
        });
        Ok(caches.collect())
    }

    /// What cannot be measured, since it goes at this moment, takes nothing.
    fn size(&self, directory: &str) -> u64 {
        let opened = self.shared.root.open_directory(&format!("{DIRECTORY}/{directory}"));
        opened
            .ok()
            .and_then(|opened| berth_archive::tree::disk_usage(opened.as_fd()).ok())
            .unwrap_or_default()
    }

    /// Removes one, unless a step uses it; whether it is gone by this.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn evict(&self, key: &str) -> Result<bool> {
        let table = self.shared.caches.lock();
        if table.contains_key(key) {
            return Ok(false);
        }
        let directory: Option<String> = self.shared.write(|transaction| {
            transaction
                .query_row("DELETE FROM build_caches WHERE key = ? RETURNING directory", [key], |row| {
                    row.get(0)
                })
                .optional()
                .map_err(failed("removing a cache of builds"))
        })?;
        let Some(name) = directory else { return Ok(false) };
        self.shared.root.trash(&format!("{DIRECTORY}/{name}"))?;
        drop(table);
        self.shared.waker.wake();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    fn acquire(storage: &Storage, way: CacheUse) -> Option<CacheLease> {
        let key = Digest::of(b"key");
        let mut lease = storage.build_caches().acquire(&key, way, || false).unwrap()?;
        if lease.is_new() {
            lease.keep("a cache").unwrap();
        }
        Some(lease)
    }

    #[test]
    fn uses_are_kept_apart_as_asked_for() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path().join("data"), Options::default()).unwrap();
        let one = acquire(&storage, CacheUse::Shared).unwrap();
        let two = acquire(&storage, CacheUse::Shared).unwrap();
        assert_eq!(one.path(), two.path());
        assert!(acquire(&storage, CacheUse::Alone).is_none());
        let own = acquire(&storage, CacheUse::Own).unwrap();
        assert_ne!(own.path(), one.path());
        assert!(!storage.build_caches().evict(&one.key).unwrap(), "it is in use");
        let path = one.path();
        std::fs::write(path.join("file"), "x").unwrap();
        drop((one, two, own));
        let alone = acquire(&storage, CacheUse::Alone).unwrap();
        assert!(alone.path() == path && path.join("file").exists());
        assert!(acquire(&storage, CacheUse::Shared).is_none());
        drop(alone);
        let listed = storage.build_caches().list().unwrap();
        assert_eq!(listed.len(), 2);
        let kept = listed.iter().find(|cache| cache.uses == 3).unwrap();
        assert!(kept.size > 0 && !kept.held && kept.description == "a cache");
        assert!(storage.build_caches().evict(&kept.key).unwrap() && !path.exists());
    }

    #[test]
    fn what_was_not_kept_goes() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("data");
        let storage = Storage::open(&root, Options::default()).unwrap();
        let lease =
            storage.build_caches().acquire(&Digest::of(b"k"), CacheUse::Alone, || true).unwrap().unwrap();
        let path = lease.path();
        drop(lease);
        assert!(!path.exists() && storage.build_caches().list().unwrap().is_empty());
        drop(storage);
        std::fs::create_dir(root.join("build-cache/left")).unwrap();
        let _storage = Storage::open(&root, Options::default()).unwrap();
        assert!(!root.join("build-cache/left").exists());
    }
}
