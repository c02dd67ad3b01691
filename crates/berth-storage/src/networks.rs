//! Network records: the networks that users made, as the engine writes them.
//!
//! A network's endpoints and their addresses are no rows of their own: they are part of the rows of the containers that
//! hold them, so that a container and its addresses change in one transaction, and nothing has to be matched after a crash.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use crate::database::failed;
use crate::{Error, Result, Shared};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Its ID.
    pub id: String,
    /// Its name, which no other network has.
    pub name: String,
    /// When it was created, kept to the millisecond.
    pub created: Timestamp,
    /// Everything else, as JSON in the engine's words. It never changes.
    pub config: String,
}

/// Access to network records.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Networks<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Records a new network.
    ///
    /// # Errors
    /// [`Error::NameInUse`] with the network that has the name; database errors.
    pub fn insert(&self, record: &NetworkRecord) -> Result<()> {
        self.shared.write(|transaction| {
            let holder: Option<String> = transaction
                .query_row("SELECT id FROM networks WHERE name = ?", [&record.name], |row| row.get(0))
                .optional()
                .map_err(failed("looking up a network's name"))?;
            if let Some(by) = holder {
                return Err(Error::NameInUse { name: record.name.clone(), by });
            }
            transaction
                .execute(
                    "INSERT INTO networks (id, name, created, config) VALUES (?, ?, ?, ?)",
                    params![record.id, record.name, record.created.as_millisecond(), record.config],
                )
                .map(drop)
                .map_err(failed("recording a network"))
        })
    }

    /// All networks, in the order of their creation.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<NetworkRecord>> {
        self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT id, name, created, config FROM networks ORDER BY created, id")
                .map_err(failed("listing networks"))?;
            let rows = statement.query_map([], columns);
            rows.and_then(Iterator::collect).map_err(failed("listing networks"))
        })
    }

    /// Removes a record; nothing there is success.
    ///
    /// # Errors
    /// Database errors.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM networks WHERE id = ?", [id])
                .map(drop)
                .map_err(failed("removing a network"))
        })
    }
}

fn columns(row: &Row<'_>) -> rusqlite::Result<NetworkRecord> {
    let created: i64 = row.get(2)?;
    Ok(NetworkRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        created: Timestamp::from_millisecond(created).unwrap_or_default(),
        config: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    #[test]
    fn a_name_belongs_to_one_network() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        let storage = Storage::open(&root, Options::default()).unwrap();
        let record = |id: &str, name: &str| NetworkRecord {
            id: id.into(),
            name: name.into(),
            created: Timestamp::from_second(1).unwrap(),
            config: "{}".into(),
        };
        storage.networks().insert(&record("a", "one")).unwrap();
        let taken = storage.networks().insert(&record("b", "one")).unwrap_err();
        assert!(matches!(taken, Error::NameInUse { by, .. } if by == "a"));
        storage.networks().insert(&record("b", "two")).unwrap();
        drop(storage);
        let storage = Storage::open(&root, Options::default()).unwrap();
        assert_eq!(storage.networks().list().unwrap(), [record("a", "one"), record("b", "two")]);
        storage.networks().remove("a").unwrap();
        storage.networks().remove("a").unwrap();
        assert_eq!(storage.networks().list().unwrap(), [record("b", "two")]);
    }
}
