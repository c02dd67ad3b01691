//! Removal of all volumes that no container has.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use berth_api::filter::Filters;
use berth_api::volume::PruneResponse;
use berth_archive::tree;
use rustix::fs::{CWD, Mode, OFlags};

use super::{LOCAL, is_anonymous, is_wanted};
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::{Event, VolumeEvent};
use crate::life::prune::Turn;
use crate::list::filter::check_known;
use crate::{Engine, Error};

const FILTERS: [&str; 3] = ["all", "label", "label!"];

impl Engine {
    /// Removes all volumes that no container has and that satisfy the filters: those without a name, and with the filter
    /// `all` others too. What is mounted from elsewhere stays, as in Docker.
    pub async fn volume_prune(&self, filters: Filters) -> Result<PruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let _turn = Turn::take(&parts.pruning_volumes)?;
            check_known(&filters, &FILTERS)?;
            let all = all(&filters)?;
            let mut report = PruneResponse::default();
            let users = parts.storage.volumes().users()?;
            for record in parts.storage.volumes().list()? {
                let is_plain = record.driver == LOCAL
                    && record.options.as_ref().is_none_or(|options| options.is_empty());
                let is_meant = all || is_anonymous(record.labels.as_ref());
                if !is_plain || !is_meant || users.contains_key(&record.name) || !is_wanted(&record, &filters)
                {
                    continue;
                }
                let size = size(&parts, &record.name).unwrap_or_default();
                match parts.volumes.remove(&record.name, false) {
                    Ok(driver) => {
                        parts.tell_volume(&record.name, driver, VolumeEvent::Destroy);
                        report.space_reclaimed += size;
                        report.volumes_deleted.push(record.name);
                    }
                    // It has come into use meanwhile, or has gone.
                    Err(error) => tracing::debug!(name = record.name, %error, "prune left a volume"),
                }
            }
            parts.events.publish(Event::VolumesPruned { reclaimed: report.space_reclaimed });
            Ok(report)
        })
        .await
    }
}

/// The filter `all`.
fn all(filters: &Filters) -> Result<bool, Error> {
    let given: Vec<&str> = filters.get("all").collect();
    match given[..] {
        [] => Ok(false),
        ["1" | "t" | "T" | "true" | "TRUE" | "True"] => Ok(true),
        ["0" | "f" | "F" | "false" | "FALSE" | "False"] => Ok(false),
        [other] => Err(Error::InvalidParameter(format!(
            "invalid filter 'all': strconv.ParseBool: parsing {other:?}: invalid syntax"
        ))),
        _ => Err(Error::InvalidParameter(format!(
            "invalid filter 'all=[{}]': only one value is expected",
            given.join(" ")
        ))),
    }
}

/// Bytes of a volume's files; none if they cannot be read. Blocks.
pub(crate) fn size(parts: &Parts, name: &str) -> Option<u64> {
    let place = CString::new(parts.volume_dir(name).into_os_string().into_encoded_bytes()).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let content = rustix::fs::openat(CWD, place.as_c_str(), flags, Mode::empty()).ok()?;
    tree::content_size(content.as_fd()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_all_is_true_or_false() {
        let read = |text: &str| all(&Filters::parse(text).unwrap()).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(false));
        assert_eq!(read(r#"{"all":["1"]}"#), Ok(true));
        assert_eq!(read(r#"{"all":["false"]}"#), Ok(false));
        assert!(read(r#"{"all":["some"]}"#).unwrap_err().starts_with("invalid filter 'all': "));
        assert!(read(r#"{"all":["0","1"]}"#).unwrap_err().ends_with("only one value is expected"));
    }
}
