//! Steps of builds that need not be done again.

use std::sync::Arc;

use berth_oci::Digest;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::database::{digest, failed, now};
use crate::{Result, Shared};

/// A step that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildStep {
    /// The digest of all that it depends on.
    pub key: Digest,
    /// The image that it made.
    pub image: Digest,
    /// When it was done, or last taken from the cache.
    pub used: Timestamp,
}

/// Access to steps that were done. They go with the images that they made.
#[derive(Clone, Copy, Debug)]
pub struct BuildSteps<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> BuildSteps<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The image that a step made; `key` is the digest of all that it depends on.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, key: &Digest) -> Result<Option<Digest>> {
        let found: Option<String> = self.shared.database.read(|connection| {
            connection
                .prepare_cached("SELECT image FROM build_steps WHERE key = ?")
                .and_then(|mut statement| statement.query_row([key.to_string()], |row| row.get(0)).optional())
                .map_err(failed("looking up a build step"))
        })?;
        found.as_deref().map(digest).transpose()
    }

    /// Remembers what a step made, an image that is stored. If it was done before, the newer one counts.
    ///
    /// # Errors
    /// Database errors; a missing image is one.
    pub fn put(&self, key: &Digest, image: &Digest) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO build_steps (key, image, used) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET image = excluded.image, used = excluded.used",
                )
                .and_then(|mut statement| {
                    statement.execute(params![key.to_string(), image.to_string(), now()])
                })
                .map(drop)
                .map_err(failed("recording a build step"))
        })
    }

    /// Notes that steps were used now. What is not there any more is passed over.
    ///
    /// # Errors
    /// Database errors.
    pub fn touch(&self, keys: &[Digest]) -> Result<()> {
        let now = now();
        self.shared.write(|transaction| {
            let mut statement = transaction
                .prepare_cached("UPDATE build_steps SET used = ?2 WHERE key = ?1")
                .map_err(failed("noting the use of build steps"))?;
            for key in keys {
                statement
                    .execute(params![key.to_string(), now])
                    .map_err(failed("noting the use of build steps"))?;
            }
            Ok(())
        })
    }

    /// All of them, those first that were not used for longest.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<BuildStep>> {
        let rows: Vec<(String, String, i64)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, image, used FROM build_steps ORDER BY used")
                .map_err(failed("listing build steps"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing build steps"))
        })?;
        let step = |(key, image, used): (String, String, i64)| {
            let used = Timestamp::from_millisecond(used).unwrap_or_default();
            Ok(BuildStep { key: digest(&key)?, image: digest(&image)?, used })
        };
        rows.into_iter().map(step).collect()
    }

    /// Whether an image was made by a step that is remembered.
    ///
    /// # Errors
    /// Database errors.
    pub fn made(&self, image: &Digest) -> Result<bool> {
        self.exists("SELECT 1 FROM build_steps WHERE image = ?", image)
    }

    /// Remembers that a build ended with an image, which is stored: it is more than what its last step left.
    ///
    /// # Errors
    /// Database errors; a missing image is one.
    pub fn end_with(&self, image: &Digest) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .prepare_cached("INSERT INTO build_results (image) VALUES (?) ON CONFLICT DO NOTHING")
                .and_then(|mut statement| statement.execute([image.to_string()]))
                .map(drop)
                .map_err(failed("recording the result of a build"))
        })
    }

    /// Whether a build ended with an image.
    ///
    /// # Errors
    /// Database errors.
    pub fn is_result(&self, image: &Digest) -> Result<bool> {
        self.exists("SELECT 1 FROM build_results WHERE image = ?", image)
    }

    /// The images that builds ended with.
    ///
    /// # Errors
    /// Database errors.
    pub fn results(&self) -> Result<Vec<Digest>> {
        let rows: Vec<String> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT image FROM build_results")
                .map_err(failed("listing the results of builds"))?;
            let rows = statement.query_map([], |row| row.get(0));
            rows.and_then(Iterator::collect).map_err(failed("listing the results of builds"))
        })?;
        rows.iter().map(|image| digest(image)).collect()
    }

    fn exists(&self, query: &str, image: &Digest) -> Result<bool> {
        self.shared.database.read(|connection| {
            connection
                .prepare_cached(query)
                .and_then(|mut statement| statement.exists([image.to_string()]))
                .map_err(failed("looking up the image of a build"))
        })
    }

    /// Forgets a step; its image stays.
    ///
    /// # Errors
    /// Database errors.
    pub fn remove(&self, key: &Digest) -> Result<()> {
        self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM build_steps WHERE key = ?", [key.to_string()])
                .map(drop)
                .map_err(failed("forgetting a build step"))
        })
    }
}
