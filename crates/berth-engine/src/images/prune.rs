//! Removal of all images that nothing uses.

use std::collections::HashSet;
use std::sync::Arc;

use berth_api::StringMap;
use berth_api::filter::Filters;
use berth_api::image::PruneResponse;
use berth_image::{InUse, Removed};
use berth_oci::{Digest, Reference};
use berth_storage::{BlobKind, ImageRecord, Listed};
use jiff::Timestamp;

use super::list::{labels, truth};
use super::removed_items;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::Event;
use crate::life::prune::{Turn, is_labelled, until};
use crate::list::filter::check_known;
use crate::{Engine, Error};

const KNOWN: [&str; 5] = ["dangling", "keep-storage", "label", "label!", "until"];

/// Which images are to go, unless a container uses them.
struct Selection {
    filters: Filters,
    /// Only those without a tag.
    dangling: bool,
    until: Option<Timestamp>,
    /// Bytes of the store at which nothing more is removed. Berth's own.
    keep: Option<u64>,
}

impl Selection {
    fn new(filters: Filters, now: Timestamp) -> Result<Self, Error> {
        check_known(&filters, &KNOWN)?;
        let dangling = truth(&filters, "dangling")?.unwrap_or(true);
        let until = until(&filters, now)?;
        let keep = keep(&filters)?;
        Ok(Self { filters, dangling, until, keep })
    }

    fn has(&self, record: &ImageRecord, labels: &StringMap, names: &[Reference]) -> bool {
        let tagged = names.iter().any(|name| name.digest().is_none());
        !(self.dangling && tagged)
            && self.until.is_none_or(|until| record.created.is_some_and(|created| created <= until))
            && is_labelled(&self.filters, Some(labels))
    }
}

/// The value of `keep-storage` in bytes.
fn keep(filters: &Filters) -> Result<Option<u64>, Error> {
    let mut given = filters.get("keep-storage");
    let Some(text) = given.next() else { return Ok(None) };
    match (text.parse(), given.next()) {
        (Ok(bytes), None) => Ok(Some(bytes)),
        _ => Err(Error::InvalidParameter(format!("invalid filter 'keep-storage={text}'"))),
    }
}

impl Engine {
    /// Removes all images that satisfy the filters and that no container and no build uses: those without a tag, unless the filter
    /// `dangling` is false. With `keep-storage`, only as many as it takes, those first that were not used for longest, and
    /// compressed layers before them. What it reports as freed are the bytes of the files that are gone.
    pub async fn image_prune(&self, filters: Filters) -> Result<PruneResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let _turn = Turn::take(&parts.pruning_images)?;
            let selection = Selection::new(filters, Timestamp::now())?;
            let mut report = PruneResponse::default();
            match selection.keep {
                Some(bytes) => shrink(&parts, &selection, bytes, &mut report)?,
                None => {
                    for image in parts.storage.images().listed()? {
                        // It may have gone meanwhile, or come into use.
                        if let Err(error) = prune(&parts, &selection, &image, &mut report) {
                            tracing::debug!(image = %image.record.id, %error, "prune left an image");
                        }
                    }
                }
            }
            parts.events.publish(Event::ImagesPruned { reclaimed: report.space_reclaimed });
            Ok(report)
        })
        .await
    }
}

fn names(image: &Listed) -> Vec<Reference> {
    image.names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Removes an image, if it is selected and nothing is in the way: neither a container nor a build that uses it.
fn prune(
    parts: &Parts,
    selection: &Selection,
    image: &Listed,
    report: &mut PruneResponse,
) -> Result<(), Error> {
    // A platform of a name goes with that name's image.
    if parts.images.is_covered(&image.record.id)? {
        return Ok(());
    }
    let names = names(image);
    // One that others were made from goes with the last of them, unless it has a name to lose.
    let parent = image.has_children && (names.is_empty() || selection.dangling);
    let Some(labels) = labels(parts, &image.record).filter(|_| !parent) else { return Ok(()) };
    if !selection.has(&image.record, &labels, &names) {
        return Ok(());
    }
    let removed = parts.steps.unless_used(&image.record.id, |is_used| {
        let build = || vec![InUse { container: "of a build".into(), running: true }];
        let users = |id: &Digest| if is_used(id) { build() } else { parts.users(id) };
        parts.images.remove_unused(&image.record.id, &names, &users)
    });
    let Some(removed) = removed.transpose()?.filter(|removed| !removed.is_empty()) else { return Ok(()) };
    let freed = |item: &Removed| if let Removed::Layer(_, bytes) = item { *bytes } else { 0 };
    report.space_reclaimed += removed.iter().map(freed).sum::<u64>();
    report.images_deleted.get_or_insert_default().extend(removed_items(parts, removed));
    Ok(())
}

/// Removes what was not used for longest until the store takes no more than `keep` bytes: compressed layers, which can be
/// had again, those first that came in part, and then images.
fn shrink(parts: &Parts, selection: &Selection, keep: u64, report: &mut PruneResponse) -> Result<(), Error> {
    let storage = &parts.storage;
    let layers: u64 = storage.layers().list()?.iter().map(|layer| layer.size).sum();
    let cached = storage.blobs().total(BlobKind::Layer)?;
    let documents = storage.blobs().total(BlobKind::Document)?;
    let mut parts_of_blobs = storage.blobs().partial()?;
    let begun: u64 = parts_of_blobs.iter().map(|part| part.size).sum();
    let excess = (layers + cached + documents + begun).saturating_sub(keep);
    if excess == 0 {
        return Ok(());
    }
    parts_of_blobs.sort_by_key(|part| part.modified);
    for part in parts_of_blobs {
        if report.space_reclaimed < excess && storage.blobs().forget(&part.name)? {
            report.space_reclaimed += part.size;
        }
    }
    let excess_of_layers = excess.saturating_sub(report.space_reclaimed);
    report.space_reclaimed += storage.blobs().shrink(cached.saturating_sub(excess_of_layers))?;
    let mut tried = HashSet::new();
    while report.space_reclaimed < excess {
        let mut images = storage.images().listed()?;
        images.sort_by_key(|image| image.used);
        // Children go before parents, which may be older; each is tried once.
        let next = images.into_iter().find(|image| {
            let unused = !image.has_children && parts.users(&image.record.id).is_empty();
            unused && tried.insert(image.record.id.clone())
        });
        let Some(image) = next else { break };
        if let Err(error) = prune(parts, selection, &image, report) {
            tracing::debug!(image = %image.record.id, %error, "prune left an image");
        }
    }
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
        let record = ImageRecord { id, chain: None, size: 0, created, parent: None, labels: None };
        let labels = StringMap::from([("keep".to_owned(), "yes".to_owned())]);
        let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        Ok(selection.has(&record, &labels, &names))
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
        for (text, bytes) in [("10", Ok(Some(10))), ("x", Err(())), ("-1", Err(())), ("1.5", Err(()))] {
            let filters = Filters::parse(&format!(r#"{{"keep-storage":["{text}"]}}"#)).unwrap();
            assert_eq!(keep(&filters).map_err(drop), bytes, "{text}");
        }
    }
}
