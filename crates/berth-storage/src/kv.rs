//! Small settings, in collections.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use crate::database::failed;
use crate::{Result, Shared};

/// Access to settings.
#[derive(Clone, Copy, Debug)]
pub struct Kv<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Kv<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, collection: &str, key: &str) -> Result<Option<String>> {
        self.shared.database.read(|connection| {
            connection
                .prepare_cached("SELECT value FROM settings WHERE collection = ? AND key = ?")
                .and_then(|mut statement| statement.query_row([collection, key], |row| row.get(0)).optional())
                .map_err(failed("reading a setting"))
        })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// Database errors.
    pub fn put(&self, collection: &str, key: &str, value: &str) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .execute(
                    "INSERT INTO settings (collection, key, value) VALUES (?, ?, ?)
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                    [collection, key, value],
                )
                .map(drop)
                .map_err(failed("writing a setting"))
        })
    }

    /// Removes a key; nothing there is success.
    ///
    /// # Errors
    /// Database errors.
    pub fn remove(&self, collection: &str, key: &str) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM settings WHERE collection = ? AND key = ?", [collection, key])
                .map(drop)
                .map_err(failed("removing a setting"))
        })
    }

    /// All keys and values of a collection, in the keys' order.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self, collection: &str) -> Result<Vec<(String, String)>> {
        self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, value FROM settings WHERE collection = ? ORDER BY key")
                .map_err(failed("listing settings"))?;
            let rows = statement.query_map([collection], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing settings"))
        })
    }
}
