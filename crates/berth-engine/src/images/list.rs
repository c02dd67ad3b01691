//! The list of images and its filters.

use std::sync::Arc;

use berth_api::filter::Filters;
use berth_api::{StringMap, duration, image};
use berth_oci::Reference;
use berth_storage::ImageRecord;
use jiff::Timestamp;

use super::manifests::{sizes, summaries, users};
use super::names;
use crate::blocking::blocking;
use crate::engine::Parts;
use crate::inspect::to_signed;
use crate::life::prune::is_labelled;
use crate::{Engine, Error};

const KNOWN: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

impl Engine {
    /// Images, the newest first. All that are kept are final, so that `all` adds none to those without a name.
    pub async fn image_list(&self, all: bool, filters: Filters) -> Result<Vec<image::Summary>, Error> {
        let parts = Arc::clone(&self.parts);
        let _ = all;
        blocking(move || list(&parts, &filters, false)).await
    }

    /// The same with all that their names point to: platforms, and notes about them.
    pub async fn image_list_with_manifests(&self, filters: Filters) -> Result<Vec<image::Summary>, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || list(&parts, &filters, true)).await
    }
}

fn list(parts: &Parts, filters: &Filters, manifests: bool) -> Result<Vec<image::Summary>, Error> {
    let filter = Filter::new(parts, filters)?;
    let users = users(parts);
    // Platforms of other images are shown with these.
    let covered = parts.images.covered()?;
    let sizes = sizes(parts, &covered)?;
    let mut found = Vec::new();
    for record in parts.storage.images().list()? {
        if covered.contains(&record.id) {
            continue;
        }
        // It may be removed meanwhile.
        let Ok(config) = parts.images.config(&record.id) else { continue };
        let labels: StringMap = config.config.labels.into_iter().collect();
        let (mut repo_tags, mut repo_digests) = names(parts, &record.id)?;
        repo_tags.retain(|name| filter.is_named(name));
        repo_digests.retain(|name| filter.is_named(name));
        if !filter.has(&record, &repo_tags, &repo_digests, &labels) {
            continue;
        }
        let id = record.id.to_string();
        let (descriptor, listed) = match manifests {
            true => summaries(parts, &record, &users)?.unzip(),
            false => (None, None),
        };
        let size = to_signed(record.size).saturating_add(sizes.get(&record.id).copied().unwrap_or_default());
        found.push(image::Summary {
            containers: users.get(&id).map_or(0, |users| i64::try_from(users.len()).unwrap_or(i64::MAX)),
            created: record.created.map_or(0, Timestamp::as_second),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            parent_id: String::new(),
            repo_digests,
            repo_tags,
            // As Docker: not computed for lists.
            shared_size: -1,
            size,
            id,
            descriptor,
            manifests: listed,
        });
    }
    Ok(found)
}

struct Filter<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

/// The value of a filter that is true or false.
pub(super) fn truth(filters: &Filters, name: &str) -> Result<Option<bool>, Error> {
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
        if let Some(name) = filters.names().find(|name| !KNOWN.contains(name)) {
            return Err(Error::InvalidParameter(format!("invalid filter '{name}'")));
        }
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
            before.push(until);
        }
        let dangling = truth(filters, "dangling")?;
        Ok(Self { filters, dangling, before: before.into_iter().min(), since })
    }

    /// Whether a name is among those asked for.
    fn is_named(&self, name: &str) -> bool {
        !self.filters.has("reference") || self.filters.get("reference").any(|wanted| is_like(wanted, name))
    }

    /// `tags` and `digests` are those names of the image that were asked for.
    fn has(&self, record: &ImageRecord, tags: &[String], digests: &[String], labels: &StringMap) -> bool {
        let created = record.created;
        let named = !(tags.is_empty() && digests.is_empty());
        let dangling = match self.dangling {
            None => true,
            Some(true) => tags.is_empty(),
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

/// Whether a familiar name matches a pattern with `*` and `?`, with or without its tag.
fn is_like(wanted: &str, name: &str) -> bool {
    let Ok(reference) = name.parse::<Reference>() else { return false };
    let repository = reference.familiar_repository();
    let same = |wanted: Reference| {
        wanted.name() == reference.name() && wanted.tag().is_none_or(|tag| Some(tag) == reference.tag())
    };
    // A pattern without wildcards may be written in full.
    [name, repository.as_str()].into_iter().any(|text| glob(wanted.as_bytes(), text.as_bytes()))
        || wanted.parse().is_ok_and(same)
}

/// Go's `path.Match` without its classes: `*` and `?` stay within one part of a path.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after the last star, should what follows it not match.
    let (mut at, mut position, mut star) = (0, 0, None);
    while position < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, position));
                at += 1;
            }
            Some(b'?') if text[position] != b'/' => (at, position) = (at + 1, position + 1),
            Some(byte) if *byte == text[position] => (at, position) = (at + 1, position + 1),
            _ => match star {
                Some((after, taken)) if text[taken] != b'/' => {
                    star = Some((after, taken + 1));
                    (at, position) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
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
            ("box", "busybox:latest", false),
        ] {
            assert_eq!(is_like(pattern, name), matches, "{pattern} {name}");
        }
    }
}
