//! What a pull will bring, and whether there is room for it, before it begins.

use berth_oci::{Descriptor, Digest, Platform, Reference};

use crate::assemble::Plan;
use crate::pull::{Documents, fetch_documents};
use crate::turn::blocking;
use crate::{Error, Images, Result};

/// What is there of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is unpacked: nothing is to be done.
    Stored,
    /// All of its blob is in the cache: it only has to be unpacked.
    Cached,
    /// So many bytes of its blob are here, from an attempt that was cut; often none.
    Partial(u64),
}

/// One layer of an image that is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEstimate {
    /// Digest of its blob.
    pub digest: Digest,
    /// Bytes of its blob.
    pub size: u64,
    /// What is there of it.
    pub presence: Presence,
    /// Whether the blob is compressed: what it takes when unpacked is not known before.
    pub is_compressed: bool,
}

impl LayerEstimate {
    /// Bytes that are to be downloaded.
    pub fn download(&self) -> u64 {
        match self.presence {
            Presence::Stored | Presence::Cached => 0,
            Presence::Partial(bytes) => self.size.saturating_sub(bytes),
        }
    }
}

/// What a pull will bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Digest of what the reference names.
    pub digest: Digest,
    /// The platform of the image.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub layers: Vec<LayerEstimate>,
    /// Free bytes of the data root's file system.
    pub free: u64,
    /// How many of them must stay free.
    pub keep: u64,
}

impl Estimate {
    /// Bytes that are to be downloaded.
    pub fn download(&self) -> u64 {
        sum(self.layers.iter().map(LayerEstimate::download))
    }

    /// Bytes of all layers' blobs.
    pub fn total(&self) -> u64 {
        sum(self.layers.iter().map(|layer| layer.size))
    }

    /// Bytes that the missing layers take once they are unpacked: exactly if none of them is compressed, else at least.
    pub fn unpacked(&self) -> u64 {
        sum(self.missing().map(|layer| layer.size))
    }

    /// Whether [`Estimate::unpacked`] is exact.
    pub fn is_exact(&self) -> bool {
        self.missing().all(|layer| !layer.is_compressed)
    }

    /// Free bytes that the pull needs at the very least: what comes out of a compressed layer is no less than went in,
    /// and the largest blob lies beside its own unpacked files for a while.
    pub fn needed(&self) -> u64 {
        let largest = self.missing().map(LayerEstimate::download).max().unwrap_or_default();
        self.unpacked().saturating_add(largest)
    }

    /// Whether the pull can fit.
    pub fn fits(&self) -> bool {
        self.needed() == 0 || self.needed().saturating_add(self.keep) <= self.free
    }

    /// In one line, for the beginning of a pull; none if there is nothing to bring.
    pub fn line(&self) -> Option<String> {
        let missing = self.missing().count();
        let more = if self.is_exact() { "" } else { "more than " };
        (missing > 0).then(|| {
            format!(
                "Downloading {} of {} ({missing} of {} layers): {more}{} on the disk, {} are free",
                human(self.download()),
                human(self.total()),
                self.layers.len(),
                human(self.unpacked()),
                human(self.free),
            )
        })
    }

    fn missing(&self) -> impl Iterator<Item = &LayerEstimate> {
        self.layers.iter().filter(|layer| layer.presence != Presence::Stored)
    }
}

impl Images {
    /// Looks what a pull of `reference` would bring; only documents are fetched, and nothing is stored.
    ///
    /// # Errors
    /// As for a pull, before its layers.
    pub async fn estimate(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        caller: berth_registry::Caller,
    ) -> Result<Estimate> {
        let reference = reference.clone().with_default_tag();
        let registry = self.inner.registry.on_behalf(reference.domain(), caller);
        let documents = fetch_documents(&registry, &reference, platform).await?;
        let images = self.clone();
        blocking(move || {
            let plan = Plan::new(images.storage(), &documents.parsed, &mut images.storage().lease())?;
            images.look(&documents, &plan)
        })
        .await
    }

    /// What of an image's layers is here, and how much room there is. Blocks.
    pub(crate) fn look(&self, documents: &Documents, plan: &Plan) -> Result<Estimate> {
        let storage = self.storage();
        let layer = |(index, blob): (usize, &Descriptor)| -> Result<LayerEstimate> {
            let presence = match index < plan.present {
                true => Presence::Stored,
                false if storage.blobs().get(&blob.digest)?.is_some() => Presence::Cached,
                false => Presence::Partial(storage.blobs().begun(&blob.digest).min(blob.size)),
            };
            let is_compressed = blob.media_type.contains("gzip") || blob.media_type.contains("zstd");
            Ok(LayerEstimate { digest: blob.digest.clone(), size: blob.size, presence, is_compressed })
        };
        let layers = documents.layers.iter().enumerate().map(layer).collect::<Result<_>>()?;
        let target = documents.index.as_ref().unwrap_or(&documents.manifest);
        Ok(Estimate {
            digest: target.0.clone(),
            platform: documents.parsed.platform(),
            layers,
            free: storage.free_bytes()?,
            keep: storage.keep_free_bytes(),
        })
    }

    /// Fails if a pull cannot fit, also when everything is gone that was removed before. Blocks.
    pub(crate) fn check_room(
        &self,
        documents: &Documents,
        plan: &Plan,
        reference: &Reference,
    ) -> Result<Estimate> {
        let mut estimate = self.look(documents, plan)?;
        if !estimate.fits() {
            self.storage().settle();
            estimate.free = self.storage().free_bytes()?;
        }
        if estimate.fits() {
            return Ok(estimate);
        }
        Err(Error::NoRoom {
            reference: reference.familiar(),
            download: estimate.download(),
            needed: estimate.needed(),
            free: estimate.free,
            keep: estimate.keep,
        })
    }
}

/// Registries may announce any sizes.
fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// Bytes as people read them, such as `1.2GB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    // Tenths of what is shown, without a float's surprises.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for larger in UNITS {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
        unit = larger;
    }
    match (tenths % 10, unit) {
        (_, "B") | (0, _) => format!("{}{unit}", tenths / 10),
        (rest, _) => format!("{}.{rest}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(size: u64, presence: Presence, is_compressed: bool) -> LayerEstimate {
        LayerEstimate { digest: Digest::of(&size.to_le_bytes()), size, presence, is_compressed }
    }

    #[test]
    fn only_what_is_missing_counts() {
        let mut estimate = Estimate {
            digest: Digest::of(b"x"),
            platform: Platform::host(),
            layers: vec![
                layer(100, Presence::Stored, true),
                layer(50, Presence::Cached, true),
                layer(30, Presence::Partial(10), false),
                layer(5, Presence::Partial(0), true),
            ],
            free: 204,
            keep: 100,
        };
        assert_eq!((estimate.total(), estimate.download(), estimate.unpacked()), (185, 25, 85));
        assert_eq!(estimate.needed(), 105);
        assert!(!estimate.fits() && !estimate.is_exact());
        estimate.free = 205;
        assert!(estimate.fits());
        let line = "Downloading 25B of 185B (3 of 4 layers): more than 85B on the disk, 205B are free";
        assert_eq!(estimate.line().as_deref(), Some(line));
        estimate.layers.truncate(1);
        assert_eq!(estimate.line(), None);
        estimate.free = 0;
        assert!(estimate.fits() && estimate.is_exact(), "nothing is missing");
    }

    #[test]
    fn bytes_are_for_people() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_250_000, "1.2MB"), (u64::MAX, "18.4EB")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
