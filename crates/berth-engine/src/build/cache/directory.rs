//! OCI layouts in directories of clients: of each, only those files come that are needed.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use berth_archive::context::Insert;
use berth_archive::ignore::Ignore;
use berth_build::solve::Image;
use berth_oci::media_type::OCI_INDEX;
use berth_oci::{CONFIG_LIMIT, Descriptor, Digest, Document, ImageConfig, Index, MANIFEST_LIMIT, Platform};
use tokio::sync::mpsc;

use super::super::executor::Worker;
use super::super::{session, tree};
use super::QUEUE;
use crate::Error;

/// What a layout lists.
const INDEX: &str = "index.json";
/// The annotation with a layout's name for an image.
const NAME: &str = "org.opencontainers.image.ref.name";

/// The entries of a layout. Blocks.
pub(super) fn entries(worker: &Worker, name: &str) -> Result<Vec<Descriptor>, Error> {
    let (root, _scratch) = session::bring(worker, name, vec![INDEX.to_owned()])?;
    let bytes = content(&root, INDEX, MANIFEST_LIMIT)?;
    match document(&bytes, OCI_INDEX)? {
        Document::Index(index) => Ok(index.manifests),
        Document::Manifest(_) => Err(Error::Files(format!("{INDEX} is no index"))),
    }
}

/// Brings an image of a layout, whose first `below` layers are here. Blocks.
pub(super) fn bring(worker: &Worker, name: &str, entry: &Descriptor, below: usize) -> Result<Image, Error> {
    let manifest_bytes = blob(worker, name, &entry.digest, MANIFEST_LIMIT)?;
    let Document::Manifest(manifest) = document(&manifest_bytes, &entry.media_type)? else {
        return Err(Error::Files(format!("{} is no image", entry.digest)));
    };
    let id = manifest.config.digest.clone();
    let images = worker.parts().images.clone();
    if let Ok(config) = images.config(&id) {
        return Ok(Image { id, config });
    }
    let config =
        ImageConfig::read(&blob(worker, name, &id, CONFIG_LIMIT)?).map_err(berth_image::Error::from)?;
    // What is said to be here is: otherwise the image is refused for the layers that it lacks.
    let below = below.min(config.rootfs.diff_ids.len());
    let mut include = vec![place(&entry.digest), place(&id)];
    include.extend(manifest.layers.iter().skip(below).map(|layer| place(&layer.digest)));
    let (root, _scratch) = session::bring(worker, name, include)?;
    let entry = Descriptor { annotations: Default::default(), platform: None, ..entry.clone() };
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX.to_owned(),
        manifests: vec![entry],
        annotations: Default::default(),
    };
    let index = serde_json::to_vec(&index).map_err(|error| failed("write", INDEX, &error.into()))?;
    load(worker, &root, vec![Insert { name: INDEX.to_owned(), content: index }])?;
    Ok(Image { config: images.config(&id)?, id })
}

/// Loads the layout beneath a directory. Blocks.
fn load(worker: &Worker, root: &OwnedFd, inserts: Vec<Insert>) -> Result<(), Error> {
    let piped = |source| Error::Io { operation: "load an image".into(), source };
    let (reader, writer) = io::pipe().map_err(piped)?;
    let (sender, mut messages) = mpsc::channel(QUEUE);
    let reader = worker.cancelling(reader);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let out = io::BufWriter::with_capacity(64 << 10, writer);
            // What the other end reads tells whether this was whole.
            let _ = berth_archive::context::pack(root.as_fd(), &Ignore::default(), inserts, out);
        });
        scope.spawn(move || while messages.blocking_recv().is_some() {});
        let loaded = worker.parts().images.load(reader, &[], &sender);
        drop(sender);
        Ok(loaded.map(drop)?)
    })
}

/// The image that `NAME`, `NAME:TAG` or `NAME@DIGEST` means, where `NAME` is the session's name of a layout. Blocks.
pub(in super::super) fn from_layout(worker: &Worker, text: &str) -> Result<Image, Error> {
    let (name, digest, tag) = match (text.split_once('@'), text.split_once(':')) {
        (Some((name, digest)), _) => {
            let digest = digest.parse::<Digest>();
            let invalid = |error: berth_oci::digest::DigestError| Error::InvalidParameter(error.to_string());
            (name, Some(digest.map_err(invalid)?), None)
        }
        (None, Some((name, tag))) => (name, None, Some(tag)),
        (None, None) => (text, None, None),
    };
    let listed = entries(worker, name)?;
    let found = match (&digest, tag) {
        (Some(digest), _) => listed.iter().find(|entry| entry.digest == *digest).cloned(),
        (None, Some(tag)) => {
            listed.into_iter().find(|entry| entry.annotations.get(NAME).map(String::as_str) == Some(tag))
        }
        (None, None) => listed.into_iter().next(),
    };
    let missing =
        || Error::InvalidParameter(format!("the OCI layout of the build context has no image {text}"));
    let entry = found.ok_or_else(missing)?;
    if !berth_oci::media_type::is_index(&entry.media_type) {
        return bring(worker, name, &entry, 0);
    }
    let bytes = blob(worker, name, &entry.digest, MANIFEST_LIMIT)?;
    let platform = worker.request.platform.clone().unwrap_or_else(Platform::host);
    match document(&bytes, &entry.media_type)? {
        Document::Index(index) => {
            let entry = index.find(&platform).ok_or_else(missing)?.clone();
            bring(worker, name, &entry, 0)
        }
        Document::Manifest(_) => Err(missing()),
    }
}

/// The place of a blob in a layout.
fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A blob that is what its digest says. Blocks.
fn blob(worker: &Worker, name: &str, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
    let path = place(digest);
    let (root, _scratch) = session::bring(worker, name, vec![path.clone()])?;
    let bytes = content(&root, &path, limit)?;
    match digest.verify(&bytes) {
        Ok(()) => Ok(bytes),
        Err(actual) => Err(Error::Files(format!("{path} has the digest {actual}"))),
    }
}

fn content(root: &OwnedFd, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let read = tree::read(root.as_fd(), path.as_bytes(), limit + 1);
    let bytes = read.map_err(|error| failed("read", path, &error))?;
    let bytes = bytes.ok_or_else(|| Error::Files(format!("{path} is not there")))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Files(format!("{path} is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn document(bytes: &[u8], kind: &str) -> Result<Document, Error> {
    Document::read(bytes, Some(kind)).map_err(|error| Error::Files(error.to_string()))
}

fn failed(operation: &str, path: &str, error: &io::Error) -> Error {
    tree::failed(operation, path.as_bytes(), error)
}
