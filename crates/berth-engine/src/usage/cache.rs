//! What builders keep, as clients see it: compressed layers, also those that came in part, files that clients sent, steps
//! that were done, and directories that steps find again. Nothing depends on any of it, and it can go at any time.

use std::sync::Arc;

use berth_api::duration;
use berth_api::filter::Filters;
use berth_api::system::{CachePruneResponse, CacheRecord, Usage};
use berth_oci::Digest;
use jiff::Timestamp;

use super::count;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::Event;
use crate::inspect::to_signed;
use crate::list::filter::check_known;
use crate::{Engine, Error};

/// BuildKit's kind of what no step made.
const INTERNAL: &str = "internal";
/// Its kind of files that clients sent.
const SOURCE: &str = "source.local";
/// Its kind of what a step made.
const REGULAR: &str = "regular";
/// Its kind of what is mounted for steps.
const MOUNT: &str = "exec.cachemount";
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

/// One thing that builders keep.
struct Kept {
    id: String,
    /// BuildKit's name for what it is.
    kind: &'static str,
    description: String,
    size: u64,
    created: Timestamp,
    used: Timestamp,
    uses: i64,
    held: bool,
    place: Place,
}

/// Where it is kept.
enum Place {
    /// A compressed layer.
    Layer(Digest),
    /// What an interrupted download left of a compressed layer.
    Part(String),
    /// Files that a client sent.
    Context(String),
    /// The row of a step, whose result is an image's.
    Step(Digest),
    /// A directory that steps find again.
    Mount(String),
}

/// All of it, those first that were not used for longest.
fn all(parts: &Parts) -> Result<Vec<Kept>, Error> {
    let mut all = Vec::new();
    for layer in parts.storage.blobs().cached()? {
        all.push(Kept {
            id: layer.digest.hex().to_owned(),
            kind: INTERNAL,
            description: format!("compressed layer {}", layer.digest),
            size: layer.size,
            created: layer.used,
            used: layer.used,
            uses: 1,
            held: layer.held,
            place: Place::Layer(layer.digest),
        });
    }
    for part in parts.storage.blobs().partial()? {
        all.push(Kept {
            id: part.name.clone(),
            kind: INTERNAL,
            description: format!("part of compressed layer {}", part.name),
            size: part.size,
            created: part.modified,
            used: part.modified,
            uses: 1,
            held: part.held,
            place: Place::Part(part.name),
        });
    }
    for context in parts.storage.contexts().list()? {
        all.push(Kept {
            id: context.key.clone(),
            kind: SOURCE,
            description: context.description,
            size: context.size,
            created: context.created,
            used: context.used,
            uses: i64::try_from(context.uses).unwrap_or(i64::MAX),
            held: false,
            place: Place::Context(context.key),
        });
    }
    for step in parts.storage.build_steps().list()? {
        all.push(Kept {
            id: step.key.hex().to_owned(),
            kind: REGULAR,
            description: format!("step of a build, which made {}", step.image),
            // The files belong to the image.
            size: 0,
            created: step.used,
            used: step.used,
            uses: 1,
            held: false,
            place: Place::Step(step.key),
        });
    }
    for cache in parts.storage.build_caches().list()? {
        all.push(Kept {
            id: cache.key.clone(),
            kind: MOUNT,
            description: cache.description,
            size: cache.size,
            created: cache.created,
            used: cache.used,
            uses: i64::try_from(cache.uses).unwrap_or(i64::MAX),
            held: cache.held,
            place: Place::Mount(cache.key),
        });
    }
    all.sort_by_key(|kept| kept.used);
    Ok(all)
}

/// Removes one, unless it is in use; whether it is gone by this.
fn remove(parts: &Parts, kept: &Kept) -> Result<bool, Error> {
    match &kept.place {
        Place::Layer(digest) => Ok(parts.storage.blobs().evict(digest)?),
        Place::Part(name) => Ok(parts.storage.blobs().forget(name)?),
        Place::Context(key) => Ok(parts.storage.contexts().remove(key)?),
        Place::Step(key) => {
            parts.storage.build_steps().remove(key)?;
            Ok(true)
        }
        Place::Mount(key) => Ok(parts.storage.build_caches().evict(key)?),
    }
}

/// All of it, as clients see it.
pub(super) fn usage(parts: &Parts) -> Result<Usage<CacheRecord>, Error> {
    let mut usage = Usage::default();
    for kept in all(parts)? {
        let size = to_signed(kept.size);
        usage.total_size += size;
        match kept.held {
            true => usage.active_count += 1,
            false => usage.reclaimable += size,
        }
        usage.items.push(CacheRecord {
            id: kept.id,
            kind: kept.kind.into(),
            description: kept.description,
            in_use: kept.held,
            shared: false,
            size,
            created_at: Some(kept.created.into()),
            last_used_at: Some(kept.used.into()),
            usage_count: kept.uses,
        });
    }
    usage.total_count = count(usage.items.len());
    Ok(usage)
}

/// What is to go.
struct Selection {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Selection {
    fn new(filters: Filters, now: Timestamp) -> Result<Self, Error> {
        check_known(&filters, &KNOWN)?;
        let mut until = None;
        for text in filters.get("until").chain(filters.get("unused-for")) {
            let at = duration::at(text, now).map_err(Error::InvalidParameter)?;
            until = Some(until.map_or(at, |until: Timestamp| until.min(at)));
        }
        Ok(Self { filters, until })
    }

    fn has(&self, kept: &Kept) -> bool {
        let any =
            |name: &str, is: &dyn Fn(&str) -> bool| !self.filters.has(name) || self.filters.get(name).any(is);
        // They have neither labels nor parents, and belong to nobody alone.
        !self.filters.has("label")
            && !self.filters.has("parent")
            && any("id", &|id| !id.is_empty() && kept.id.starts_with(id))
            && any("type", &|kind| kind == kept.kind)
            && any("types", &|kind| kind == kept.kind)
            && any("description", &|text| kept.description.contains(text))
            && any("inuse", &|text| matches!(text, "0" | "false"))
            && any("shared", &|text| matches!(text, "0" | "false"))
            && any("private", &|text| matches!(text, "1" | "true"))
            && self.until.is_none_or(|until| kept.used < until)
    }
}

impl Engine {
    /// Removes what builders keep and what satisfies the filters, that first which was not used for longest, until all that is
    /// there takes no more than `keep` bytes.
    pub async fn cache_prune(&self, keep: u64, filters: Filters) -> Result<CachePruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let selection = Selection::new(filters, Timestamp::now())?;
            let all = all(&parts)?;
            let mut total: u64 = all.iter().map(|kept| kept.size).sum();
            let mut report = CachePruneResponse::default();
            for kept in all.into_iter().filter(|kept| selection.has(kept)) {
                // What takes nothing goes only with all the rest.
                if total <= keep && (keep > 0 || kept.size > 0) {
                    continue;
                }
                if remove(&parts, &kept)? {
                    total -= kept.size;
                    report.space_reclaimed += kept.size;
                    report.caches_deleted.get_or_insert_default().push(kept.id);
                }
            }
            parts.events.publish(Event::CachePruned { reclaimed: report.space_reclaimed });
            Ok(report)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_builders() {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        let used = Timestamp::new(1_699_990_000, 0).unwrap();
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let layer = Kept {
            id: digest.hex().to_owned(),
            kind: INTERNAL,
            description: digest.to_string(),
            size: 1,
            created: used,
            used,
            uses: 1,
            held: false,
            place: Place::Layer(digest),
        };
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
