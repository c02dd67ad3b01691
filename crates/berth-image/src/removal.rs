//! Taking names and images away, by the rules and in the words of classic Docker.
//!
//! A child image, and a container that runs, keep an image whatever is asked for; further names, and containers that do
//! not run, keep it unless its removal is forced. Parents that have lost their last child go with it, if nothing else
//! needs or names them.

use berth_oci::{Digest, Reference};
use berth_storage::ImageRecord;

use crate::names::Found;
use crate::{Error, Images, Result};

/// A container that stands in the way of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The container's ID.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// How something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Also with several names, or used by containers that do not run.
    pub force: bool,
    /// Remove parents without names as well.
    pub parents: bool,
}

/// One step of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged {
        /// The name, as people write it.
        name: String,
        /// The image that had it.
        image: Digest,
        /// It went because another name did; Docker has no event for it.
        along: bool,
    },
    /// The image is gone.
    Deleted(Digest),
    /// A layer is gone, with the bytes of its files.
    Layer(Digest, u64),
}

/// Why an image stays.
struct Obstacle {
    how: &'static str,
    reason: String,
    /// It is a container.
    used: bool,
}

/// What of the lesser reasons counts.
#[derive(Clone, Copy)]
struct Lesser {
    names: bool,
    stopped: bool,
}

type Users<'a> = &'a dyn Fn(&Digest) -> Vec<InUse>;

impl Images {
    /// Removes a name, and with its last name the image; or, by ID, the image with its names. `in_use` tells the
    /// containers of an image. Gives what is gone, in order.
    ///
    /// # Errors
    /// [`Error::Conflict`] in Docker's words; as [`Images::resolve`].
    pub fn remove(&self, name: &str, how: Removal, in_use: Users<'_>) -> Result<Vec<Removed>> {
        match self.find(name)? {
            Found::Name(record, reference) => self.remove_name(name, record, &reference, how, in_use),
            Found::Id(record) => self.remove_image(record, how, in_use),
        }
    }

