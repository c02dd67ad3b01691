//! Names of images: looking up, giving, taking away.

use berth_oci::{Digest, ImageConfig, Reference};
use berth_storage::{ImageRecord, Tag};

use crate::{Error, Images, Result, hello};

/// Shortest ID prefix that is looked for; Docker has no bound, but one digit names nothing.
const SHORTEST: usize = 1;

/// An image that a name or ID stands for.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// What is recorded of it.
    pub record: ImageRecord,
    /// Its configuration.
    pub config: ImageConfig,
}

/// A container that stands in the way of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The container's ID.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// One step of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone; as people write it.
    Untagged(String),
    /// The image or one of its layers is gone.
    Deleted(Digest),
}

/// How the user named an image.
pub(crate) enum Found {
    Name(ImageRecord, Reference),
    Id(ImageRecord),
}

impl Images {
    /// The image that `name` stands for: a name, a digest, or an ID or the beginning of one. `hello`, which is part of
    /// this program, is made when it is first asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`]; a malformed name; database errors.
    pub fn resolve(&self, name: &str) -> Result<ResolvedImage> {
        let (Found::Name(record, _) | Found::Id(record)) = self.find_or_make(name)?;
        let config = self.config(&record.id)?;
        Ok(ResolvedImage { record, config })
    }

    pub(crate) fn find_or_make(&self, name: &str) -> Result<Found> {
        match self.find(name) {
            Err(Error::NotFound(_)) if hello::is_meant(name) => {
                hello::make(self.storage())?;
                self.find(name)
            }
            found => found,
        }
    }

