//! What nothing needs any more.

use std::sync::Arc;

use berth_oci::Digest;
use rusqlite::OptionalExtension;

use crate::database::{digest, failed, size};
use crate::leases::Object;
use crate::{Error, Result, Shared, blobs, layers};

/// Layers that no image, snapshot or layer above names.
const UNUSED_LAYERS: &str = "SELECT chain FROM layers AS layer
    WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.chain = layer.chain)
      AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.chain = layer.chain)
      AND NOT EXISTS (SELECT 1 FROM layers WHERE layers.parent = layer.chain)";

/// Documents that no image names.
const UNUSED_DOCUMENTS: &str = "SELECT digest FROM blobs AS blob WHERE kind = 'document'
      AND NOT EXISTS (SELECT 1 FROM images WHERE images.id = blob.digest)
      AND NOT EXISTS (SELECT 1 FROM image_sources WHERE manifest = blob.digest OR index_digest = blob.digest)";

/// Share of the file system that compressed layers may take by default.
const CACHE_SHARE: u64 = 10;

/// Removes unused layers from the top downwards, unused documents, and the least recently used compressed layers over
/// the bound. Returns the layers, with the bytes of their files.
pub(crate) fn collect(shared: &Arc<Shared>) -> Result<Vec<(Digest, u64)>> {
    let mut removed = Vec::new();
    loop {
        let mut progress = false;
        for chain in column(shared, UNUSED_LAYERS)? {
            let chain = digest(&chain)?;
            if let Some(bytes) = remove_layer(shared, &chain)? {
                removed.push((chain, bytes));
                progress = true;
            }
        }
        if !progress {
            break;
        }
    }
    for text in column(shared, UNUSED_DOCUMENTS)? {
        remove_blob(shared, &digest(&text)?)?;
    }
    shrink_cache(shared)?;
    Ok(removed)
}

/// Removes one layer, unless it has come into use in the meantime. Returns the bytes of its files.
fn remove_layer(shared: &Shared, chain: &Digest) -> Result<Option<u64>> {
    let _structure = shared.structure();
    if shared.leases.holds(&Object::Layer(chain.clone())) {
        return Ok(None);
    }
    let deleted: Option<i64> = shared.write(|transaction| {
        let query =
            format!("DELETE FROM layers WHERE chain = ?1 AND chain IN ({UNUSED_LAYERS}) RETURNING size");
        transaction
            .query_row(&query, [chain.to_string()], |row| row.get(0))
            .optional()
            .map_err(failed("removing a layer"))
    })?;
    let Some(bytes) = deleted else { return Ok(None) };
    shared.root.trash(&layers::relative(chain))?;
    Ok(Some(size(bytes)))
}

/// Removes a compressed layer, unless somebody reads it.
pub(crate) fn remove_cached(shared: &Shared, layer: &Digest) -> Result<bool> {
    let kind: Option<String> = shared.database.read(|connection| {
        connection
            .query_row("SELECT kind FROM blobs WHERE digest = ?", [layer.to_string()], |row| row.get(0))
            .optional()
            .map_err(failed("looking up a blob"))
    })?;
    if kind.as_deref() == Some("layer") { remove_blob(shared, layer) } else { Ok(false) }
}

fn remove_blob(shared: &Shared, blob: &Digest) -> Result<bool> {
    let _structure = shared.structure();
    if shared.leases.holds(&Object::Blob(blob.clone())) {
        return Ok(false);
    }
    let query =
        format!("DELETE FROM blobs WHERE digest = ?1 AND (kind = 'layer' OR digest IN ({UNUSED_DOCUMENTS}))");
    let deleted = shared.write(|transaction| {
        transaction.execute(&query, [blob.to_string()]).map_err(failed("removing a blob"))
    })?;
    if deleted == 0 {
        return Ok(false);
    }
    match std::fs::remove_file(blobs::path(shared, blob)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("removing", blobs::relative(blob), error))
        }
        _ => Ok(true),
    }
}

/// Keeps compressed layers within their bound.
pub(crate) fn shrink_cache(shared: &Shared) -> Result<()> {
    let bound = match shared.options.blob_cache_bytes {
        Some(bound) => bound,
        None => shared.root.file_system_size()? / CACHE_SHARE,
    };
    shrink_cache_to(shared, bound).map(drop)
}

/// Removes compressed layers, the least recently used ones first, until they take no more than `bound` bytes, as far as
/// nobody reads them. Returns the bytes that are gone.
pub(crate) fn shrink_cache_to(shared: &Shared, bound: u64) -> Result<u64> {
    let before =
        size(one(shared, "SELECT coalesce(sum(size), 0) FROM blobs WHERE kind = 'layer'")?.unwrap_or(0));
    let mut total = before;
    if total <= bound {
        return Ok(0);
    }
    let rows: Vec<(String, i64)> = shared.database.read(|connection| {
        let mut statement = connection
            .prepare("SELECT digest, size FROM blobs WHERE kind = 'layer' ORDER BY used")
            .map_err(failed("listing blobs"))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(failed("listing blobs"))
    })?;
    for (text, bytes) in rows {
        if total <= bound {
            break;
        }
        if remove_blob(shared, &digest(&text)?)? {
            total = total.saturating_sub(size(bytes));
        }
    }
    Ok(before - total)
}

/// One column of text.
pub(crate) fn column(shared: &Shared, query: &str) -> Result<Vec<String>> {
    shared.database.read(|connection| {
        let mut statement = connection.prepare_cached(query).map_err(failed("listing"))?;
        let rows = statement.query_map([], |row| row.get(0));
        rows.and_then(Iterator::collect).map_err(failed("listing"))
    })
}

fn one(shared: &Shared, query: &str) -> Result<Option<i64>> {
    shared.database.read(|connection| {
        connection.query_row(query, [], |row| row.get(0)).optional().map_err(failed("summing"))
    })
}
