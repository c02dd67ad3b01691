//! The cache of builds stays under its ceiling by itself: while builds make steps, and after each of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_api::filter::Filters;
use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::Error;
use crate::engine::Parts;
use crate::op::{CacheBounds, CachePrune};
use crate::settings::BuildCacheSettings;

/// While a build goes on, the cache is measured no more often than this.
const PAUSE: Duration = Duration::from_secs(60);
/// Files of clients and directories of steps that nobody has used for this long go first, where they take more than
/// [`TEMPORARY`] bytes and their part of what may stay (Moby, `daemon/internal/builder-next/worker/gc.go`).
const STALE: &str = "48h";
const TEMPORARY: u64 = 512_000_000;
/// Of 1000 bytes that may stay.
const TEMPORARY_PART: u64 = 138;

/// Whether the cache is being measured.
#[derive(Debug, Default)]
pub(crate) struct Ceiling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// Somebody asked meanwhile.
    again: bool,
    last: Option<Instant>,
}

impl Ceiling {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller is to measure it; `ended` says that a build has, so that nobody else might.
    fn begin(&self, ended: bool) -> bool {
        let mut state = self.lock();
        let early = state.last.is_some_and(|last| last.elapsed() < PAUSE);
        if state.running || early && !ended {
            state.again |= state.running && ended;
            return false;
        }
        state.running = true;
        state.last = Some(Instant::now());
        true
    }

    /// Whether the caller is to measure it once more.
    fn go_on(&self) -> bool {
        let mut state = self.lock();
        state.running = std::mem::take(&mut state.again);
        state.running
    }
}

/// A step was made, or a build with such steps `ended`: what is too much of the cache goes, and nobody waits for it.
pub(crate) fn look(parts: &Arc<Parts>, handle: &Handle, ended: bool) {
    if !parts.settings.build_cache.bounded || !parts.ceiling.begin(ended) {
        return;
    }
    let parts = Arc::clone(parts);
    handle.spawn_blocking(move || {
        loop {
            if let Err(error) = shrink(&parts) {
                tracing::warn!(%error, "the cache of builds may be over its ceiling");
            }
            if !parts.ceiling.go_on() {
                return;
            }
        }
    });
}

fn shrink(parts: &Parts) -> Result<(), Error> {
    // At most this is there: whether files that clients sent are layers', too, is only looked at if it is too much.
    let mut all = super::all(parts)?;
    for rule in rules(&parts.settings.build_cache, parts.storage.file_system_size()?) {
        if let (total, Some(keep)) = super::room(parts, &all, rule.bounds)?
            && total <= keep
        {
            continue;
        }
        let report = super::prune(parts, super::measured(parts)?, &rule, Timestamp::now())?;
        all = super::all(parts)?;
        if let Some(deleted) = report.caches_deleted {
            let (count, bytes) = (deleted.len(), report.space_reclaimed);
            tracing::info!(count, bytes, "build cache was removed to stay under its ceiling");
        }
    }
    Ok(())
}

/// What goes when, one after the other; `disk` is the size of the file system in bytes.
fn rules(settings: &BuildCacheSettings, disk: u64) -> Vec<CachePrune> {
    if !settings.policy.is_empty() {
        return settings.policy.clone();
    }
    let part = |percent: u64| disk / 100 * percent;
    let bounds = match settings.bounds {
        // As in Docker.
        bounds if bounds == CacheBounds::default() => {
            CacheBounds { reserved: part(10), max_used: part(80), min_free: part(20) }
        }
        bounds => bounds,
    };
    let mut stale = Filters::default();
    stale.add("type", super::SOURCE);
    stale.add("type", super::MOUNT);
    stale.add("until", STALE);
    let max_used = (bounds.reserved / 1000 * TEMPORARY_PART).max(TEMPORARY);
    let temporary = CacheBounds { max_used, ..CacheBounds::default() };
    vec![
        CachePrune { all: false, bounds: temporary, filters: stale },
        CachePrune { all: false, bounds, filters: Filters::default() },
        CachePrune { all: true, bounds, filters: Filters::default() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_measured_by_one_at_a_time_and_after_every_build() {
        let ceiling = Ceiling::default();
        assert!(ceiling.begin(false));
        assert!(!ceiling.begin(false) && !ceiling.begin(true));
        assert!(ceiling.go_on(), "a build has ended meanwhile");
        assert!(!ceiling.go_on());
        assert!(!ceiling.begin(false), "that was just now");
        assert!(ceiling.begin(true));
    }

    #[test]
    fn rules_are_those_of_the_settings_or_parts_of_the_disk() {
        let mut settings = BuildCacheSettings::default();
        let of_disk = rules(&settings, 100_000_000_000);
        let whole =
            CacheBounds { reserved: 10_000_000_000, max_used: 80_000_000_000, min_free: 20_000_000_000 };
        assert_eq!(of_disk.iter().map(|rule| rule.all).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!((of_disk[0].bounds.max_used, of_disk[1].bounds), (1_380_000_000, whole));
        settings.bounds = CacheBounds { reserved: 1, ..CacheBounds::default() };
        let given = rules(&settings, 100_000_000_000);
        assert_eq!((given[0].bounds.max_used, given[2].bounds), (TEMPORARY, settings.bounds));
        settings.policy = vec![CachePrune { all: true, ..CachePrune::default() }];
        assert_eq!(rules(&settings, 1).len(), 1);
    }
}
