//! The cache of compressed layers, as clients see what builders keep: nothing depends on it, and it can go at any time.

use std::sync::Arc;

use berth_api::duration;
use berth_api::filter::Filters;
use berth_api::system::{CachePruneResponse, CacheRecord, Usage};
use berth_storage::CachedLayer;
use jiff::Timestamp;

use super::count;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::{Engine, Error};

/// Docker's kind of what no step made.
const KIND: &str = "internal";
/// Filters that builders have.
const KNOWN: [&str; 12] = [
    "description",
    "id",
    "inuse",
    "label",
    "label!",
    "parent",
    "private",
    "shared",
    "type",
    "types",
    "until",
    "unused-for",
];

/// All of it.
pub(super) fn usage(parts: &Parts) -> Result<Usage<CacheRecord>, Error> {
    let mut usage = Usage::default();
    for layer in parts.storage.blobs().cached()? {
        let size = to_signed(layer.size);
        usage.total_size += size;
        match layer.held {
            true => usage.active_count += 1,
            false => usage.reclaimable += size,
        }
        let used = Some(layer.used.into());
        usage.items.push(CacheRecord {
            id: layer.digest.hex().to_owned(),
            kind: KIND.into(),
            description: format!("compressed layer {}", layer.digest),
            in_use: layer.held,
            shared: false,
            size,
            created_at: used,
            last_used_at: used,
            usage_count: 1,
        });
    }
    usage.total_count = count(usage.items.len());
    Ok(usage)
}

/// Which compressed layers are to go.
struct Selection {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Selection {
    fn new(filters: Filters, now: Timestamp) -> Result<Self, Error> {
        if let Some(name) = filters.names().find(|name| !KNOWN.contains(name)) {
            return Err(Error::InvalidParameter(format!("invalid filter '{name}'")));
        }
        let mut until = None;
        for text in filters.get("until").chain(filters.get("unused-for")) {
            let at = duration::at(text, now).map_err(Error::InvalidParameter)?;
            until = Some(until.map_or(at, |until: Timestamp| until.min(at)));
        }
        Ok(Self { filters, until })
    }

    fn has(&self, layer: &CachedLayer) -> bool {
        let any =
            |name: &str, is: &dyn Fn(&str) -> bool| !self.filters.has(name) || self.filters.get(name).any(is);
        // They have neither labels nor parents, and belong to nobody alone.
        !self.filters.has("label")
            && !self.filters.has("parent")
            && any("id", &|id| !id.is_empty() && layer.digest.hex().starts_with(id))
            && any("type", &|kind| kind == KIND)
            && any("types", &|kind| kind == KIND)
            && any("description", &|text| layer.digest.to_string().contains(text))
            && any("inuse", &|text| matches!(text, "0" | "false"))
            && any("shared", &|text| matches!(text, "0" | "false"))
            && any("private", &|text| matches!(text, "1" | "true"))
            && self.until.is_none_or(|until| layer.used < until)
    }
}

impl Engine {
    /// Removes compressed layers that satisfy the filters, those first that were not used for longest, until all that are
    /// there take no more than `keep` bytes.
    pub async fn cache_prune(&self, keep: u64, filters: Filters) -> Result<CachePruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let selection = Selection::new(filters, Timestamp::now())?;
            let blobs = parts.storage.blobs();
            let layers = blobs.cached()?;
            let mut total: u64 = layers.iter().map(|layer| layer.size).sum();
            let mut report = CachePruneResponse::default();
            for layer in layers.into_iter().filter(|layer| selection.has(layer)) {
                if total <= keep {
                    break;
                }
                if blobs.evict(&layer.digest)? {
                    total -= layer.size;
                    report.space_reclaimed += layer.size;
                    report.caches_deleted.get_or_insert_default().push(layer.digest.hex().to_owned());
                }
            }
            Ok(report)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use berth_oci::Digest;

    use super::*;

    #[test]
    fn filters_are_those_of_builders() {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        let used = Timestamp::new(1_699_990_000, 0).unwrap();
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let layer = CachedLayer { digest, size: 1, used, held: false };
        for (filters, goes) in [
            ("{}", true),
            (r#"{"until":["1h"]}"#, true),
            (r#"{"until":["24h"]}"#, false),
            (r#"{"unused-for":["24h"]}"#, false),
            (r#"{"id":["abab"]}"#, true),
            (r#"{"id":["cd"]}"#, false),
            (r#"{"label":["a"]}"#, false),
            (r#"{"label!":["a"]}"#, true),
            (r#"{"type":["regular"]}"#, false),
            (r#"{"inuse":["true"]}"#, false),
        ] {
            let selection = Selection::new(Filters::parse(filters).unwrap(), now).unwrap();
            assert_eq!(selection.has(&layer), goes, "{filters}");
        }
        assert!(Selection::new(Filters::parse(r#"{"colour":["red"]}"#).unwrap(), now).is_err());
    }
}
