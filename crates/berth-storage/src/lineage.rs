//! What is known of images beside what they are: what was made from them, when they were used, what they are called.

use std::collections::{HashMap, HashSet};

use berth_oci::Digest;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::database::{digest, failed, now};
use crate::images::{Columns, columns, record};
use crate::{ImageRecord, Images, Result};

/// Uses of an image that follow each other within so many milliseconds are recorded as one.
const USE_RESOLUTION: i64 = 60_000;

/// An image as lists need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The image.
    pub record: ImageRecord,
    /// Its canonical names, in alphabetical order.
    pub names: Vec<String>,
    /// Whether another image was made from it.
    pub has_children: bool,
    /// When it was last pulled, loaded, made or used by a container.
    pub used: Timestamp,
}

impl Images<'_> {
    /// All images, newest first, with what lists show of them.
    ///
    /// # Errors
    /// Database errors.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        let (rows, tags) = self.shared().database.read(|connection| {
            let query = "SELECT id, chain, size, created, parent, labels, coalesce(used, stored) FROM images
                 ORDER BY created DESC, stored DESC, id";
            let mut statement = connection.prepare_cached(query).map_err(failed("listing images"))?;
            let rows: Vec<(Columns, i64)> = statement
                .query_map([], |row| Ok((columns(row)?, row.get(6)?)))
                .and_then(Iterator::collect)
                .map_err(failed("listing images"))?;
            let mut statement = connection
                .prepare_cached("SELECT image, name FROM tags ORDER BY name")
                .map_err(failed("listing names"))?;
            let tags: Vec<(String, String)> = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .and_then(Iterator::collect)
                .map_err(failed("listing names"))?;
            Ok((rows, tags))
        })?;
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for (image, name) in tags {
            names.entry(image).or_default().push(name);
        }
        let parents: HashSet<String> = rows.iter().filter_map(|(row, _)| row.4.clone()).collect();
        let listed = rows.into_iter().map(|(row, used)| {
            Ok(Listed {
                names: names.remove(&row.0).unwrap_or_default(),
                has_children: parents.contains(&row.0),
                used: Timestamp::from_millisecond(used).unwrap_or_default(),
                record: record(row)?,
            })
        });
        listed.collect()
    }

    /// Images that were made from one.
    ///
    /// # Errors
    /// Database errors.
    pub fn children(&self, id: &Digest) -> Result<Vec<Digest>> {
        let rows: Vec<String> = self.shared().database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT id FROM images WHERE parent = ? ORDER BY id")
                .map_err(failed("listing children"))?;
            let rows = statement.query_map([id.to_string()], |row| row.get(0));
            rows.and_then(Iterator::collect).map_err(failed("listing children"))
        })?;
        rows.iter().map(|text| digest(text)).collect()
    }

    /// Notes what an image was made from, both of which are stored, unless that is known of it already.
    ///
    /// # Errors
    /// Database errors.
    pub fn adopt(&self, id: &Digest, parent: &Digest) -> Result<()> {
        self.shared().write(|transaction| {
            transaction
                .execute(
                    "UPDATE images SET parent = (SELECT id FROM images WHERE id = ?2) WHERE id = ?1 AND parent IS NULL",
                    params![id.to_string(), parent.to_string()],
                )
                .map(drop)
                .map_err(failed("noting a parent"))
        })
    }

    /// When an image last got a name; none if it never did.
    ///
    /// # Errors
    /// Database errors.
    pub fn named_at(&self, id: &Digest) -> Result<Option<Timestamp>> {
        let time: Option<Option<i64>> = self.moment("SELECT named FROM images WHERE id = ?", id)?;
        Ok(time.flatten().and_then(|time| Timestamp::from_millisecond(time).ok()))
    }

    /// Notes that an image is in use now. Uses within a minute count as one, so that this seldom writes.
    ///
    /// # Errors
    /// Database errors; an image that is gone is none.
    pub fn touch(&self, id: &Digest) -> Result<()> {
        let now = now();
        let used = self.moment("SELECT used FROM images WHERE id = ?", id)?;
        let fresh = |used: i64| (0..USE_RESOLUTION).contains(&now.saturating_sub(used));
        if used.is_none_or(|used| used.is_some_and(fresh)) {
            return Ok(());
        }
        self.shared().write(|transaction| {
            transaction
                .prepare_cached("UPDATE images SET used = ? WHERE id = ?")
                .and_then(|mut statement| statement.execute(params![now, id.to_string()]))
                .map(drop)
                .map_err(failed("noting a use"))
        })
    }

    fn moment(&self, query: &str, id: &Digest) -> Result<Option<Option<i64>>> {
        self.shared().database.read(|connection| {
            connection
                .prepare_cached(query)
                .and_then(|mut statement| statement.query_row([id.to_string()], |row| row.get(0)).optional())
                .map_err(failed("looking up an image"))
        })
    }
}
