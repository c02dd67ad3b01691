//! Loading archives: what `docker save` writes, and OCI layouts.

mod layout;

use std::io::{self, Read};

use berth_oci::digest::Hasher;
use berth_oci::{CONFIG_LIMIT, Descriptor, Digest, ImageConfig, MANIFEST_LIMIT, Platform, Reference};
use berth_storage::{Source, Tag};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::assemble::{self, Plan};
use crate::bundle::{Bundle, Counted, Early};
use crate::made;
use crate::progress::Reporter;
use crate::unpack::{Unpacked, unpack};
use crate::{Error, Images, Progress, Result};

/// Images in one archive.
const IMAGES: usize = 10_000;

/// One image of an archive, as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Digest of the configuration.
    pub id: Digest,
    /// Names that it was given, as people write them.
    pub names: Vec<String>,
    /// Which of the names another image lost by it, and that image's digest of the configuration.
    pub taken: Vec<(String, Digest)>,
}

/// An entry of `manifest.json` (Docker's image specification 1.2).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    /// The image that it was made from.
    #[serde(default)]
    parent: Option<String>,
}

/// An image of the archive, its documents verified.
struct Found {
    config: (Digest, Vec<u8>),
    parsed: ImageConfig,
    /// What it is for.
    platform: Platform,
    layers: Vec<Place>,
    /// The index that lists it, if one does.
    index: Option<(Digest, Vec<u8>)>,
    manifest: Option<(Digest, Vec<u8>)>,
    /// The image that it was made from, as the archive says.
    parent: Option<Digest>,
    names: Vec<Reference>,
}

/// Where a layer is in the archive, and what is known of it.
struct Place {
    name: String,
    descriptor: Option<Descriptor>,
}

