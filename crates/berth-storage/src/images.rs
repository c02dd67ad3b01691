//! Images and their names.

mod variants;

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_oci::Digest;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::database::{digest, failed, integer, now, optional_digest, prefix_end, size};
use crate::{Error, Result, Shared, garbage};

/// What an image came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the index that listed it, if one did.
    pub index: Option<Digest>,
}

/// A name of an image: `docker.io/library/debian:latest`, or `docker.io/library/debian@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The canonical name.
    pub name: String,
    /// The manifest or index that it points to; the image itself where there is none.
    pub target: Digest,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: Digest,
    /// The top layer; none for an image without layers.
    pub chain: Option<Digest>,
    /// Bytes of the files of all its layers.
    pub size: u64,
    /// When it was built, by its configuration.
    pub created: Option<Timestamp>,
    /// The image that it was made from here.
    pub parent: Option<Digest>,
    /// Its labels; none where only the configuration tells them.
    pub labels: Option<BTreeMap<String, String>>,
}

/// What [`Images::remove`] took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedImage {
    /// Names that are gone.
    pub names: Vec<String>,
    /// Layers that are gone, with the bytes of their files.
    pub layers: Vec<(Digest, u64)>,
}

/// Access to images.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    shared: &'a Arc<Shared>,
}

const COLUMNS: &str = "SELECT id, chain, size, created, parent, labels FROM images";

impl<'a> Images<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    /// Records an image with its sources, and gives it `names`, in one transaction. Its configuration, the documents
    /// of the sources and its layers must be stored, and held by a lease. A parent that is gone is forgotten. If the image
    /// is recorded already, it counts as used now.
    ///
    /// # Errors
    /// Database errors; a missing document or layer is one.
    pub fn put(&self, image: &ImageRecord, sources: &[Source], names: &[Tag]) -> Result<()> {
        self.shared.write(|transaction| {
            let id = image.id.to_string();
            transaction
                .prepare_cached(
                    "INSERT INTO images (id, chain, size, created, stored, parent, labels, used)
                     VALUES (?1, ?2, ?3, ?4, ?5, (SELECT id FROM images WHERE id = ?6), ?7, ?5)
                     ON CONFLICT DO UPDATE SET used = excluded.used",
                )
                .and_then(|mut statement| {
                    statement.execute(params![
                        id,
                        image.chain.as_ref().map(ToString::to_string),
                        integer(image.size),
                        image.created.map(Timestamp::as_millisecond),
                        now(),
                        image.parent.as_ref().map(ToString::to_string),
                        image.labels.as_ref().and_then(|labels| serde_json::to_string(labels).ok()),
                    ])
                })
                .map_err(failed("recording an image"))?;
            for source in sources {
                transaction
                    .prepare_cached(
                        "INSERT INTO image_sources (image, manifest, index_digest)
                         SELECT ?1, ?2, ?3 WHERE NOT EXISTS (
                             SELECT 1 FROM image_sources WHERE image = ?1 AND manifest = ?2 AND index_digest IS ?3)",
                    )
                    .and_then(|mut statement| {
                        let index = source.index.as_ref().map(ToString::to_string);
                        statement.execute(params![id, source.manifest.to_string(), index])
                    })
                    .map_err(failed("recording the source of an image"))?;
            }
            names.iter().try_for_each(|tag| renew_name(transaction, tag, &id))
        })?;
        // What it was unpacked from may be more than the cache can hold; and it is to survive a power cut.
        self.shared.sync_wanted.set();
        self.shared.waker.wake();
        Ok(())
    }

    /// The image with an ID.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        self.one(&format!("{COLUMNS} WHERE id = ?"), &id.to_string())
    }

    /// The image that has a canonical name, and what the name points to.
    ///
    /// # Errors
    /// Database errors.
    pub fn by_name(&self, name: &str) -> Result<Option<ImageRecord>> {
        self.one(&format!("{COLUMNS} WHERE id = (SELECT image FROM tags WHERE name = ?)"), name)
    }

    /// The image whose ID begins with hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] if several do; database errors.
    pub fn by_prefix(&self, prefix: &str) -> Result<Option<ImageRecord>> {
        let first = format!("sha256:{prefix}");
        let rows = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("{COLUMNS} WHERE id >= ?1 AND id < ?2 LIMIT 2"))
                .map_err(failed("looking up an image"))?;
            let rows = statement.query_map([&first, &prefix_end(&first)], columns);
            rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed("looking up an image"))
        })?;
        if rows.len() > 1 {
            return Err(Error::Ambiguous { kind: "image", prefix: prefix.to_owned() });
        }
        rows.into_iter().next().map(record).transpose()
    }

    fn one(&self, query: &str, key: &str) -> Result<Option<ImageRecord>> {
        let row = self.shared.database.read(|connection| {
            connection
                .prepare_cached(query)
                .and_then(|mut statement| statement.query_row([key], columns).optional())
                .map_err(failed("looking up an image"))
        })?;
        row.map(record).transpose()
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let rows = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("{COLUMNS} ORDER BY created DESC, stored DESC, id"))
                .map_err(failed("listing images"))?;
            let rows = statement.query_map([], columns);
            rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed("listing images"))
        })?;
        rows.into_iter().map(record).collect()
    }

    /// Names of an image, in alphabetical order.
    ///
    /// # Errors
    /// Database errors.
    pub fn names(&self, id: &Digest) -> Result<Vec<Tag>> {
        let rows: Vec<(String, String)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT name, target FROM tags WHERE image = ? ORDER BY name")
                .map_err(failed("listing names"))?;
            let rows = statement.query_map([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing names"))
        })?;
        rows.into_iter().map(|(name, target)| Ok(Tag { name, target: digest(&target)? })).collect()
    }

    /// The tags of a repository, as canonical names, with their images; in alphabetical order.
    ///
    /// # Errors
    /// Database errors.
    pub fn tags_of(&self, repository: &str) -> Result<Vec<(String, Digest)>> {
        let first = format!("{repository}:");
        let rows: Vec<(String, String)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT name, image FROM tags WHERE name >= ?1 AND name < ?2 ORDER BY name")
                .map_err(failed("listing names"))?;
            let rows =
                statement.query_map([&first, &prefix_end(&first)], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing names"))
        })?;
        rows.into_iter().map(|(name, id)| Ok((name, digest(&id)?))).collect()
    }

    /// What an image came from.
    ///
    /// # Errors
    /// Database errors.
    pub fn sources(&self, id: &Digest) -> Result<Vec<Source>> {
        let rows: Vec<(String, Option<String>)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT manifest, index_digest FROM image_sources WHERE image = ?")
                .map_err(failed("listing sources"))?;
            let rows = statement.query_map([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing sources"))
        })?;
        rows.into_iter()
            .map(|(manifest, index)| {
                Ok(Source { manifest: digest(&manifest)?, index: optional_digest(index)? })
            })
            .collect()
    }

    /// Gives an image a name, which another image may lose by it.
    ///
    /// # Errors
    /// Database errors; a missing image is one.
    pub fn tag(&self, id: &Digest, tag: &Tag) -> Result<()> {
        self.shared.write(|transaction| set_name(transaction, tag, &id.to_string()))
    }

    /// Takes a name away; whether it was there.
    ///
    /// # Errors
    /// Database errors.
    pub fn untag(&self, name: &str) -> Result<bool> {
        self.shared.write(|transaction| {
            let count = transaction.execute("DELETE FROM tags WHERE name = ?", [name]);
            Ok(count.map_err(failed("removing a name"))? > 0)
        })
    }

    /// Removes an image with its names, and the layers and documents that nothing else needs.
    ///
    /// # Errors
    /// [`Error::NotFound`]; database and file errors.
    pub fn remove(&self, id: &Digest) -> Result<RemovedImage> {
        let names = self.names(id)?.into_iter().map(|tag| tag.name).collect();
        self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM tags WHERE image = ?", [id.to_string()])
                .map_err(failed("removing names"))?;
            delete(transaction, id)
        })?;
        let layers = garbage::collect(self.shared)?;
        self.shared.waker.wake();
        Ok(RemovedImage { names, layers })
    }
}