    /// The ID of the image that `name` stands for, if it is stored.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn id(&self, name: &str) -> Result<Digest> {
        let (Found::Name(record, _) | Found::Id(record)) = self.find(name)?;
        Ok(record.id)
    }

    pub(crate) fn find(&self, name: &str) -> Result<Found> {
        let images = self.storage().images();
        if let Ok(id) = name.parse::<Digest>() {
            let found = images.get(&id)?;
            return found.map(Found::Id).ok_or_else(|| Error::NotFound(name.to_owned()));
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let may_be_id = (SHORTEST..=64).contains(&hex.len())
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let reference = match name.parse::<Reference>() {
            Ok(reference) => reference.with_default_tag(),
            Err(_) if may_be_id => return self.by_prefix(hex, name),
            Err(error) => return Err(error.into()),
        };
        let wanted = match reference.digest() {
            Some(digest) => reference.at(digest.clone()),
            None => reference.clone(),
        };
        if let Some(record) = images.by_name(&wanted.canonical())? {
            return Ok(Found::Name(record, wanted));
        }
        if may_be_id {
            return self.by_prefix(hex, &reference.familiar());
        }
        Err(Error::NotFound(reference.familiar()))
    }

    fn by_prefix(&self, hex: &str, name: &str) -> Result<Found> {
        match self.storage().images().by_prefix(hex) {
            Ok(Some(record)) => Ok(Found::Id(record)),
            Ok(None) => Err(Error::NotFound(name.to_owned())),
            Err(berth_storage::Error::Ambiguous { .. }) => Err(Error::Ambiguous(hex.to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the image `name` one more name: `repository` with `tag`, `latest` if that is empty. A name that stands for
    /// several platforms passes all of them on.
    ///
    /// # Errors
    /// As [`Images::resolve`]; a malformed name.
    pub fn tag(&self, name: &str, repository: &str, tag: &str) -> Result<ImageRecord> {
        let found = self.find_or_make(name)?;
        let reference: Reference = repository.parse()?;
        if reference.digest().is_some() {
            return Err(Error::Reference(berth_oci::reference::ReferenceError::Format));
        }
        let reference = if tag.is_empty() { reference.with_default_tag() } else { reference.tagged(tag)? };
        if reference.familiar_repository() == "sha256" {
            return Err(Error::AmbiguousName);
        }
        let images = self.storage().images();
        let (record, target) = match found {
            Found::Name(record, from) => (record, images.target(&from.canonical())?),
            Found::Id(record) => (record, None),
        };
        let target = target.unwrap_or_else(|| record.id.clone());
        images.tag(&record.id, &Tag { name: reference.canonical(), target })?;
        Ok(record)
    }

    /// Removes a name, and with its last name the image; or, by ID, the image with its names. `in_use` tells the
    /// containers of an image. Gives the image's ID, and what is gone.
    ///
    /// # Errors
    /// [`Error::Conflict`] in Docker's words; as [`Images::resolve`].
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: impl Fn(&Digest) -> Vec<InUse>,
    ) -> Result<(Digest, Vec<Removed>)> {
        let found = self.find(name)?;
        let removed = match &found {
            Found::Name(record, reference) => self.remove_name(name, record, reference, force, in_use),
            Found::Id(record) => self.remove_image(record, force, in_use),
        };
        let (Found::Name(record, _) | Found::Id(record)) = found;
        Ok((record.id, removed?))
    }

    fn remove_name(
        &self,
        given: &str,
        record: &ImageRecord,
        reference: &Reference,
        force: bool,
        in_use: impl Fn(&Digest) -> Vec<InUse>,
    ) -> Result<Vec<Removed>> {
        let repository = reference.name();
        let mut gone = vec![reference.clone()];
        let others: Vec<Reference> =
            self.references(&record.id)?.into_iter().filter(|other| other != reference).collect();
        // The digests of a repository go with its last tag.
        let of_repository = || others.iter().filter(|other| other.name() == repository);
        if reference.digest().is_none() && of_repository().all(|other| other.digest().is_some()) {
            gone.extend(of_repository().cloned());
        }
        let last = others.iter().all(|other| gone.contains(other));
        let all: Vec<&Reference> = others.iter().chain([reference]).collect();
        let orphans = self.orphans(&record.id, &gone)?;
        let mut users = if last || is_single(&all) { in_use(&record.id) } else { Vec::new() };
        users.extend(orphans.iter().flat_map(|orphan| in_use(&orphan.id)));
        if let Some(user) = users.first()
            && !force
        {
            return Err(Error::Conflict {
                action: format!("remove repository reference {given:?}"),
                how: "must force",
                reason: format!(
                    "container {} is using its referenced image {}",
                    short(&user.container),
                    record.id.short()
                ),
            });
        }
        let mut removed = Vec::new();
        for name in &gone {
            self.storage().images().untag(&name.canonical())?;
            removed.push(Removed::Untagged(name.familiar()));
        }
        // What a running container stands on stays, without a name.
        for image in last.then_some(record).into_iter().chain(&orphans) {
            if !in_use(&image.id).iter().any(|user| user.running) {
                removed.extend(self.delete(image)?);
            }
        }
        Ok(removed)
    }

    fn remove_image(
        &self,
        record: &ImageRecord,
        force: bool,
        in_use: impl Fn(&Digest) -> Vec<InUse>,
    ) -> Result<Vec<Removed>> {
        let conflict = |how, reason| {
            Err(Error::Conflict { action: format!("delete {}", record.id.short()), how, reason })
        };
        let names = self.references(&record.id)?;
        let orphans = self.orphans(&record.id, &names)?;
        let images = || std::iter::once(record).chain(&orphans);
        let users: Vec<InUse> = images().flat_map(|image| in_use(&image.id)).collect();
        if let Some(user) = users.iter().find(|user| user.running) {
            let reason = format!("image is being used by running container {}", short(&user.container));
            return conflict("cannot be forced", reason);
        }
        if !force && !names.is_empty() && !is_single(&names.iter().collect::<Vec<_>>()) {
            return conflict("must be forced", "image is referenced in multiple repositories".to_owned());
        }
        if let Some(user) = users.first()
            && !force
        {
            let reason = format!("image is being used by stopped container {}", short(&user.container));
            return conflict("must be forced", reason);
        }
        let mut removed: Vec<Removed> = names.iter().map(|name| Removed::Untagged(name.familiar())).collect();
        for image in images() {
            removed.extend(self.delete(image)?);
        }
        Ok(removed)
    }

    /// Removes an image with its names if no container uses it and its names are still `names`; gives what is gone.
    ///
    /// # Errors
    /// [`Error::NotFound`]; database and file errors.
    pub fn remove_unused(
        &self,
        id: &Digest,
        names: &[Reference],
        in_use: impl Fn(&Digest) -> Vec<InUse>,
    ) -> Result<Vec<Removed>> {
        let record = self.storage().images().get(id)?.ok_or_else(|| Error::NotFound(id.to_string()))?;
        let orphans = self.orphans(id, names)?;
        let images = || std::iter::once(&record).chain(&orphans);
        let used = images().any(|image| !in_use(&image.id).is_empty());
        // What another name covers is no more unused than that name's image.
        if used || self.references(id)? != names || self.is_covered(id)? {
            return Ok(Vec::new());
        }
        let mut removed: Vec<Removed> = names.iter().map(|name| Removed::Untagged(name.familiar())).collect();
        for image in images() {
            removed.extend(self.delete(image)?);
        }
        Ok(removed)
    }

    fn delete(&self, record: &ImageRecord) -> Result<Vec<Removed>> {
        let outcome = self.storage().images().remove(&record.id)?;
        let layers = outcome.layers.into_iter().map(Removed::Deleted);
        Ok([Removed::Deleted(record.id.clone())].into_iter().chain(layers).collect())
    }

    /// The names of an image.
    ///
    /// # Errors
    /// Database errors.
    pub fn references(&self, id: &Digest) -> Result<Vec<Reference>> {
        let tags = self.storage().images().names(id)?;
        Ok(tags.iter().filter_map(|tag| tag.name.parse().ok()).collect())
    }
}

/// Whether names are one tag at most, and all of one repository.
fn is_single(names: &[&Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    tags <= 1 && names.windows(2).all(|pair| pair[0].name() == pair[1].name())
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_tags_or_repositories_are_more_than_one_name() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        let at = |name: &str| format!("{name}{digest}");
        for (names, single) in [
            (vec!["a:b".to_owned()], true),
            (vec!["a:b".to_owned(), at("a")], true),
            (vec![at("a")], true),
            (vec!["a:b".to_owned(), "a:c".to_owned()], false),
            (vec!["a:b".to_owned(), at("other")], false),
        ] {
            let parsed: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
            assert_eq!(is_single(&parsed.iter().collect::<Vec<_>>()), single, "{names:?}");
        }
    }
}
