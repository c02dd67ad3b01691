//! Which records of a log are asked for.

use jiff::Timestamp;

/// Which records of a log are asked for; the default is all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query {
    /// Only the last this many lines (before `since` and `until` are looked at).
    pub tail: Option<u64>,
    /// Only records from this moment on.
    pub since: Option<Timestamp>,
    /// Only records up to this moment.
    pub until: Option<Timestamp>,
}

impl Query {
    pub(super) fn is_before(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time < since)
    }

    pub(super) fn is_past(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time > until)
    }
}
