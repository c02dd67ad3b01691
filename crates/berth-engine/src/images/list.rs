//! The list of images and its filters.

use std::sync::Arc;

use berth_api::filter::Filters;
use berth_api::{StringMap, duration, image};
use berth_oci::Reference;
use berth_storage::{ImageRecord, Listed};
use jiff::Timestamp;

use super::manifests::{sizes, summaries, users};
use super::pattern::Pattern;
use super::sharing::Sharing;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::life::prune::is_labelled;
use crate::list::filter::check_known;
use crate::{Engine, Error, op};

const KNOWN: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

impl Engine {
    /// Images, the newest first. Those without a name from which others were made are shown with `all` only.
    pub async fn image_list(&self, list: op::ImageList) -> Result<Vec<image::Summary>, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let images = parts.storage.images().listed()?;
            let sharing = list.shared_size.then(|| Sharing::of(&parts, &images)).transpose()?;
            self::list(&parts, &list, images, sharing.as_ref())
        })
        .await
    }
}

/// Those of `images`, which are all, that are asked for. Without `sharing` it is not told what they share.
pub(crate) fn list(
    parts: &Parts,
    list: &op::ImageList,
    images: Vec<Listed>,
    sharing: Option<&Sharing>,
) -> Result<Vec<image::Summary>, Error> {
    let filter = Filter::new(parts, &list.filters)?;
    let users = users(parts);
    // Platforms of other images are shown with these.
    let covered = parts.images.covered()?;
    let sizes = sizes(parts, &covered)?;
    let mut found = Vec::new();
    for Listed { record, names, has_children, .. } in images {
        if covered.contains(&record.id) {
            continue;
        }
        let names = names.iter().filter_map(|name| name.parse::<Reference>().ok());
        let names = names.filter(|name| filter.is_named(name));
        let (digests, tags): (Vec<_>, Vec<_>) = names.partition(|name| name.digest().is_some());
        // It may be removed meanwhile.
        let Some(labels) = labels(parts, &record) else { continue };
        let nameless = tags.is_empty() && digests.is_empty();
        let hidden = nameless && has_children && !list.all;
        let is_parent = has_children && filter.dangling == Some(true);
        if hidden || is_parent || !filter.has(&record, !tags.is_empty(), !nameless, &labels) {
            continue;
        }
        let familiar = |names: Vec<Reference>| names.iter().map(Reference::familiar).collect();
        let id = record.id.to_string();
        let (descriptor, listed) = match list.manifests {
            true => summaries(parts, &record, &users)?.unzip(),
            false => (None, None),
        };
        let size = to_signed(record.size).saturating_add(sizes.get(&record.id).copied().unwrap_or_default());
        found.push(image::Summary {
            containers: users.get(&id).map_or(0, |users| i64::try_from(users.len()).unwrap_or(i64::MAX)),
            created: record.created.map_or(0, Timestamp::as_second),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            parent_id: record.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
            repo_digests: familiar(digests),
            repo_tags: familiar(tags),
            // As Docker: not computed for lists that do not ask for it.
            shared_size: sharing.map_or(-1, |sharing| sharing.shared(record.chain.as_ref())),
            size,
            id,
            descriptor,
            manifests: listed,
        });
    }
    Ok(found)
}

/// The labels of an image; none if it is gone.
pub(super) fn labels(parts: &Parts, record: &ImageRecord) -> Option<StringMap> {
    match &record.labels {
        Some(labels) => Some(labels.clone().into_iter().collect()),
        None => Some(parts.images.config(&record.id).ok()?.config.labels.into_iter().collect()),
    }
}

struct Filter<'a> {
    filters: &'a Filters,
    references: Vec<Pattern>,
    dangling: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

/// The value of a filter that is true or false.
pub(crate) fn truth(filters: &Filters, name: &str) -> Result<Option<bool>, Error> {
    let mut values = filters.get(name);
    let invalid = |value: &str| Err(Error::InvalidParameter(format!("invalid filter '{name}={value}'")));
    let found = match values.next() {
        None => return Ok(None),
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        Some(other) => return invalid(other),
    };
    values.next().map_or(Ok(Some(found)), invalid)
}

impl<'a> Filter<'a> {
    fn new(parts: &Parts, filters: &'a Filters) -> Result<Self, Error> {
        check_known(filters, &KNOWN)?;
        // Values of one filter add up: all must hold.
        let mut since = None;
        let mut before = Vec::new();
        for name in filters.get("since") {
            since = since.max(parts.images.resolve(name)?.record.created);
        }
        for name in filters.get("before") {
            before.extend(parts.images.resolve(name)?.record.created);
        }
        let now = Timestamp::now();
        for text in filters.get("until") {
            let until = duration::at(text, now).map_err(|error| {
                Error::InvalidParameter(format!("invalid value for 'until' filter: {error}"))
            })?;
            // As exact as what images are compared by.
            before.push(Timestamp::from_millisecond(until.as_millisecond()).unwrap_or(until));
        }
        let dangling = truth(filters, "dangling")?;
        let read = |text: &str| {
            Pattern::read(text).ok_or_else(|| Error::InvalidParameter("syntax error in pattern".into()))
        };
        let references = filters.get("reference").map(read).collect::<Result<_, _>>()?;
        Ok(Self { filters, references, dangling, before: before.into_iter().min(), since })
    }

    /// Whether a name is among those asked for.
    fn is_named(&self, name: &Reference) -> bool {
        !self.filters.has("reference") || self.references.iter().any(|wanted| is_like(wanted, name))
    }

    /// `tagged` and `named`: whether the image has tags, or names of any kind, among those that were asked for.
    fn has(&self, record: &ImageRecord, tagged: bool, named: bool, labels: &StringMap) -> bool {
        let created = record.created;
        let dangling = match self.dangling {
            None => true,
            Some(true) => !tagged,
            // A digest is a name too.
            Some(false) => named,
        };
        dangling
            && (named || !self.filters.has("reference"))
            && is_labelled(self.filters, Some(labels))
            && self.before.is_none_or(|before| created.is_some_and(|created| created < before))
            && self.since.is_none_or(|since| created.is_some_and(|created| created > since))
    }
}

/// Whether a name is like a pattern, as people write it or in full, with or without its tag.
fn is_like(wanted: &Pattern, name: &Reference) -> bool {
    wanted.matches(&name.familiar())
        || wanted.matches(&name.familiar_repository())
        || wanted.matches(&name.canonical())
        || wanted.matches(&name.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_matched_as_docker_does() {
        for (pattern, name, matches) in [
            ("busybox", "busybox:latest", true),
            ("busy*", "busybox:latest", true),
            ("busybox:l?test", "busybox:latest", true),
            ("busybox:v1", "busybox:latest", false),
            ("*", "team/app:v1", false),
            ("*/*", "team/app:v1", true),
            ("*/*:v1", "team/app:v1", true),
            ("docker.io/library/busybox", "busybox:latest", true),
            ("docker.io/library/busybox:*", "busybox:latest", true),
            ("docker.io/team/app", "team/app:v1", true),
            ("*5000*/*", "host:5000/app:v1", true),
            ("box", "busybox:latest", false),
        ] {
            let wanted = Pattern::read(pattern).unwrap();
            assert_eq!(is_like(&wanted, &name.parse().unwrap()), matches, "{pattern} {name}");
        }
    }
}