/// Deletes the row of an image that has no names any more, and what leads to it.
fn delete(transaction: &Transaction<'_>, id: &Digest) -> Result<()> {
    let key = id.to_string();
    let execute = |statement: &str| transaction.execute(statement, [&key]);
    execute("DELETE FROM image_sources WHERE image = ?").map_err(failed("removing sources"))?;
    execute("UPDATE images SET parent = NULL WHERE parent = ?").map_err(failed("removing a parent"))?;
    match execute("DELETE FROM images WHERE id = ?").map_err(failed("removing an image"))? {
        0 => Err(Error::not_found("image", id)),
        _ => Ok(()),
    }
}

/// Gives a name to an image that may have it already: then it is no new one.
fn renew_name(transaction: &Transaction<'_>, tag: &Tag, id: &str) -> Result<()> {
    let renewed = transaction
        .prepare_cached("UPDATE tags SET target = ?1 WHERE name = ?2 AND image = ?3")
        .and_then(|mut statement| statement.execute(params![tag.target.to_string(), tag.name, id]))
        .map_err(failed("naming an image"))?;
    if renewed > 0 { Ok(()) } else { set_name(transaction, tag, id) }
}

fn set_name(transaction: &Transaction<'_>, tag: &Tag, id: &str) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO tags (name, target, image) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET target = excluded.target, image = excluded.image",
        )
        .and_then(|mut statement| statement.execute(params![tag.name, tag.target.to_string(), id]))
        .map_err(failed("naming an image"))?;
    transaction
        .prepare_cached("UPDATE images SET named = ? WHERE id = ?")
        .and_then(|mut statement| statement.execute(params![now(), id]))
        .map(drop)
        .map_err(failed("naming an image"))
}

pub(crate) type Columns = (String, Option<String>, i64, Option<i64>, Option<String>, Option<String>);

pub(crate) fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

pub(crate) fn record((id, chain, bytes, created, parent, labels): Columns) -> Result<ImageRecord> {
    Ok(ImageRecord {
        id: digest(&id)?,
        chain: optional_digest(chain)?,
        size: size(bytes),
        created: created.and_then(|time| Timestamp::from_millisecond(time).ok()),
        parent: optional_digest(parent)?,
        // What cannot be read is told by the configuration.
        labels: labels.and_then(|text| serde_json::from_str(&text).ok()),
    })
}
