//! What a power cut may have taken.
//!
//! The files of a layer are renamed into place and named by its row while they are still on their way to the disk, and a mark
//! in the same transaction says so. The housekeeper syncs the file system and takes the marks away; only who tells somebody
//! that an image will stay waits for it ([`Images::sync`]). A killed daemon loses nothing by it, as the kernel has the files.
//! After a power cut the marks are of another boot: what they name is read and compared with its digest, and what is damaged
//! goes, with the images that need it. So a power cut loses the last images at most, and no row ever names what is not there.
//!
//! The contents of files are what can be missing: a layer that is found in its place has all its names, owners and modes,
//! since file systems with a journal do not reorder changes of metadata.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_archive::meta;
use berth_oci::Digest;
use berth_oci::digest::Hasher;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::database::{digest, failed};
use crate::layers::Layers;
use crate::{Error, Images, Result, Shared, blobs};

/// The boot of what did not pass: no boot is called so.
const DAMAGED: &str = "damaged";
/// Stands for the boot of what a file system could not write.
const UNKNOWN: &str = "unknown";
/// Shortest time between two syncs: what comes meanwhile is synced together.
const PAUSE: Duration = Duration::from_millis(500);
/// As [`PAUSE`], in times of what the last one took, so that a slow disk is left for others for the most part.
const REST: u32 = 4;

/// This boot. Where it cannot be told no two are the same, and all is checked.
pub(crate) fn boot() -> String {
    crate::boot_id().unwrap_or_else(|_| format!("unknown-{}", crate::database::now()))
}

/// Marks a layer or document, whose row comes in the same transaction.
pub(crate) fn mark(
    transaction: &Transaction<'_>,
    shared: &Shared,
    kind: &str,
    object: &Digest,
) -> Result<()> {
    // A new number: a sync that goes on does not cover what comes now.
    transaction
        .prepare_cached("INSERT OR REPLACE INTO unsynced (kind, digest, boot) VALUES (?, ?, ?)")
        .and_then(|mut statement| statement.execute(params![kind, object.to_string(), shared.boot]))
        .map(drop)
        .map_err(failed("marking what is not synced"))
}

/// Whether a stored layer, or one below it, is damaged.
pub(crate) fn is_damaged(shared: &Shared, chain: &Digest) -> Result<bool> {
    shared.database.read(|connection| {
        let any = "SELECT EXISTS (SELECT 1 FROM unsynced WHERE kind = 'layer' AND boot = 'damaged')";
        let any: bool = connection
            .prepare_cached(any)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failed("looking for damaged layers"))?;
        if !any {
            return Ok(false);
        }
        let stack = crate::layers::ancestry(connection, &chain.to_string())?;
        let mut statement = connection
            .prepare_cached("SELECT 1 FROM unsynced WHERE kind = 'layer' AND digest = ? AND boot = 'damaged'")
            .map_err(failed("looking for damaged layers"))?;
        for layer in stack {
            if statement.exists([layer]).map_err(failed("looking for damaged layers"))? {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// When the housekeeper syncs.
#[derive(Debug)]
pub(crate) struct Turn {
    wanted: bool,
    earliest: Instant,
}

impl Turn {
    /// One that has something to do if an earlier daemon of this boot left marks.
    pub(crate) fn new() -> Self {
        Self { wanted: true, earliest: Instant::now() }
    }

    /// How long the housekeeper may sleep.
    pub(crate) fn sleep(&self) -> Option<Duration> {
        self.wanted.then(|| self.earliest.saturating_duration_since(Instant::now()))
    }

    /// Syncs if there is something to sync and the last time is long enough ago.
    pub(crate) fn work(&mut self, shared: &Shared) {
        self.wanted |= shared.sync_wanted.take();
        let begun = Instant::now();
        if !self.wanted || begun < self.earliest {
            return;
        }
        self.wanted = false;
        match shared.syncs.one(|| sync(shared)) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::warn!(%error, "the last images are checked at the next start"),
        }
        self.earliest = Instant::now() + PAUSE.max(begun.elapsed() * REST);
    }
}

/// Asks for a sync, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Wanted(AtomicBool);

impl Wanted {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// The syncs of a data root, one after the other: all who ask while one goes on share the next.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    progress: Mutex<Progress>,
    over: Condvar,
}

/// Syncs are counted from one.
#[derive(Debug, Default)]
struct Progress {
    running: bool,
    /// How many have begun.
    begun: u64,
    /// The last one that came to a good end.
    done: u64,
}

impl Syncs {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `sync`, or waits for somebody else's that begins after this call. What it gives is whether there was something to
    /// sync, as far as that is known. Blocks; nothing is locked meanwhile.
    fn one(&self, sync: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let mut progress = self.progress();
        // One that goes on may have looked already before what is to be synced came.
        let wanted = progress.begun + 1;
        while progress.running {
            progress = self.over.wait(progress).unwrap_or_else(PoisonError::into_inner);
            if progress.done >= wanted {
                return Ok(true);
            }
        }
        progress.running = true;
        progress.begun += 1;
        let own = progress.begun;
        drop(progress);
        let running = Running(self);
        let outcome = sync();
        if outcome.is_ok() {
            self.progress().done = own;
        }
        drop(running);
        outcome
    }
}

/// A sync that goes on. It is over with this.
struct Running<'a>(&'a Syncs);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.progress().running = false;
        self.0.over.notify_all();
    }
}

