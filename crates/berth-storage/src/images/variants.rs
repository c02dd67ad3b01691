//! Images that one index lists for several platforms, and the names that stand for all of them.
//!
//! A name whose target is an index leads to one image, the one that is meant where nobody asks for a platform. The
//! others that the index lists need no names of their own: the name covers them.

use std::collections::HashSet;

use berth_oci::Digest;
use rusqlite::params;

use super::{COLUMNS, ImageRecord, Images, RemovedImage, Tag, columns, delete, record};
use crate::database::{digest, failed};
use crate::{Result, garbage};

/// Names of an image, and names whose target is an index that lists it.
const COVERING: &str = "SELECT name, target FROM tags WHERE image = ?1
    UNION SELECT name, target FROM tags WHERE target IN (
        SELECT index_digest FROM image_sources WHERE image = ?1 AND index_digest IS NOT NULL)
    ORDER BY name";

impl Images<'_> {
    /// What a canonical name points to.
    ///
    /// # Errors
    /// Database errors.
    pub fn target(&self, name: &str) -> Result<Option<Digest>> {
        let found = self.texts("SELECT target FROM tags WHERE name = ?", [name])?;
        found.first().map(|text| digest(text)).transpose()
    }

    /// The images that came by an index, in the order of their IDs.
    ///
    /// # Errors
    /// Database errors.
    pub fn variants(&self, index: &Digest) -> Result<Vec<ImageRecord>> {
        let query = format!(
            "{COLUMNS} WHERE id IN (SELECT image FROM image_sources WHERE index_digest = ?) ORDER BY id"
        );
        let rows = self.shared.database.read(|connection| {
            let mut statement = connection.prepare_cached(&query).map_err(failed("listing variants"))?;
            let rows = statement.query_map([index.to_string()], columns);
            rows.and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
                .map_err(failed("listing variants"))
        })?;
        rows.into_iter().map(record).collect()
    }

    /// The images that came by a manifest: mostly one, or none.
    ///
    /// # Errors
    /// Database errors.
    pub fn of_manifest(&self, manifest: &Digest) -> Result<Option<ImageRecord>> {
        let query =
            format!("{COLUMNS} WHERE id IN (SELECT image FROM image_sources WHERE manifest = ?) LIMIT 1");
        self.one(&query, &manifest.to_string())
    }

    /// Names that stand for an image: its own, and those whose index lists it. In alphabetical order.
    ///
    /// # Errors
    /// Database errors.
    pub fn covering(&self, id: &Digest) -> Result<Vec<Tag>> {
        let rows: Vec<(String, String)> = self.shared.database.read(|connection| {
            let mut statement = connection.prepare_cached(COVERING).map_err(failed("listing names"))?;
            let rows = statement.query_map([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing names"))
        })?;
        rows.into_iter().map(|(name, target)| Ok(Tag { name, target: digest(&target)? })).collect()
    }

    /// The images that have no names of their own, and that names cover.
    ///
    /// # Errors
    /// Database errors.
    pub fn covered(&self) -> Result<HashSet<Digest>> {
        let found = self.texts(
            "SELECT DISTINCT source.image FROM image_sources AS source
             JOIN tags ON tags.target = source.index_digest
             WHERE NOT EXISTS (SELECT 1 FROM tags AS own WHERE own.image = source.image)",
            [],
        )?;
        found.iter().map(|text| digest(text)).collect()
    }

    /// Has all names of an index lead to one of its images.
    ///
    /// # Errors
    /// Database errors; a missing image is one.
    pub fn prefer(&self, index: &Digest, id: &Digest) -> Result<()> {
        self.shared.write(|transaction| {
            let (id, index) = (id.to_string(), index.to_string());
            transaction
                .execute("UPDATE tags SET image = ?1 WHERE target = ?2 AND image <> ?1", params![id, index])
                .map(drop)
                .map_err(failed("naming an image"))
        })
    }

    /// Removes one image of an index. Its names lead to the image `instead` then where their index lists that too;
    /// the others go with it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; database and file errors.
    pub fn remove_variant(&self, id: &Digest, instead: &[Digest]) -> Result<RemovedImage> {
        let key = id.to_string();
        let mut names = Vec::new();
        self.shared.write(|transaction| {
            for other in instead {
                transaction
                    .execute(
                        "UPDATE tags SET image = ?2 WHERE image = ?1 AND target IN (
                             SELECT index_digest FROM image_sources WHERE image = ?2)",
                        params![key, other.to_string()],
                    )
                    .map_err(failed("naming an image"))?;
            }
            let mut statement = transaction
                .prepare("DELETE FROM tags WHERE image = ? RETURNING name")
                .map_err(failed("removing names"))?;
            let gone = statement.query_map([&key], |row| row.get(0));
            names = gone.and_then(Iterator::collect).map_err(failed("removing names"))?;
            delete(transaction, id)
        })?;
        let layers = garbage::collect(self.shared)?;
        self.shared.waker.wake();
        Ok(RemovedImage { names, layers })
    }

    fn texts(&self, query: &str, keys: impl rusqlite::Params) -> Result<Vec<String>> {
        self.shared.database.read(|connection| {
            let mut statement = connection.prepare_cached(query).map_err(failed("looking up an image"))?;
            let rows = statement.query_map(keys, |row| row.get(0));
            rows.and_then(Iterator::collect).map_err(failed("looking up an image"))
        })
    }
}
