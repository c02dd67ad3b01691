//! Archives of `docker save`: those without a layout are read as if they had one, and layouts are packed as such archives.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use berth_oci::digest::Hasher;
use berth_oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use berth_oci::{CONFIG_LIMIT, Descriptor, Digest, Reference};
use serde::Deserialize;
use serde_json::json;

use super::document::Document;
use super::files::{Files, Part};
use super::layout::{self, Layout};
use super::source::LONGEST;
use crate::failure::{Failure, Outcome};

/// An image of an archive without manifests.
#[derive(Debug)]
pub struct Unlisted {
    /// The manifest that it gets.
    pub manifest: Vec<u8>,
    /// Where its blobs are.
    pub paths: HashMap<Digest, String>,
}

/// An element of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Makes a manifest for an image of an archive: the one of that name, or the only one. All its layers are read.
pub fn list(files: &Files, name: Option<&str>) -> Outcome<Unlisted> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("the archive makes no sense: {error}"));
    let items: Vec<Item> =
        serde_json::from_slice(&files.read("manifest.json", LONGEST)?).map_err(|error| failed(&error))?;
    let has = |item: &&Item| name.is_none_or(|name| item.repo_tags.iter().flatten().any(|tag| tag == name));
    let mut found = items.iter().filter(has);
    let (Some(item), None) = (found.next(), found.next()) else {
        let all: Vec<&String> = items.iter().flat_map(|item| item.repo_tags.iter().flatten()).collect();
        return Err(Failure::new(format!(
            "the archive does not have exactly one such image; it has {all:?}"
        )));
    };
    let mut paths = HashMap::new();
    let config = files.read(&item.config, CONFIG_LIMIT)?;
    let config = Descriptor::new(OCI_CONFIG, Digest::of(&config), config.len() as u64);
    paths.insert(config.digest.clone(), item.config.clone());
    let mut layers = Vec::new();
    for path in &item.layers {
        let layer = files.open(path).and_then(describe).map_err(|error| failed(&error))?;
        paths.insert(layer.digest.clone(), path.clone());
        layers.push(layer);
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
    Ok(Unlisted { manifest: manifest.to_string().into_bytes(), paths })
}

/// Reads a layer to see what it is.
fn describe(part: Part) -> io::Result<Descriptor> {
    let size = part.size;
    let mut reader = part.reader(0)?;
    let mut hasher = Hasher::new(berth_oci::digest::Algorithm::Sha256);
    let (mut buffer, mut suffix) = (vec![0; 256 << 10], None);
    loop {
        let count = reader.read(&mut buffer)?;
        if suffix.is_none() {
            suffix = Some(match &buffer[..count] {
                [0x1f, 0x8b, ..] => "+gzip",
                [0x28, 0xb5, 0x2f, 0xfd, ..] => "+zstd",
                _ => "",
            });
        }
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(Descriptor::new(&format!("{OCI_LAYER}{}", suffix.unwrap_or_default()), hasher.finish(), size))
}

/// Packs a layout that is complete into a tar beside its place, puts that there, and removes the layout.
pub fn pack(layout: &Layout, path: &Path) -> Outcome {
    let partial = beside(path, "tmp");
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
    write(layout, &partial)
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| fs::remove_dir_all(layout.path()))
        .map_err(failed)
}

/// Writes `manifest.json`, by which Docker finds its way in a layout.
pub fn add_manifest(layout: &Layout, image: &Document, name: Option<&Reference>) -> Outcome {
    let Some((config, layers)) = image.image() else {
        return Err(Failure::new(
            "an archive of docker save holds one image for one platform: use oci-archive:",
        ));
    };
    let layers: Vec<String> = layers.iter().map(|layer| layout::place(&layer.digest)).collect();
    let names: Vec<String> = name.map(Reference::familiar).into_iter().collect();
    let item = json!([{"Config": layout::place(&config.digest), "RepoTags": names, "Layers": layers}]);
    let path = layout.path().join("manifest.json");
    fs::write(&path, item.to_string()).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// A name beside a file for what is not complete.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{extension}"))
}

fn write(layout: &Layout, path: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
    let mut names = Vec::new();
    gather(layout.path(), "", &mut names)?;
    // Documents first: who reads a stream learns early what will come.
    names.sort_by_key(|name| (name.starts_with("blobs/"), name.clone()));
    for name in names {
        let mut file = File::open(layout.path().join(&name))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, &name, &mut file)?;
    }
    let mut file = archive.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Names of all files below a directory, but hidden ones.
fn gather(directory: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), &format!("{path}/"), names)?;
        } else {
            names.push(path);
        }
    }
    Ok(())
}
