//! Container records: what the engine knows of each container, as it writes it.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use crate::database::failed;
use crate::{Error, Result, Shared, volumes};

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its ID.
    pub id: String,
    /// Its name, which no other container has.
    pub name: String,
    /// The image it was made from, in the engine's words.
    pub image_id: String,
    /// When it was created, kept to the millisecond.
    pub created: Timestamp,
    /// What changes, as JSON.
    pub state: String,
    /// What does not, as JSON.
    pub config: String,
}

/// Access to container records.
#[derive(Clone, Copy, Debug)]
pub struct Containers<'a> {
    shared: &'a Arc<Shared>,
}

const COLUMNS: &str = "SELECT id, name, image, created, state, config FROM containers";

impl<'a> Containers<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Inserts a container, or replaces the name and state of a known one.
    ///
    /// # Errors
    /// [`Error::NameInUse`] with the container that has the name; database errors.
    pub fn put(&self, record: &ContainerRecord) -> Result<()> {
        self.put_with(record, &[])
    }

    /// As [`Containers::put`], in one transaction with the notes that it has `volumes`.
    ///
    /// # Errors
    /// As [`Containers::put`].
    pub fn put_with(&self, record: &ContainerRecord, volumes: &[String]) -> Result<()> {
        self.shared.write(|transaction| {
            let holder: Option<String> = transaction
                .prepare_cached("SELECT id FROM containers WHERE name = ? AND id <> ?")
                .and_then(|mut statement| {
                    statement.query_row([&record.name, &record.id], |row| row.get(0)).optional()
                })
                .map_err(failed("looking up a container's name"))?;
            if let Some(by) = holder {
                return Err(Error::NameInUse { name: record.name.clone(), by });
            }
            transaction
                .prepare_cached(
                    "INSERT INTO containers (id, name, image, created, state, config) VALUES (?, ?, ?, ?, ?, ?)
                     ON CONFLICT (id) DO UPDATE SET name = excluded.name, state = excluded.state, config = excluded.config",
                )
                .and_then(|mut statement| {
                    statement.execute(params![
                        record.id,
                        record.name,
                        record.image_id,
                        record.created.as_millisecond(),
                        record.state,
                        record.config
                    ])
                })
                .map_err(failed("recording a container"))?;
            volumes.iter().try_for_each(|volume| volumes::insert_user(transaction, volume, &record.id))
        })
    }

    /// The container with an ID.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, id: &str) -> Result<Option<ContainerRecord>> {
        self.one(&format!("{COLUMNS} WHERE id = ?"), id)
    }

    /// The container with a name.
    ///
    /// # Errors
    /// Database errors.
    pub fn by_name(&self, name: &str) -> Result<Option<ContainerRecord>> {
        self.one(&format!("{COLUMNS} WHERE name = ?"), name)
    }

    fn one(&self, query: &str, key: &str) -> Result<Option<ContainerRecord>> {
        let row = self.shared.database.read(|connection| {
            connection
                .prepare_cached(query)
                .and_then(|mut statement| statement.query_row([key], columns).optional())
                .map_err(failed("looking up a container"))
        })?;
        Ok(row)
    }

    /// All containers, in the order of their creation.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<ContainerRecord>> {
        self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("{COLUMNS} ORDER BY created, id"))
                .map_err(failed("listing containers"))?;
            let rows = statement.query_map([], columns);
            rows.and_then(Iterator::collect).map_err(failed("listing containers"))
        })
    }

    /// Removes a record; nothing there is success. The container's snapshot is removed apart.
    ///
    /// # Errors
    /// Database errors.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.remove_with(id, &[]).map(drop)
    }

    /// As [`Containers::remove`], in one transaction with those of `volumes` that no other container has; returns these.
    /// Nothing may be mounted in their directories.
    ///
    /// # Errors
    /// File and database errors.
    pub fn remove_with(&self, id: &str, volumes: &[String]) -> Result<Vec<String>> {
        let _structure = (!volumes.is_empty()).then(|| self.shared.structure());
        let removed = self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM containers WHERE id = ?", [id])
                .map_err(failed("removing a container"))?;
            let mut removed = Vec::new();
            for volume in volumes {
                if volumes::users_of(transaction, volume)?.is_empty()
                    && volumes::remove_row(self.shared, transaction, volume)?
                {
                    removed.push(volume.clone());
                }
            }
            Ok(removed)
        })?;
        if !removed.is_empty() {
            self.shared.waker.wake();
        }
        Ok(removed)
    }
}

fn columns(row: &Row<'_>) -> rusqlite::Result<ContainerRecord> {
    let created: i64 = row.get(3)?;
    Ok(ContainerRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        image_id: row.get(2)?,
        created: Timestamp::from_millisecond(created).unwrap_or_default(),
        state: row.get(4)?,
        config: row.get(5)?,
    })
}
