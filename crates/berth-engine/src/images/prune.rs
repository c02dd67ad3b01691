//! Removal of all images that nothing uses.

use std::collections::HashMap;
use std::sync::Arc;

use berth_api::StringMap;
use berth_api::filter::Filters;
use berth_api::image::{DeleteItem, PruneResponse};
use berth_oci::{Digest, ImageConfig, Reference};
use berth_storage::ImageRecord;
use jiff::Timestamp;

use super::list::truth;
use super::removed_items;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::Event;
use crate::life::prune::{Turn, is_labelled, until};
use crate::{Engine, Error};

const KNOWN: [&str; 4] = ["dangling", "label", "label!", "until"];

/// Which images are to go, unless a container uses them.
struct Selection {
    filters: Filters,
    /// Only those without a tag.
    dangling: bool,
    until: Option<Timestamp>,
}

impl Selection {
    fn new(filters: Filters, now: Timestamp) -> Result<Self, Error> {
        if let Some(name) = filters.names().find(|name| !KNOWN.contains(name)) {
            return Err(Error::InvalidParameter(format!("invalid filter '{name}'")));
        }
        let dangling = truth(&filters, "dangling")?.unwrap_or(true);
        let until = until(&filters, now)?;
        Ok(Self { filters, dangling, until })
    }

    fn has(&self, record: &ImageRecord, config: &ImageConfig, names: &[Reference]) -> bool {
        let labels: StringMap = config.config.labels.clone().into_iter().collect();
        let tagged = names.iter().any(|name| name.digest().is_none());
        !(self.dangling && tagged)
            && self.until.is_none_or(|until| record.created.is_some_and(|created| created <= until))
            && is_labelled(&self.filters, Some(&labels))
    }
}

impl Engine {
    /// Removes all images that satisfy the filters and that no container uses: those without a tag, unless the filter
    /// `dangling` is false. What it reports as freed are the bytes of the files of layers that are gone.
    pub async fn image_prune(&self, filters: Filters) -> Result<PruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let _turn = Turn::take(&parts.pruning_images)?;
            let selection = Selection::new(filters, Timestamp::now())?;
            let mut report = PruneResponse::default();
            for record in parts.storage.images().list()? {
                // It may have gone meanwhile, or come into use.
                if let Err(error) = prune(&parts, &selection, &record, &mut report) {
                    tracing::debug!(image = %record.id, %error, "prune left an image");
                }
            }
            parts.events.publish(Event::ImagesPruned { reclaimed: report.space_reclaimed });
            Ok(report)
        })
        .await
    }
}

fn prune(
    parts: &Parts,
    selection: &Selection,
    record: &ImageRecord,
    report: &mut PruneResponse,
) -> Result<(), Error> {
    let config = parts.images.config(&record.id)?;
    // A platform of a name goes with that name's image.
    if parts.images.is_covered(&record.id)? {
        return Ok(());
    }
    let names = parts.images.references(&record.id)?;
    if !selection.has(record, &config, &names) || !parts.users(&record.id).is_empty() {
        return Ok(());
    }
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    for chain in berth_oci::chain_ids(&config.rootfs.diff_ids) {
        if let Some(layer) = parts.storage.layers().get(&chain)? {
            sizes.insert(chain, layer.size);
        }
    }
    let removed = parts.images.remove_unused(&record.id, &names, |id| parts.users(id))?;
    let items = removed_items(parts, &record.id, removed);
    for item in &items {
        let DeleteItem::Deleted(digest) = item else { continue };
        let size = digest.parse().ok().and_then(|digest: Digest| sizes.get(&digest).copied());
        report.space_reclaimed += size.unwrap_or_default();
    }
    report.images_deleted.get_or_insert_default().extend(items);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(filters: &str, created: Option<i64>, names: &[&str]) -> Result<bool, String> {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        let selection =
            Selection::new(Filters::parse(filters).unwrap(), now).map_err(|error| error.to_string())?;
        let created = created.map(|second| Timestamp::new(second, 0).unwrap());
        let id: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let record = ImageRecord { id, chain: None, size: 0, created };
        let mut config = ImageConfig::default();
        config.config.labels.insert("keep".into(), "yes".into());
        let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        Ok(selection.has(&record, &config, &names))
    }

    #[test]
    fn filters_are_dockers() {
        let digest = format!("a@sha256:{}", "cd".repeat(32));
        for (filters, created, names, goes) in [
            ("{}", Some(1), &[][..], true),
            ("{}", Some(1), &[digest.as_str()], true),
            ("{}", Some(1), &["a:b"], false),
            (r#"{"dangling":["false"]}"#, Some(1), &["a:b"], true),
            (r#"{"dangling":["1"]}"#, Some(1), &["a:b"], false),
            (r#"{"until":["1h"]}"#, Some(1_699_999_000), &[], false),
            (r#"{"until":["10m"]}"#, Some(1_699_999_000), &[], true),
            (r#"{"until":["10m"]}"#, None, &[], false),
            (r#"{"label":["keep=no"]}"#, Some(1), &[], false),
            (r#"{"label":["keep"]}"#, Some(1), &[], true),
            (r#"{"label!":["keep"]}"#, Some(1), &[], false),
            (r#"{"label!":["other"]}"#, Some(1), &[], true),
        ] {
            assert_eq!(selects(filters, created, names), Ok(goes), "{filters} {names:?}");
        }
        assert_eq!(
            selects(r#"{"dangling":["perhaps"]}"#, None, &[]),
            Err("invalid filter 'dangling=perhaps'".into())
        );
        assert_eq!(selects(r#"{"name":["x"]}"#, None, &[]), Err("invalid filter 'name'".into()));
    }
}
