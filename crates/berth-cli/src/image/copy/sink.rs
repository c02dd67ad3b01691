//! Where an image goes.

use std::io;
use std::path::PathBuf;

use berth_oci::{Descriptor, Digest, Reference};
use berth_registry::{Begun, Client, Mount};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::archive;
use super::document::Document;
use super::layout::Layout;
use super::place::Place;
use super::source::{Bytestream, blocking};
use crate::failure::{Failure, Outcome};

/// Attempts to bring one blob to a registry.
const ATTEMPTS: usize = 5;
/// Pieces that may wait for the disk.
const QUEUE: usize = 16;

/// What becomes of a layout in the end.
#[derive(Debug, Clone)]
enum End {
    /// It stays.
    Directory,
    /// It becomes a tar.
    OciArchive(PathBuf),
    /// It becomes an archive of `docker save`.
    DockerArchive(PathBuf, Option<Reference>),
}

/// The destination of a copy.
#[derive(Debug, Clone)]
pub enum Sink {
    /// A registry.
    Registry {
        /// With the account for it.
        client: Client,
        /// The image.
        reference: Reference,
    },
    /// Files.
    Layout(Files),
}

/// A destination of files.
#[derive(Debug, Clone)]
pub struct Files {
    layout: Layout,
    end: End,
    /// The name in the index.
    tag: Option<String>,
    /// The image's whole name, for whoever loads it.
    image: Option<String>,
}

/// What a registry may save a copy.
#[derive(Debug)]
pub enum Offer {
    /// The blob is there.
    Exists,
    /// It is there now, from another repository of the same registry.
    Mounted,
    /// It is to be sent; perhaps an upload has begun.
    Wanted(Option<Begun>),
}

impl Sink {
    /// Opens a place. `client` has the account for it, `from` names what comes.
    pub async fn open(place: &Place, client: Client, from: &Place) -> Outcome<Self> {
        let origin = match from {
            Place::Registry(reference) => {
                Some(reference.clone()).filter(|reference| reference.digest().is_none())
            }
            Place::DockerArchive { name, .. } => name.clone(),
            _ => None,
        };
        let place = match place.clone() {
            Place::Registry(reference) => {
                if reference.digest().is_some() {
                    return Err(Failure::new("cannot push a digest reference"));
                }
                return Ok(Self::Registry { client, reference });
            }
            place => place,
        };
        blocking(move || {
            let usual = origin.as_ref().and_then(|origin| origin.tag()).map(str::to_owned);
            let image = origin.as_ref().map(Reference::canonical);
            let files = match place {
                Place::Registry(_) => return Err(Failure::new("a registry is no file")),
                Place::Layout { path, tag } => {
                    let layout = Layout::create(&path)?;
                    Files { layout, end: End::Directory, tag: tag.or(usual), image }
                }
                Place::OciArchive { path, tag } => {
                    let layout = Layout::create(&archive::beside(&path, "partial"))?;
                    Files { layout, end: End::OciArchive(path), tag: tag.or(usual), image }
                }
                Place::DockerArchive { path, name } => {
                    let layout = Layout::create(&archive::beside(&path, "partial"))?;
                    let name = name.or(origin);
                    let tag = name.as_ref().and_then(|name| name.tag()).map(str::to_owned);
                    let image = name.as_ref().map(Reference::canonical);
                    Files { layout, end: End::DockerArchive(path, name), tag, image }
                }
            };
            Ok(Self::Layout(files))
        })
        .await
    }

    /// Whether it can hold an index.
    pub fn takes_indexes(&self) -> bool {
        !matches!(self, Self::Layout(Files { end: End::DockerArchive(..), .. }))
    }