impl Images<'_> {
    /// Waits until an image is on the disk with its layers, and with every row that was written before: its names are what they
    /// are after a power cut, too. Nothing that is there already is waited for, and nobody else is held up. Blocks.
    ///
    /// # Errors
    /// Database errors; what the file system could not write.
    pub fn sync(&self, id: &Digest) -> Result<()> {
        let shared = self.shared();
        if is_marked(shared, id, &shared.boot)? {
            shared.syncs.one(|| sync(shared))?;
        } else {
            // It may have got a name since it was synced.
            sync_rows(shared)?;
        }
        // Somebody else's sync may have been the one that failed.
        if is_marked(shared, id, UNKNOWN)? {
            let reason =
                std::io::Error::other("the file system could not write it; build it again with --no-cache");
            return Err(Error::file("syncing", id.to_string(), reason));
        }
        Ok(())
    }
}

/// Has the disk take all that was committed.
fn sync_rows(shared: &Shared) -> Result<()> {
    let log = shared.root.path().join("berth.db-wal");
    let failed = |error: io::Error| Error::file("syncing", &log, error);
    match File::open(&log) {
        Ok(file) => file.sync_data().map_err(failed),
        // All of it is in the database itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Whether something of an image has a mark of this kind.
fn is_marked(shared: &Shared, image: &Digest, boot: &str) -> Result<bool> {
    shared.database.read(|connection| {
        let mut statement = connection
            .prepare_cached(
                "WITH RECURSIVE stack (chain) AS (
                     SELECT chain FROM images WHERE id = ?1
                     UNION ALL
                     SELECT layers.parent FROM layers JOIN stack ON layers.chain = stack.chain
                 ), parts (kind, digest) AS (
                     SELECT 'layer', chain FROM stack
                     UNION ALL SELECT 'document', ?1
                     UNION ALL SELECT 'document', manifest FROM image_sources WHERE image = ?1
                 )
                 SELECT 1 FROM unsynced JOIN parts USING (kind, digest) WHERE boot = ?2",
            )
            .map_err(failed("looking for what is not synced"))?;
        statement.exists([image.to_string().as_str(), boot]).map_err(failed("looking for what is not synced"))
    })
}

/// Syncs all that is marked by now, if anything is. Blocks.
fn sync(shared: &Shared) -> Result<bool> {
    let last: Option<i64> = shared.database.read(|connection| {
        connection
            .query_row("SELECT max(sequence) FROM unsynced WHERE boot = ?", [&shared.boot], |row| row.get(0))
            .map_err(failed("looking for what is not synced"))
    })?;
    let Some(last) = last else { return Ok(false) };
    let change = |statement: &str| {
        shared.write(|transaction| {
            let marked = params![last, shared.boot];
            transaction.execute(statement, marked).map_err(failed("marking what is synced"))
        })
    };
    if let Err(error) = rustix::fs::syncfs(shared.root.fd()) {
        // The kernel tells of a failed write once: the files have to be read to know.
        change(&format!("UPDATE unsynced SET boot = '{UNKNOWN}' WHERE sequence <= ?1 AND boot = ?2"))?;
        return Err(Error::file("syncing", shared.root.path(), error));
    }
    change("DELETE FROM unsynced WHERE sequence <= ?1 AND boot = ?2").map(|_| true)
}

/// Checks what an earlier boot left marked. Blocks: reads it all, which is what came in the last moments of that boot.
pub(crate) fn verify(shared: &Arc<Shared>) -> Result<()> {
    let suspects: Vec<(i64, String, String)> = shared.database.read(|connection| {
        let mut statement = connection
            .prepare("SELECT sequence, kind, digest FROM unsynced WHERE boot NOT IN (?, ?) ORDER BY sequence")
            .map_err(failed("looking for what is not synced"))?;
        let rows =
            statement.query_map([&shared.boot, DAMAGED], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.and_then(Iterator::collect).map_err(failed("looking for what is not synced"))
    })?;
    if suspects.is_empty() {
        return Ok(());
    }
    for (sequence, kind, text) in suspects {
        let object = digest(&text)?;
        let whole = match kind.as_str() {
            "layer" => layer_is_whole(shared, &object)?,
            _ => document_is_whole(shared, &object),
        };
        if whole {
            // Read from the disk: nothing is left to be synced.
            shared.write(|transaction| {
                transaction
                    .execute("DELETE FROM unsynced WHERE sequence = ?", [sequence])
                    .map_err(failed("marking what is synced"))
            })?;
            continue;
        }
        tracing::warn!(
            kind,
            digest = text,
            "it came right before a power cut and is damaged: images that need it are removed"
        );
        shared.write(|transaction| {
            transaction
                .execute("UPDATE unsynced SET boot = ? WHERE sequence = ?", params![DAMAGED, sequence])
                .map_err(failed("marking what is damaged"))
        })?;
    }
    remove_images(shared)
}

fn layer_is_whole(shared: &Arc<Shared>, chain: &Digest) -> Result<bool> {
    let layers = Layers::new(shared);
    // It may have been removed since.
    let Some(layer) = layers.get(chain)? else { return Ok(true) };
    let Ok((mut meta, directory)) = layers.open_meta(chain).and_then(|meta| Ok((meta, layers.open(chain)?)))
    else {
        return Ok(false);
    };
    let spill = shared.root.path().join("staging");
    let mut hasher = Hasher::new(layer.diff.algorithm());
    let rebuilt = meta::rebuild(&mut meta, directory.as_fd(), &spill, &mut hasher);
    Ok(rebuilt.is_ok() && hasher.finish() == layer.diff)
}

fn document_is_whole(shared: &Shared, document: &Digest) -> bool {
    let mut hasher = Hasher::new(document.algorithm());
    let read =
        File::open(blobs::path(shared, document)).and_then(|mut file| io::copy(&mut file, &mut hasher));
    match read {
        Ok(_) => hasher.finish() == *document,
        // No row, no file: it was removed.
        Err(error) => error.kind() == io::ErrorKind::NotFound && !has_row(shared, document).unwrap_or(true),
    }
}

fn has_row(shared: &Shared, document: &Digest) -> Result<bool> {
    shared.database.read(|connection| {
        let found = connection
            .query_row("SELECT 1 FROM blobs WHERE digest = ?", [document.to_string()], |_| Ok(()))
            .optional();
        Ok(found.map_err(failed("looking up a blob"))?.is_some())
    })
}

/// Removes the images that need what is damaged; what only containers still need stays marked, for the next pull to mend.
fn remove_images(shared: &Arc<Shared>) -> Result<()> {
    let broken = crate::garbage::column(
        shared,
        "WITH RECURSIVE damaged (chain) AS (
             SELECT digest FROM unsynced WHERE kind = 'layer' AND boot = 'damaged'
             UNION
             SELECT layers.chain FROM layers JOIN damaged ON layers.parent = damaged.chain
         ), lost (digest) AS (
             SELECT digest FROM unsynced WHERE kind = 'document' AND boot = 'damaged'
         )
         SELECT id FROM images WHERE chain IN (SELECT chain FROM damaged) OR id IN (SELECT digest FROM lost)
             OR EXISTS (SELECT 1 FROM image_sources WHERE image = images.id
                 AND (manifest IN (SELECT digest FROM lost) OR index_digest IN (SELECT digest FROM lost)))",
    )?;
    for id in broken {
        let removed = Images::new(shared).remove(&digest(&id)?)?;
        tracing::warn!(image = id, names = ?removed.names, "removed: a power cut took a part of it. Pull or build it again");
    }
    // Marks of what is gone with them.
    shared.write(|transaction| {
        transaction
            .execute(
                "DELETE FROM unsynced WHERE kind = 'layer' AND digest NOT IN (SELECT chain FROM layers)
                     OR kind = 'document' AND digest NOT IN (SELECT digest FROM blobs)",
                [],
            )
            .map(drop)
            .map_err(failed("forgetting what is gone"))
    })
}

#[cfg(test)]
mod tests;
