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

    /// The names of an image.
    ///
    /// # Errors
    /// Database errors.
    pub fn references(&self, id: &Digest) -> Result<Vec<Reference>> {
        let tags = self.storage().images().names(id)?;
        Ok(tags.iter().filter_map(|tag| tag.name.parse().ok()).collect())
    }
}
