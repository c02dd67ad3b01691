//! The last events, kept so that clients can ask for what happened before the daemon was started.

use std::sync::Arc;

use rusqlite::params;

use crate::database::{failed, integer, size};
use crate::{Result, Shared};

/// Access to events.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last events, at most `most`, with their numbers, the oldest first.
    ///
    /// # Errors
    /// Database errors.
    pub fn last(&self, most: usize) -> Result<Vec<(u64, String)>> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows: Vec<(u64, String)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare("SELECT sequence, message FROM events ORDER BY sequence DESC LIMIT ?")
                .map_err(failed("listing events"))?;
            let rows = statement.query_map([most], |row| Ok((size(row.get(0)?), row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing events"))
        })?;
        rows.reverse();
        Ok(rows)
    }

    /// Adds events, whose numbers grow, in one transaction; of all, the last `kept` stay.
    ///
    /// # Errors
    /// Database errors.
    pub fn add(&self, events: &[(u64, String)], kept: usize) -> Result<()> {
        let Some((last, _)) = events.last() else { return Ok(()) };
        let gone = last.saturating_sub(kept as u64);
        self.shared.write(|transaction| {
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO events (sequence, message) VALUES (?, ?)")
                .map_err(failed("recording events"))?;
            for (sequence, message) in events {
                insert.execute(params![integer(*sequence), message]).map_err(failed("recording events"))?;
            }
            transaction
                .prepare_cached("DELETE FROM events WHERE sequence <= ?")
                .and_then(|mut statement| statement.execute([integer(gone)]))
                .map(drop)
                .map_err(failed("forgetting events"))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, Storage};

    #[test]
    fn the_last_ones_stay_over_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Storage::open(temp.path().join("root"), Options::default()).unwrap();
        let storage = open();
        assert!(storage.events().last(10).unwrap().is_empty());
        storage.events().add(&[], 3).unwrap();
        let event = |sequence: u64| (sequence, format!("event {sequence}"));
        storage.events().add(&[event(1), event(2)], 3).unwrap();
        storage.events().add(&[event(3), event(4), event(5)], 3).unwrap();
        drop(storage);
        let storage = open();
        assert_eq!(storage.events().last(10).unwrap(), [event(3), event(4), event(5)]);
        assert_eq!(storage.events().last(2).unwrap(), [event(4), event(5)]);
    }
}