    /// Removes an image that is unused: its names, where there are any, one by one, as far as nothing is in the way; its
    /// parents without names as well. A name that another image has by now stays.
    ///
    /// # Errors
    /// [`Error::Conflict`] for what is in the way of an image without a name; database and file errors.
    pub fn remove_unused(&self, id: &Digest, names: &[Reference], in_use: Users<'_>) -> Result<Vec<Removed>> {
        let how = Removal { force: false, parents: true };
        let mut removed = Vec::new();
        for name in names {
            let record = match self.storage().images().by_name(&name.canonical())? {
                Some(record) if record.id == *id => record,
                _ => continue,
            };
            match self.remove_name(&name.familiar(), record, name, how, in_use) {
                Ok(gone) => removed.extend(gone),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if names.is_empty() {
            let record = self.storage().images().get(id)?;
            let record = record.ok_or_else(|| Error::NotFound(id.to_string()))?;
            // What another name covers is no more unused than that name's image.
            if self.references(id)?.is_empty() && !self.is_covered(id)? {
                self.delete(record, how, false, in_use, &mut removed)?;
            }
        }
        Ok(removed)
    }

    /// Removes the image of a build's step if nothing names or uses it, and nothing else.
    ///
    /// # Errors
    /// [`Error::Conflict`] for what is in the way; [`Error::NotFound`]; database and file errors.
    pub fn remove_step(&self, id: &Digest, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let record = self.storage().images().get(id)?;
        let record = record.ok_or_else(|| Error::NotFound(id.to_string()))?;
        let mut removed = Vec::new();
        // What another name covers is no more unused than that name's image.
        if self.references(id)?.is_empty() && !self.is_covered(id)? {
            let how = Removal { force: false, parents: false };
            self.delete(record, how, false, in_use, &mut removed)?;
        }
        Ok(removed)
    }

    fn remove_name(
        &self,
        given: &str,
        record: ImageRecord,
        reference: &Reference,
        how: Removal,
        in_use: Users<'_>,
    ) -> Result<Vec<Removed>> {
        let names = self.references(&record.id)?;
        let orphans = self.orphans(&record.id, &going(&names, reference))?;
        let users = || orphans.iter().flat_map(|orphan| in_use(&orphan.id)).next();
        let own = || in_use(&record.id).into_iter().next().filter(|_| is_single(&names));
        if !how.force
            && let Some(user) = own().or_else(users)
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
        let mut removed = vec![self.untag(&record.id, reference, false)?];
        let mut left = self.references(&record.id)?;
        let along = going(&left, reference);
        for name in left.extract_if(.., |name| along.contains(name)) {
            removed.push(self.untag(&record.id, &name, true)?);
        }
        if left.is_empty() {
            self.delete(record, how, true, in_use, &mut removed)?;
        }
        for orphan in orphans {
            self.delete(orphan, how, true, in_use, &mut removed)?;
        }
        Ok(removed)
    }

    fn remove_image(&self, record: ImageRecord, how: Removal, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let names = self.references(&record.id)?;
        let orphans = self.orphans(&record.id, &names)?;
        let mut removed = Vec::new();
        if is_single(&names) {
            let lesser = Lesser { names: false, stopped: !how.force };
            for image in std::iter::once(&record).chain(&orphans) {
                if let Some(obstacle) = self.obstacle(image, lesser, in_use)? {
                    return Err(conflict(&record, obstacle));
                }
            }
            for name in &names {
                removed.push(self.untag(&record.id, name, false)?);
            }
        }
        self.delete(record, how, false, in_use, &mut removed)?;
        for orphan in orphans {
            self.delete(orphan, how, true, in_use, &mut removed)?;
        }
        Ok(removed)
    }

    fn untag(&self, image: &Digest, name: &Reference, along: bool) -> Result<Removed> {
        self.storage().images().untag(&name.canonical())?;
        Ok(Removed::Untagged { name: name.familiar(), image: image.clone(), along })
    }

    /// Removes an image and then, if asked for, its parents. `quiet`: what stands in the way is no error, unless the user
    /// would be left with an image that nothing names or uses.
    fn delete(
        &self,
        record: ImageRecord,
        how: Removal,
        quiet: bool,
        in_use: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let mut next = Some(record);
        let (mut force, mut quiet) = (how.force, quiet);
        while let Some(record) = next.take() {
            let lesser = Lesser { names: !force, stopped: !force };
            if let Some(obstacle) = self.obstacle(&record, lesser, in_use)? {
                let images = self.storage().images();
                let named = !images.names(&record.id)?.is_empty();
                if quiet && (obstacle.used || named || !images.children(&record.id)?.is_empty()) {
                    return Ok(());
                }
                return Err(conflict(&record, obstacle));
            }
            for name in self.references(&record.id)? {
                removed.push(self.untag(&record.id, &name, false)?);
            }
            let outcome = match self.storage().images().remove(&record.id) {
                // Somebody else was faster, which is as good.
                Err(berth_storage::Error::NotFound { .. }) if quiet => return Ok(()),
                outcome => outcome?,
            };
            removed.push(Removed::Deleted(record.id));
            removed.extend(outcome.layers.into_iter().map(|(chain, bytes)| Removed::Layer(chain, bytes)));
            if let Some(parent) = record.parent.filter(|_| how.parents) {
                next = self.storage().images().get(&parent)?;
            }
            (force, quiet) = (false, true);
        }
        Ok(())
    }

    fn obstacle(&self, record: &ImageRecord, lesser: Lesser, in_use: Users<'_>) -> Result<Option<Obstacle>> {
        let images = self.storage().images();
        if !images.children(&record.id)?.is_empty() {
            let reason = "image has dependent child images".to_owned();
            return Ok(Some(Obstacle { how: "cannot be forced", reason, used: false }));
        }
        let users = in_use(&record.id);
        let by = |user: &InUse, state: &str| {
            format!("image is being used by {state} container {}", short(&user.container))
        };
        if let Some(user) = users.iter().find(|user| user.running) {
            let reason = by(user, "running");
            return Ok(Some(Obstacle { how: "cannot be forced", reason, used: true }));
        }
        if lesser.names && !images.names(&record.id)?.is_empty() {
            let reason = "image is referenced in multiple repositories".to_owned();
            return Ok(Some(Obstacle { how: "must be forced", reason, used: false }));
        }
        Ok(users.first().filter(|_| lesser.stopped).map(|user| Obstacle {
            how: "must be forced",
            reason: by(user, "stopped"),
            used: true,
        }))
    }
}

fn conflict(record: &ImageRecord, obstacle: Obstacle) -> Error {
    let action = format!("delete {}", record.id.short());
    Error::Conflict { action, how: obstacle.how, reason: obstacle.reason }
}

/// The names that go with `reference`: itself, and with the last tag of a repository its digests, since a digest alone is
/// no name that anyone gave.
fn going(names: &[Reference], reference: &Reference) -> Vec<Reference> {
    let sibling = |name: &&Reference| *name != reference && name.name() == reference.name();
    let last_tag = !names.iter().filter(sibling).any(|name| name.digest().is_none());
    let digests = names.iter().filter(sibling).filter(|_| reference.digest().is_none() && last_tag);
    std::iter::once(reference).chain(digests).cloned().collect()
}

/// Whether names are one tag at most, and all of one repository; no names are not.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    !names.is_empty() && tags <= 1 && names.windows(2).all(|pair| pair[0].name() == pair[1].name())
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
            (vec![], false),
            (vec!["a:b".to_owned()], true),
            (vec!["a:b".to_owned(), at("a")], true),
            (vec![at("a")], true),
            (vec!["a:b".to_owned(), "a:c".to_owned()], false),
            (vec!["a:b".to_owned(), at("other")], false),
        ] {
            let parsed: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
            assert_eq!(is_single(&parsed), single, "{names:?}");
        }
    }
}
