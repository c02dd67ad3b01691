//! Steps that were done. With them go the images that they made, unless those are more than cache: they have a name, a
//! build ended with them, a container uses them, or another such image was made from them.

use std::collections::{HashMap, HashSet};

use berth_image::Removed;
use berth_oci::Digest;
use berth_storage::{ImageRecord, Listed};
use jiff::Timestamp;

use crate::Error;
use crate::engine::Parts;
use crate::images::removed_items;
use crate::images::sharing::Sharing;

/// A step, or several that made the same image.
pub(super) struct Done {
    /// What they are remembered by.
    pub keys: Vec<Digest>,
    pub image: Digest,
    pub used: Timestamp,
    /// Bytes of the layer that it made; none for one that an earlier of these has, too.
    pub size: u64,
    /// Whether the image is more than cache, or its layer is part of one that is.
    pub shared: bool,
    /// Whether a build uses it.
    pub held: bool,
    /// How many images it stands on.
    pub depth: usize,
}

/// All of them.
pub(super) fn all(parts: &Parts) -> Result<Vec<Done>, Error> {
    let mut steps: HashMap<Digest, (Vec<Digest>, Timestamp)> = HashMap::new();
    for step in parts.storage.build_steps().list()? {
        let (keys, used) = steps.entry(step.image).or_insert_with(|| (Vec::new(), step.used));
        keys.push(step.key);
        *used = step.used.max(*used);
    }
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let results: HashSet<Digest> = parts.storage.build_steps().results()?.into_iter().collect();
    let images = parts.storage.images().listed()?;
    let is_more = |image: &Listed| {
        let id = &image.record.id;
        !image.names.is_empty()
            || !steps.contains_key(id)
            || results.contains(id)
            || !parts.users(id).is_empty()
    };
    let lineage = Lineage::new(&images);
    let more = lineage.with_ancestors(images.iter().filter(|image| is_more(image)));
    let kept: Vec<Listed> = images.iter().filter(|image| more.contains(&image.record.id)).cloned().collect();
    let sharing = Sharing::of(parts, &kept)?;
    let mut counted = HashSet::new();
    let mut all = Vec::new();
    for (image, (keys, used)) in steps {
        // One that has gone meanwhile has taken its steps along.
        let Some(layer) = lineage.layer(&image) else { continue };
        let shared = more.contains(&image) || layer.is_some_and(|layer| sharing.users(layer) > 0);
        let first = layer.filter(|layer| counted.insert((*layer).clone()));
        let size = first.and_then(|layer| u64::try_from(sharing.size(layer)).ok()).unwrap_or(0);
        let (held, depth) = (parts.steps.is_used(&image), lineage.depth(&image));
        all.push(Done { keys, used, size, shared, held, depth, image });
    }
    Ok(all)
}

/// Forgets a step, and removes its image if that is nothing but cache. Gives the bytes that are freed; none if it stays,
/// because a build uses it or another step stands on it.
pub(super) fn remove(parts: &Parts, done: &Done) -> Result<Option<u64>, Error> {
    let removed = parts.steps.unless_used(&done.image, |_| {
        let (steps, images) = (parts.storage.build_steps(), parts.storage.images());
        for child in images.children(&done.image)? {
            if steps.made(&child)? {
                return Ok(None);
            }
        }
        for key in &done.keys {
            steps.remove(key)?;
        }
        if steps.is_result(&done.image)? {
            return Ok(Some(0));
        }
        match parts.images.remove_step(&done.image, &|id| parts.users(id)) {
            Ok(removed) => {
                let freed = |item: &Removed| if let Removed::Layer(_, bytes) = item { *bytes } else { 0 };
                let bytes = removed.iter().map(freed).sum();
                removed_items(parts, removed);
                Ok(Some(bytes))
            }
            Err(berth_image::Error::Conflict { .. } | berth_image::Error::NotFound(_)) => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    });
    removed.unwrap_or(Ok(None))
}

/// Which image was made from which.
struct Lineage<'a>(HashMap<&'a Digest, &'a ImageRecord>);

impl<'a> Lineage<'a> {
    fn new(images: &'a [Listed]) -> Self {
        Self(images.iter().map(|image| (&image.record.id, &image.record)).collect())
    }

    /// The images from the one it was made from downwards.
    fn ancestors(&self, image: &Digest) -> impl Iterator<Item = &'a ImageRecord> + use<'a, '_> {
        let parent = |image: &ImageRecord| self.0.get(image.parent.as_ref()?).copied();
        std::iter::successors(self.0.get(image).copied().and_then(parent), move |image| parent(image))
    }

    fn depth(&self, image: &Digest) -> usize {
        self.ancestors(image).count()
    }

    /// These and all that they were made from.
    fn with_ancestors<'b>(&self, images: impl Iterator<Item = &'b Listed>) -> HashSet<Digest> {
        let mut found = HashSet::new();
        for image in images {
            if found.insert(image.record.id.clone()) {
                let mut below = self.ancestors(&image.record.id);
                // Whoever stands on the rest was here before.
                while below.next().is_some_and(|image| found.insert(image.id.clone())) {}
            }
        }
        found
    }

    /// The layer that an image has beyond the one it was made from; no image, no answer.
    fn layer(&self, image: &Digest) -> Option<Option<&'a Digest>> {
        let record = self.0.get(image)?;
        let below = self.ancestors(image).next().and_then(|parent| parent.chain.as_ref());
        Some(record.chain.as_ref().filter(|chain| Some(*chain) != below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_was_made_from_is_as_much_as_the_image() {
        let digest = |name: &str| Digest::of(name.as_bytes());
        let image = |name: &str, parent: Option<&str>, chain: Option<&str>| Listed {
            record: ImageRecord {
                id: digest(name),
                chain: chain.map(digest),
                size: 0,
                created: None,
                parent: parent.map(digest),
                labels: None,
            },
            names: Vec::new(),
            has_children: false,
            used: Timestamp::UNIX_EPOCH,
        };
        let images = [
            image("base", None, Some("1")),
            image("env", Some("base"), Some("1")),
            image("run", Some("env"), Some("2")),
            image("other", Some("env"), Some("3")),
            image("empty", None, None),
        ];
        let lineage = Lineage::new(&images);
        let depths: Vec<usize> = images.iter().map(|image| lineage.depth(&image.record.id)).collect();
        assert_eq!(depths, [0, 1, 2, 2, 0]);
        let kept = lineage.with_ancestors(images[2..3].iter());
        assert_eq!(kept, ["base", "env", "run"].map(digest).into());
        assert_eq!(lineage.layer(&digest("env")), Some(None));
        assert_eq!(lineage.layer(&digest("run")), Some(Some(&digest("2"))));
        assert_eq!(lineage.layer(&digest("base")), Some(Some(&digest("1"))));
        assert_eq!(lineage.layer(&digest("empty")), Some(None));
        assert_eq!(lineage.layer(&digest("gone")), None);
    }
}
