//! Which images the names of a request stand for.

use berth_oci::{Digest, ImageConfig, Reference};
use berth_storage::ImageRecord;

use crate::names::ResolvedImage;
use crate::{Error, Images, Result};

/// An image that is to be saved, with the names that go into the archive.
pub(super) struct Selected {
    pub record: ImageRecord,
    pub config: ImageConfig,
    /// The index that its names point to, if more of this is kept.
    pub index: Option<Digest>,
    pub names: Vec<Reference>,
}

impl Images {
    /// Each image once, in the order of the first name that stands for it.
    pub(super) fn select(&self, names: &[String]) -> Result<Vec<Selected>> {
        let mut selected: Vec<Selected> = Vec::new();
        for name in names {
            for (id, reference) in self.named(name)? {
                let index = self.index_of(&id, reference.as_ref())?;
                let known = selected.iter().position(|image| image.record.id == id && image.index == index);
                let image = match known {
                    Some(index) => &mut selected[index],
                    None => {
                        let ResolvedImage { record, config } = self.resolve(&id.to_string())?;
                        selected.push(Selected { record, config, index, names: Vec::new() });
                        let last = selected.len() - 1;
                        &mut selected[last]
                    }
                };
                if let Some(reference) = reference
                    && !image.names.contains(&reference)
                {
                    image.names.push(reference);
                }
            }
        }
        Ok(selected)
    }

    /// The index by which a name, or the first name of an image that was named by its ID, leads to several platforms.
    fn index_of(&self, id: &Digest, name: Option<&Reference>) -> Result<Option<Digest>> {
        let images = self.storage().images();
        let target = match name {
            Some(name) => images.target(&name.canonical())?,
            None => images.names(id)?.into_iter().next().map(|tag| tag.target),
        };
        let Some(target) = target else { return Ok(None) };
        let several = images.variants(&target)?.len() > 1;
        Ok(several.then_some(target))
    }

    /// The images of one name, with the tags that go along: that of the name, or all of a repository.
    fn named(&self, name: &str) -> Result<Vec<(Digest, Option<Reference>)>> {
        let reference = name.parse::<Reference>().ok().filter(|reference| reference.digest().is_none());
        let resolved = |name: &str| Ok::<_, Error>(self.resolve(name)?.record.id);
        let Some(reference) = reference else { return Ok(vec![(resolved(name)?, None)]) };
        if reference.tag().is_some() {
            let id = resolved(name)?;
            // Something like sha256:1234 is a name by its form, and mostly an ID.
            let by_name = self.storage().images().by_name(&reference.canonical())?;
            let is_name = by_name.is_some_and(|record| record.id == id);
            return Ok(vec![(id, is_name.then_some(reference))]);
        }
        let mut tags = self.tags_of(&reference)?;
        if tags.is_empty() {
            let id = resolved(name).map_err(|error| match error {
                Error::NotFound(_) => Error::NotFound(name.to_owned()),
                error => error,
            })?;
            // What was made at this moment has a tag now.
            tags = self.tags_of(&reference)?;
            if tags.is_empty() {
                return Ok(vec![(id, None)]);
            }
        }
        Ok(tags.into_iter().map(|(id, tag)| (id, Some(tag))).collect())
    }

    fn tags_of(&self, repository: &Reference) -> Result<Vec<(Digest, Reference)>> {
        let found = self.storage().images().tags_of(&repository.name())?;
        Ok(found.into_iter().filter_map(|(name, id)| Some((id, name.parse().ok()?))).collect())
    }
}
