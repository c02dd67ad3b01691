//! What builders keep, as clients see it: compressed layers, also those that came in part, files that clients sent, steps
//! that were done, and directories that steps find again. Nothing depends on any of it, and it can go at any time.

pub(crate) mod ceiling;
mod steps;

use std::cmp::Reverse;
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
use crate::op::{CacheBounds, CachePrune};
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
    /// Whether its bytes are counted as those of an image, and do not go with it.
    shared: bool,
    /// How much it stands on that was made before it.
    depth: usize,
    place: Place,
}

impl Kept {
    /// Bytes that go with it.
    fn own_size(&self) -> u64 {
        if self.shared { 0 } else { self.size }
    }
}

/// Where it is kept.
enum Place {
    /// A compressed layer.
    Layer(Digest),
    /// What an interrupted download left of a compressed layer.
    Part(String),
    /// Files that a client sent.
    Context(String),
    /// A step, with the image that it made.
    Step(steps::Done),
    /// A directory that steps find again.
    Mount(String),
}

/// All of it, those first that were not used for longest, and of those what nothing else stands on.
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
            shared: false,
            depth: 0,
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
            shared: false,
            depth: 0,
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
            shared: false,
            depth: 0,
            place: Place::Context(context.key),
        });
    }
    for step in steps::all(parts)? {
        all.push(Kept {
            // An image that is a step has one key at least.
            id: step.keys.first().unwrap_or(&step.image).hex().to_owned(),
            kind: REGULAR,
            description: format!("step of a build, which made {}", step.image),
            size: step.size,
            created: step.used,
            used: step.used,
            uses: 1,
            held: step.held,
            shared: step.shared,
            depth: step.depth,
            place: Place::Step(step),
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
            shared: false,
            depth: 0,
            place: Place::Mount(cache.key),
        });
    }
    all.sort_by_key(|kept| (kept.used, Reverse(kept.depth)));
    Ok(all)
}

/// As [`all`], with those bytes alone of files that clients sent that no layer has, too. All of these files are looked at.
fn measured(parts: &Parts) -> Result<Vec<Kept>, Error> {
    let mut all = all(parts)?;
    for kept in &mut all {
        if let Place::Context(key) = &kept.place {
            kept.size = parts.storage.contexts().own_size(key)?;
        }
    }
    Ok(all)
}

/// Removes one, unless it is in use: the bytes that are freed, if it is gone by this.
fn remove(parts: &Parts, kept: &Kept) -> Result<Option<u64>, Error> {
    let gone = match &kept.place {
        Place::Layer(digest) => parts.storage.blobs().evict(digest)?,
        Place::Part(name) => parts.storage.blobs().forget(name)?,
        Place::Context(key) => parts.storage.contexts().remove(key)?,
        Place::Step(step) => return steps::remove(parts, step),
        Place::Mount(key) => parts.storage.build_caches().evict(key)?,
    };
    Ok(gone.then_some(kept.size))
}

/// All of it, as clients see it.
pub(super) fn usage(parts: &Parts) -> Result<Usage<CacheRecord>, Error> {
    let mut usage = Usage::default();
    for kept in measured(parts)? {
        // What an image has is counted there.
        let own = to_signed(kept.own_size());
        usage.total_size += own;
        match kept.held {
            true => usage.active_count += 1,
            false => usage.reclaimable += own,
        }
        usage.items.push(CacheRecord {
            id: kept.id,
            kind: kept.kind.into(),
            description: kept.description,
            in_use: kept.held,
            shared: kept.shared,
            size: to_signed(kept.size),
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
            && any("shared", &|text| matches!(text, "1" | "true") == kept.shared)
            && any("private", &|text| matches!(text, "1" | "true"))
            && self.until.is_none_or(|until| kept.used < until)
    }
}

impl CacheBounds {
    /// How many of `total` bytes stay where `free` bytes are free; all bounds zero for nothing.
    fn keep(self, total: u64, free: u64) -> u64 {
        let room = match self.min_free.saturating_sub(free) {
            0 => total,
            missing => total.saturating_sub(missing),
        };
        let most = match (self.max_used, self.min_free) {
            (0, 0) => 0,
            (0, _) => room,
            (most, _) => most.min(room),
        };
        most.max(self.reserved)
    }
}

impl Engine {
    /// Removes what builders keep and what satisfies the filters, that first which was not used for longest, until no more is
    /// there than may stay.
    pub async fn cache_prune(&self, rule: CachePrune) -> Result<CachePruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let report = prune(&parts, measured(&parts)?, &rule, Timestamp::now())?;
            parts.events.publish(Event::CachePruned { reclaimed: report.space_reclaimed });
            Ok(report)
        })
        .await
    }
}

/// Bytes of what is kept, and how many of them may stay; none if that is not bounded.
fn room(parts: &Parts, all: &[Kept], bounds: CacheBounds) -> Result<(u64, Option<u64>), Error> {
    let total = all.iter().map(Kept::own_size).sum();
    let keep = bounds.keep(total, parts.storage.free_bytes()?);
    Ok((total, (bounds != CacheBounds::default()).then_some(keep)))
}

fn prune(
    parts: &Parts,
    all: Vec<Kept>,
    rule: &CachePrune,
    now: Timestamp,
) -> Result<CachePruneResponse, Error> {
    let selection = Selection::new(rule.filters.clone(), now)?;
    let (mut total, keep) = room(parts, &all, rule.bounds)?;
    let mut report = CachePruneResponse::default();
    for kept in all.into_iter().filter(|kept| selection.has(kept)) {
        if keep.is_some_and(|keep| total <= keep) {
            break;
        }
        // What belongs to images makes no room.
        let spared = kept.shared && (keep.is_some() || !rule.all) || kept.kind == INTERNAL && !rule.all;
        if spared {
            continue;
        }
        if let Some(freed) = remove(parts, &kept)? {
            total = total.saturating_sub(freed);
            report.space_reclaimed += freed;
            report.caches_deleted.get_or_insert_default().push(kept.id);
        }
    }
    Ok(report)
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
            shared: false,
            depth: 0,
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
            (r#"{"shared":["true"]}"#, false),
            (r#"{"shared":["0"]}"#, true),
        ] {
            let selection = Selection::new(Filters::parse(filters).unwrap(), now).unwrap();
            assert_eq!(selection.has(&layer), goes, "{filters}");
        }
        assert!(Selection::new(Filters::parse(r#"{"colour":["red"]}"#).unwrap(), now).is_err());
    }
    #[test]
    fn bounds_are_those_of_buildkit() {
        let bounds = |reserved, max_used, min_free| CacheBounds { reserved, max_used, min_free };
        for (bounds, free, stays) in [
            (bounds(0, 0, 0), 0, 0),
            (bounds(40, 0, 0), 0, 40),
            (bounds(0, 60, 0), 0, 60),
            (bounds(70, 60, 0), 0, 70),
            // There is room enough.
            (bounds(0, 0, 10), 10, 100),
            (bounds(40, 0, 10), 10, 100),
            (bounds(0, 0, 30), 10, 80),
            (bounds(0, 60, 30), 10, 60),
            (bounds(0, 90, 30), 10, 80),
            (bounds(90, 0, 30), 10, 90),
            (bounds(0, 0, 500), 10, 0),
        ] {
            assert_eq!(bounds.keep(100, free), stays, "{bounds:?}");
        }
    }
}