    /// What need not be sent of a blob. `from`: the repository of the source, if it is in the same registry.
    pub async fn offer(&self, blob: &Descriptor, from: Option<&str>) -> Outcome<Offer> {
        match self {
            Self::Layout(files) if files.layout.has(blob) => Ok(Offer::Exists),
            Self::Layout(_) => Ok(Offer::Wanted(None)),
            Self::Registry { client, reference } => {
                if client.has_blob(reference, &blob.digest).await.map_err(told)? {
                    return Ok(Offer::Exists);
                }
                let Some(from) = from else { return Ok(Offer::Wanted(None)) };
                Ok(match client.mount(reference, &blob.digest, from).await {
                    Ok(Mount::Mounted) => Offer::Mounted,
                    Ok(Mount::Begun(begun)) => Offer::Wanted(Some(begun)),
                    // It is only a way to save time.
                    Err(_) => Offer::Wanted(None),
                })
            }
        }
    }

    /// Brings a blob; `feed` gives it from an offset on.
    pub async fn bring<F>(&self, blob: &Descriptor, begun: Option<Begun>, feed: F) -> Outcome
    where
        F: Fn(u64) -> Bytestream + Send + Sync + 'static,
    {
        match self {
            Self::Registry { client, reference } => {
                let outcome = client.upload(reference, blob, begun, &feed, ATTEMPTS).await;
                outcome.map_err(told)
            }
            Self::Layout(files) => write(&files.layout, blob, feed).await,
        }
    }

    /// Stores a document that another one lists.
    pub async fn put(&self, document: &Document) -> Outcome {
        match self {
            Self::Registry { client, reference } => {
                let to = reference.at(document.digest.clone());
                send(client, &to, document).await.map(drop)
            }
            Self::Layout(files) => {
                let (layout, document) = (files.layout.clone(), document.clone());
                blocking(move || layout.put(&document)).await
            }
        }
    }

    /// Stores the document that the destination is to be a name of, after all that it needs.
    pub async fn finish(&self, document: &Document) -> Outcome<Digest> {
        let digest = document.digest.clone();
        match self {
            Self::Registry { client, reference } => send(client, reference, document).await,
            Self::Layout(files) => {
                let (files, document) = (files.clone(), document.clone());
                blocking(move || files.finish(&document)).await.map(|()| digest)
            }
        }
    }
}

impl Files {
    fn finish(&self, document: &Document) -> Outcome {
        self.layout.put(document)?;
        self.layout.list(document, self.tag.as_deref(), self.image.as_deref())?;
        match &self.end {
            End::Directory => Ok(()),
            End::OciArchive(path) => archive::pack(&self.layout, path),
            End::DockerArchive(path, name) => {
                archive::add_manifest(&self.layout, document, name.as_ref())?;
                archive::pack(&self.layout, path)
            }
        }
    }
}

async fn send(client: &Client, to: &Reference, document: &Document) -> Outcome<Digest> {
    client.put_manifest(to, &document.media_type, document.bytes.clone()).await.map_err(told)
}

fn told(error: berth_registry::Error) -> Failure {
    Failure::new(error.to_string())
}

/// Writes a blob into a layout; a thread of its own waits for the disk.
async fn write(layout: &Layout, blob: &Descriptor, feed: impl Fn(u64) -> Bytestream) -> Outcome {
    let (layout, wanted) = (layout.clone(), blob.clone());
    let opened =
        blocking(move || layout.writer(&wanted).map_err(|error| Failure::new(error.to_string()))).await;
    let mut writer = opened?;
    let mut parts = feed(writer.offset());
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let writing = blocking(move || {
        while let Some(part) = receiver.blocking_recv() {
            let part: bytes::Bytes = part;
            writer.write(&part).map_err(|error| Failure::new(error.to_string()))?;
        }
        writer.commit()
    });
    let feeding = async move {
        while let Some(part) = parts.next().await {
            // A writer that is gone says itself why.
            if sender.send(part?).await.is_err() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    let (written, fed) = tokio::join!(writing, feeding);
    fed.map_err(|error| Failure::new(error.to_string()))?;
    written
}
