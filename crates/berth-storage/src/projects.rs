//! Limits of writable layers and of volumes, through project quotas where the data root's file system has them.
//!
//! The numbers of projects are rows of the settings: the number is the key, the container's ID the value. A container
//! that is removed leaves its row without a value; the number is free once nothing on the disk belongs to it, so that
//! files in the trash never count for another container. A crash between any two steps leaves a row that the next start
//! finds to belong to no container.

use std::os::fd::AsFd;
use std::sync::Arc;

use berth_sys::quota;
use rusqlite::{Transaction, params};

use crate::database::failed;
use crate::{Error, Result, Shared, garbage};

/// The collection of settings that holds the numbers.
const COLLECTION: &str = "projects";
/// The first number: far above those that administrators and other engines choose.
const FIRST: u32 = 1 << 20;
/// Numbers that are tried before it is given up.
const ATTEMPTS: u32 = 1 << 16;

/// Limits what can be written into `directories`, which are empty, to `bytes` in all. `id` is whose they are: a
/// container's, or a volume's after `volume:`.
pub(crate) fn limit(shared: &Arc<Shared>, id: &str, directories: &[String], bytes: u64) -> Result<()> {
    if !shared.enforces_quotas {
        return Err(Error::NoQuotas);
    }
    let root = shared.root.fd();
    let is_unused = |project| quota::usage(root, project).is_ok_and(quota::Usage::is_unused);
    let project = shared.write(|transaction| allocate(transaction, id, is_unused))?;
    let failed = |error| Error::file("limiting", directories.first().map_or(id, String::as_str), error);
    quota::limit(root, project, bytes).map_err(failed)?;
    for directory in directories {
        let directory = shared.root.open_directory(directory)?;
        quota::assign(directory.as_fd(), project).map_err(failed)?;
    }
    Ok(())
}

/// Takes the smallest number that no row has and that `is_unused` by anyone else.
fn allocate(transaction: &Transaction<'_>, id: &str, is_unused: impl Fn(u32) -> bool) -> Result<u32> {
    let mut statement = transaction
        .prepare_cached("SELECT CAST(key AS INTEGER) FROM settings WHERE collection = ? ORDER BY 1")
        .map_err(failed("listing projects"))?;
    let taken: Vec<u32> = statement
        .query_map([COLLECTION], |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(failed("listing projects"))?;
    let project = (FIRST..FIRST + ATTEMPTS)
        .filter(|project| taken.binary_search(project).is_err())
        .find(|project| is_unused(*project))
        .ok_or(Error::NoQuotas)?;
    transaction
        .execute(
            "INSERT INTO settings (collection, key, value) VALUES (?, ?, ?)",
            params![COLLECTION, project.to_string(), id],
        )
        .map_err(failed("recording a project"))?;
    Ok(project)
}

/// Parts a container that is removed from its number, in the transaction that removes its row.
pub(crate) fn abandon(transaction: &Transaction<'_>, id: &str) -> Result<()> {
    transaction
        .prepare_cached("UPDATE settings SET value = '' WHERE collection = ? AND value = ?")
        .and_then(|mut statement| statement.execute([COLLECTION, id]))
        .map(drop)
        .map_err(failed("abandoning a project"))
}

/// Gives what an owner of another name has.
pub(crate) fn rename(transaction: &Transaction<'_>, old: &str, new: &str) -> Result<()> {
    transaction
        .execute("UPDATE settings SET value = ? WHERE collection = ? AND value = ?", [new, COLLECTION, old])
        .map(drop)
        .map_err(failed("renaming a project"))
}

/// Parts numbers from containers that do not exist.
pub(crate) fn abandon_unknown(shared: &Shared) -> Result<()> {
    shared.write(|transaction| {
        transaction
            .execute(
                "UPDATE settings SET value = '' WHERE collection = ? AND value NOT IN
                     (SELECT id FROM snapshots UNION SELECT 'volume:' || name FROM volumes)",
                [COLLECTION],
            )
            .map(drop)
            .map_err(failed("abandoning projects"))
    })
}

/// Frees abandoned numbers that nothing on the disk belongs to any more.
pub(crate) fn release(shared: &Arc<Shared>) -> Result<()> {
    let abandoned =
        garbage::column(shared, "SELECT key FROM settings WHERE collection = 'projects' AND value = ''")?;
    for key in abandoned {
        let Ok(project) = key.parse::<u32>() else { continue };
        if !is_vacant(shared, project) {
            continue;
        }
        shared.write(|transaction| {
            transaction
                .execute("DELETE FROM settings WHERE collection = ? AND key = ?", [COLLECTION, &key])
                .map(drop)
                .map_err(failed("freeing a project"))
        })?;
    }
    Ok(())
}

/// Takes the limit of a project away; false as long as something belongs to it.
fn is_vacant(shared: &Shared, project: u32) -> bool {
    if !shared.enforces_quotas {
        // Whoever turns quotas off and on again counts anew.
        return true;
    }
    let root = shared.root.fd();
    let used = quota::usage(root, project);
    let empty = used.is_ok_and(|used| used.bytes == 0 && used.inodes == 0);
    empty && quota::limit(root, project, 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    fn open(temp: &tempfile::TempDir) -> Arc<Storage> {
        Storage::open(temp.path().join("root"), Options::default()).unwrap()
    }

    fn rows(storage: &Storage) -> Vec<(String, String)> {
        storage.kv().list(COLLECTION).unwrap()
    }

    #[test]
    fn numbers_are_taken_once_and_others_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        let take = |id: &str, others: &[u32]| {
            let is_unused = |project| !others.contains(&project);
            storage.shared.write(|transaction| allocate(transaction, id, is_unused)).unwrap()
        };
        assert_eq!((take("a", &[]), take("b", &[FIRST + 1]), take("c", &[])), (FIRST, FIRST + 2, FIRST + 1));
        let none = storage.shared.write(|transaction| allocate(transaction, "d", |_| false));
        assert!(matches!(none, Err(Error::NoQuotas)));
    }

    #[test]
    fn a_number_outlives_its_container_until_it_is_released() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        let snapshots = storage.snapshots();
        snapshots.create("kept", None).unwrap();
        snapshots.create("gone", None).unwrap();
        for id in ["kept", "gone", "never"] {
            storage.shared.write(|transaction| allocate(transaction, id, |_| true)).unwrap();
        }
        storage.shared.write(|transaction| abandon(transaction, "gone")).unwrap();
        let values: Vec<_> = rows(&storage).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["kept", "", "never"]);
        abandon_unknown(&storage.shared).unwrap();
        // The housekeeper may have released them by now: it does the same.
        release(&storage.shared).unwrap();
        assert_eq!(rows(&storage), [(FIRST.to_string(), "kept".to_owned())]);
        snapshots.remove("kept").unwrap();
        storage.settle();
        assert!(rows(&storage).is_empty());
    }

    #[test]
    fn without_quotas_a_limit_is_refused_and_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        if storage.enforces_quotas() {
            return;
        }
        let refused =
            storage.snapshots().create_with("one", None, crate::Wish { limit: Some(1 << 20), owned: false });
        assert!(matches!(refused, Err(Error::NoQuotas)), "{refused:?}");
        assert!(rows(&storage).is_empty() && storage.snapshots().list().unwrap().is_empty());
    }
}
