//! What images have in common: layers, each of which is on the disk once.

use std::collections::HashMap;

use berth_oci::Digest;
use berth_storage::Listed;

use crate::Error;
use crate::engine::Parts;
use crate::inspect::to_signed;

/// All layers, and how many images have each.
pub(crate) struct Sharing {
    /// Bytes and the layer below, by chain ID.
    known: HashMap<Digest, (i64, Option<Digest>)>,
    users: HashMap<Digest, u32>,
}

impl Sharing {
    /// Of all images there are.
    pub fn of(parts: &Parts, images: &[Listed]) -> Result<Self, Error> {
        let known = parts.storage.layers().list()?.into_iter();
        let known = known.map(|layer| (layer.chain, (to_signed(layer.size), layer.parent))).collect();
        let mut sharing = Self { known, users: HashMap::new() };
        for image in images {
            for chain in sharing.stack(image.record.chain.as_ref()) {
                *sharing.users.entry(chain).or_default() += 1;
            }
        }
        Ok(sharing)
    }

    /// Layers from the top one downwards.
    fn stack(&self, top: Option<&Digest>) -> Vec<Digest> {
        let mut chains = Vec::new();
        let mut next = top.cloned();
        while let Some(chain) = next {
            next = self.known.get(&chain).and_then(|(_, parent)| parent.clone());
            chains.push(chain);
        }
        chains
    }

    /// Bytes of a layer's own files.
    pub fn size(&self, chain: &Digest) -> i64 {
        self.known.get(chain).map_or(0, |(size, _)| *size)
    }

    /// Bytes of the layers of all images, each counted once.
    pub fn total(&self) -> i64 {
        self.users.keys().map(|chain| self.size(chain)).sum()
    }

    /// Bytes of the layers of an image that others have too.
    pub fn shared(&self, top: Option<&Digest>) -> i64 {
        let chains = self.stack(top).into_iter();
        let shared = chains.filter(|chain| self.users.get(chain).is_some_and(|users| *users > 1));
        shared.map(|chain| self.size(&chain)).sum()
    }

    /// Images that have a layer.
    pub fn users(&self, chain: &Digest) -> u32 {
        self.users.get(chain).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_followed_to_the_bottom_and_counted_once() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let known = HashMap::from([
            (digest("base"), (5, None)),
            (digest("middle"), (7, Some(digest("base")))),
            (digest("top"), (11, Some(digest("middle")))),
        ]);
        let users = HashMap::from([(digest("base"), 2), (digest("middle"), 1), (digest("top"), 1)]);
        let sharing = Sharing { known, users };
        let chains = sharing.stack(Some(&digest("top")));
        assert_eq!(chains, [digest("top"), digest("middle"), digest("base")]);
        assert_eq!((sharing.total(), sharing.shared(Some(&digest("top")))), (23, 5));
        assert_eq!((sharing.users(&digest("base")), sharing.users(&digest("x"))), (2, 0));
        assert!(sharing.stack(None).is_empty());
    }
}
