//! Removal of all containers that do not run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_api::StringMap;
use berth_api::container::PruneResponse;
use berth_api::duration;
use berth_api::filter::Filters;
use jiff::Timestamp;

use super::owner::{Request, ask};
use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::event::Event;
use crate::list::filter::{check_known, has_all};
use crate::{Engine, Error, inspect, op};

const KNOWN: [&str; 3] = ["label", "label!", "until"];

/// Which containers are to go.
struct Selection {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Selection {
    fn new(filters: Filters, now: Timestamp) -> Result<Self, Error> {
        check_known(&filters, &KNOWN)?;
        let until = until(&filters, now)?;
        Ok(Self { filters, until })
    }

    fn has(&self, created: Timestamp, labels: Option<&StringMap>) -> bool {
        self.until.is_none_or(|until| created <= until) && is_labelled(&self.filters, labels)
    }
}

/// The moment that the filter `until` gives.
pub(crate) fn until(filters: &Filters, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let mut given = filters.get("until");
    let until = given.next().map(|text| duration::at(text, now)).transpose();
    let until = until.map_err(Error::InvalidParameter)?;
    match given.next() {
        Some(_) => Err(Error::InvalidParameter("more than one until filter specified".into())),
        None => Ok(until),
    }
}

/// Whether the filters `label` and `label!` let something with these labels go. As in Docker, it is spared if it has all
/// labels of `label!`.
pub(crate) fn is_labelled(filters: &Filters, labels: Option<&StringMap>) -> bool {
    let spared = filters.has("label!") && has_all(filters, "label!", labels);
    has_all(filters, "label", labels) && !spared
}

/// One prune at a time: two would each count what the other removes.
pub(crate) struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    pub(crate) fn take(taken: &'a AtomicBool) -> Result<Self, Error> {
        match taken.swap(true, Ordering::AcqRel) {
            true => Err(Error::Conflict("a prune operation is already running".into())),
            false => Ok(Self(taken)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Removes all containers that do not run and satisfy the filters. One that cannot be removed stays, without an
    /// error.
    pub async fn prune(&self, filters: Filters) -> Result<PruneResponse, Error> {
        let _turn = Turn::take(&self.parts.pruning)?;
        let selection = Selection::new(filters, Timestamp::now())?;
        let mut containers = self.parts.containers.all();
        containers.sort_by_key(|container| std::cmp::Reverse(container.definition.created));
        let mut report = PruneResponse::default();
        for container in containers {
            let definition = &container.definition;
            if is_up(&container.state())
                || !selection.has(definition.created, definition.config.labels.as_ref())
            {
                continue;
            }
            let written = self.written(&container).await;
            match ask(&container, |answer| Request::Remove(op::Remove::default(), answer)).await {
                Ok(()) => {
                    report.space_reclaimed += written;
                    report.containers_deleted.get_or_insert_default().push(container.id().to_owned());
                }
                Err(error) => {
                    tracing::warn!(container = container.id(), %error, "prune left a container");
                }
            }
        }
        self.parts.events.publish(Event::ContainersPruned { reclaimed: report.space_reclaimed });
        Ok(report)
    }

    /// Bytes that a container wrote, its log among them; none if that cannot be told any more.
    async fn written(&self, container: &Arc<Container>) -> u64 {
        let (parts, container) = (Arc::clone(&self.parts), Arc::clone(container));
        let sizes = blocking(move || {
            let (written, _) = inspect::sizes(&parts, &container.definition)?;
            let written = written.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            Ok(written + crate::usage::log_size(&parts, container.id()))
        });
        sizes.await.unwrap_or_default()
    }
}

fn is_up(state: &State) -> bool {
    matches!(state, State::Running(_) | State::Restarting(_) | State::Starting { .. } | State::Removing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(filters: &str) -> Result<Selection, String> {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        Selection::new(Filters::parse(filters).unwrap(), now).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_are_dockers() {
        let old = Timestamp::new(1_600_000_000, 0).unwrap();
        let new = Timestamp::new(1_699_999_999, 0).unwrap();
        let labels = StringMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        for (filters, created, labelled, goes) in [
            ("{}", new, false, true),
            (r#"{"until":["10m"]}"#, new, false, false),
            (r#"{"until":["10m"]}"#, old, false, true),
            (r#"{"until":["2021-01-01"]}"#, old, false, true),
            (r#"{"until":["1600000000"]}"#, old, false, true),
            (r#"{"until":["1599999999"]}"#, old, false, false),
            (r#"{"label":["a=1","b"]}"#, new, true, true),
            (r#"{"label":["a=2"]}"#, new, true, false),
            (r#"{"label":["a"]}"#, new, false, false),
            (r#"{"label!":["a"]}"#, new, true, false),
            (r#"{"label!":["a=2"]}"#, new, true, true),
            (r#"{"label!":["a"]}"#, new, false, true),
            (r#"{"label!":["a","c"]}"#, new, true, true),
        ] {
            let labels = labelled.then_some(&labels);
            assert_eq!(select(filters).unwrap().has(created, labels), goes, "{filters}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |filters: &str| select(filters).err().unwrap();
        assert_eq!(refused(r#"{"name":["x"]}"#), "invalid filter 'name'");
        assert_eq!(refused(r#"{"until":["1m","2m"]}"#), "more than one until filter specified");
        assert!(refused(r#"{"until":["soon"]}"#).contains("soon"));
    }

    #[test]
    fn one_prunes_at_a_time() {
        let flag = AtomicBool::new(false);
        let turn = Turn::take(&flag).unwrap();
        let refused = Turn::take(&flag).err().unwrap();
        assert_eq!(refused.to_string(), "a prune operation is already running");
        drop(turn);
        Turn::take(&flag).unwrap();
    }
}