impl Images {
    /// Loads all images of an archive, which may be compressed, or those for some platforms if any are given. Each is
    /// recorded when it is complete. Blocks.
    ///
    /// # Errors
    /// What is wrong with the archive; a full disk. The image in question is not recorded then.
    /// [`Error::NotInArchive`] for platforms that it has nothing for.
    pub fn load(
        &self,
        archive: impl Read + Send,
        platforms: &[Platform],
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>> {
        let mut bundle = Bundle::read(self.storage(), archive, progress)?;
        let found = if bundle.has("manifest.json") && !layout::has_index(&bundle) {
            let mut found = saved_images(&bundle)?;
            found.retain(|found| is_wanted(&found.platform, platforms));
            found
        } else if bundle.has("index.json") {
            layout::images(&bundle, platforms)?
        } else {
            return Err(Error::Archive(
                "the archive holds no image: it has neither manifest.json (docker save) nor index.json (OCI layout)"
                    .to_owned(),
            ));
        };
        let missing =
            platforms.iter().find(|wanted| !found.iter().any(|found| found.platform.satisfies(wanted)));
        if let Some(platform) = missing {
            return Err(Error::NotInArchive { platform: platform.clone() });
        }
        for place in found.iter().flat_map(|image| &image.layers) {
            bundle.expect(&place.name);
        }
        let parents = parents(&found);
        let mut loaded: Vec<Loaded> = Vec::new();
        for image in found {
            let index = image.index.as_ref().map(|(digest, _)| digest.clone());
            let one = self.load_one(&mut bundle, image, progress)?;
            // Several platforms of one name are told of once.
            let told = index.is_some()
                && loaded.iter().any(|other| !one.names.is_empty() && other.names == one.names);
            if !told {
                loaded.push(one);
            }
        }
        for (id, parent) in parents {
            self.storage().images().adopt(&id, &parent)?;
        }
        Ok(loaded)
    }

    fn load_one(
        &self,
        bundle: &mut Bundle,
        image: Found,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Loaded> {
        let storage = self.storage();
        let diffs = image.parsed.rootfs.diff_ids.len();
        if diffs != image.layers.len() {
            return Err(Error::LayerCount { layers: image.layers.len(), diff_ids: diffs });
        }
        let mut lease = storage.lease();
        let plan = Plan::new(storage, &image.parsed, &mut lease)?;
        let mut unpacked = Vec::new();
        for (place, diff) in image.layers.iter().zip(&plan.diffs).skip(plan.present) {
            let reporter = Reporter::new(diff.short().to_owned(), progress.clone());
            unpacked.push(self.load_layer(bundle, place, diff, reporter)?);
        }
        assemble::place(storage, &plan, unpacked, &mut lease)?;
        let id = image.config.0.clone();
        let target =
            image.index.as_ref().or(image.manifest.as_ref()).map_or(&id, |(digest, _)| digest).clone();
        let manifest = match image.manifest {
            Some(manifest) => manifest,
            None => {
                let size = image.config.1.len() as u64;
                let made = made::manifest(storage, &id, size, plan.diffs.iter().zip(&plan.chains))?;
                (made.descriptor.digest, made.bytes)
            }
        };
        for (digest, bytes) in image.index.iter().chain([&manifest, &image.config]) {
            storage.blobs().put(digest, bytes, &mut lease)?;
        }
        let names: Vec<Tag> =
            image.names.iter().map(|name| Tag { name: name.canonical(), target: target.clone() }).collect();
        let sources = [Source { manifest: manifest.0, index: image.index.map(|(digest, _)| digest) }];
        let taken = self.losers(&id, &image.names)?;
        assemble::record(storage, &id, &image.parsed, &plan, &sources, &names)?;
        Ok(Loaded { id, names: image.names.iter().map(Reference::familiar).collect(), taken })
    }

    /// Which names are another image's than `id`'s, and whose.
    fn losers(&self, id: &Digest, names: &[Reference]) -> Result<Vec<(String, Digest)>> {
        let mut taken = Vec::new();
        for name in names {
            let before = self.storage().images().by_name(&name.canonical())?;
            if let Some(other) = before.filter(|other| other.id != *id) {
                taken.push((name.familiar(), other.id));
            }
        }
        Ok(taken)
    }

    fn load_layer(
        &self,
        bundle: &mut Bundle,
        place: &Place,
        diff: &Digest,
        reporter: Reporter,
    ) -> Result<Unpacked> {
        if let Some(early) = bundle.take(self.storage(), &place.name)? {
            return settle(place, diff, early);
        }
        let part = bundle.open(&place.name)?;
        let total = part.len();
        let hasher = place.descriptor.as_ref().map(|descriptor| Hasher::new(descriptor.digest.algorithm()));
        let mut input = Counted::new(part, hasher, total, reporter);
        let outcome = unpack(self.storage(), diff.short(), diff, &mut input);
        if let Some(descriptor) = &place.descriptor {
            // A damaged blob is the better reason for what unpacking it gave.
            let _ = io::copy(&mut input, &mut io::sink());
            check_blob(&place.name, descriptor, input.digest(), total)?;
        }
        outcome
    }
}

/// Images with what they were made from: as in Docker, images of the same archive alone, and only those that have no
/// layer which what was made from them lacks.
fn parents(found: &[Found]) -> Vec<(Digest, Digest)> {
    let of = |image: &Found| {
        let parent = found.iter().find(|other| Some(&other.config.0) == image.parent.as_ref())?;
        let (own, below) = (&image.parsed.rootfs.diff_ids, &parent.parsed.rootfs.diff_ids);
        let is_above =
            image.config.0 != parent.config.0 && own.len() >= below.len() && own.starts_with(below);
        // Of two that have the same layers, the one with the longer history was made from the other: no circles.
        let (own, below) = (image.parsed.history.len(), parent.parsed.history.len());
        (is_above && own > below).then(|| (image.config.0.clone(), parent.config.0.clone()))
    };
    found.iter().filter_map(of).collect()
}

/// Whether an image is for one of the platforms that were asked for.
fn is_wanted(platform: &Platform, wanted: &[Platform]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| platform.satisfies(wanted))
}

/// Checks a layer that was unpacked before it was known what it should be.
fn settle(place: &Place, diff: &Digest, early: Early) -> Result<Unpacked> {
    if let (Some(descriptor), Some(blob)) = (&place.descriptor, early.blob) {
        check_blob(&place.name, descriptor, Some(blob), early.size)?;
    }
    early.outcome?.verified(diff.short(), diff)
}

fn check_blob(name: &str, descriptor: &Descriptor, actual: Option<Digest>, size: u64) -> Result<()> {
    match actual {
        Some(actual) if actual != descriptor.digest => {
            Err(Error::WrongDigest { what: name.to_owned(), actual, expected: descriptor.digest.clone() })
        }
        _ if size != descriptor.size => Err(Error::Archive(format!(
            "{name} in the archive has {size} bytes, its manifest says {}",
            descriptor.size
        ))),
        _ => Ok(()),
    }
}

/// The images of `docker save`.
fn saved_images(bundle: &Bundle) -> Result<Vec<Found>> {
    let bytes = bundle.bytes("manifest.json", MANIFEST_LIMIT)?;
    let images: Vec<SavedImage> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Archive(format!("manifest.json in the archive is malformed: {error}")))?;
    if images.is_empty() || images.len() > IMAGES {
        return Err(Error::Archive(format!("manifest.json in the archive lists {} images", images.len())));
    }
    images.into_iter().map(|image| saved_image(bundle, image)).collect()
}

fn saved_image(bundle: &Bundle, image: SavedImage) -> Result<Found> {
    let bytes = bundle.bytes(&image.config, CONFIG_LIMIT)?;
    let id = Digest::of(&bytes);
    // The file's name is the digest that `docker save` saw.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>()
        && expected != id
    {
        return Err(Error::WrongDigest { what: image.config, actual: id, expected });
    }
    let names = image.repo_tags.unwrap_or_default().iter().map(|name| tagged(name)).collect::<Result<_>>()?;
    let layers =
        image.layers.unwrap_or_default().into_iter().map(|name| Place { name, descriptor: None }).collect();
    let parsed = ImageConfig::read(&bytes)?;
    let platform = parsed.platform();
    let parent = image.parent.and_then(|parent| parent.parse().ok());
    Ok(Found { parsed, platform, config: (id, bytes), layers, index: None, manifest: None, parent, names })
}

fn tagged(name: &str) -> Result<Reference> {
    Ok(name.parse::<Reference>()?.with_default_tag())
}
