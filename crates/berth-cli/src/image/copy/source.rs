//! Where an image comes from.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use berth_oci::media_type::ACCEPTED;
use berth_oci::{Descriptor, Digest, MANIFEST_LIMIT, Reference};
use berth_registry::{BlobStream, Client};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;

use super::archive::{self, Unlisted};
use super::document::Document;
use super::files::{Files, Part};
use super::layout;
use super::place::Place;
use crate::failure::{Failure, Outcome};

/// The bytes of a blob as they come.
pub type Bytestream = BoxStream<'static, io::Result<Bytes>>;

/// Attempts to go on with a blob without a byte of progress.
const ATTEMPTS: u32 = 5;
/// Bytes that are read from a file at once.
const PIECE: usize = 256 << 10;
/// Pieces of a file that may wait.
const QUEUE: usize = 8;

/// The source of a copy.
#[derive(Debug, Clone)]
pub enum Source {
    /// A registry.
    Registry {
        /// With the account for it.
        client: Client,
        /// The image.
        reference: Reference,
    },
    /// A layout.
    Layout {
        /// Its files.
        files: Arc<Files>,
        /// The name in its index.
        tag: Option<String>,
    },
    /// An archive that has no layout, only what Docker used to write.
    Archive {
        /// Its files.
        files: Arc<Files>,
        /// What a layout would list.
        image: Arc<Unlisted>,
    },
}

impl Source {
    /// Opens a place. `client` has the account for it.
    pub async fn open(place: &Place, client: Client) -> Outcome<Self> {
        let place = match place.clone() {
            Place::Registry(reference) => return Ok(Self::Registry { client, reference }),
            place => place,
        };
        blocking(move || match place {
            Place::Registry(_) => Err(Failure::new("a registry is no file")),
            Place::Layout { path, tag } => Ok(Self::Layout { files: Arc::new(Files::Directory(path)), tag }),
            Place::OciArchive { path, tag } => Ok(Self::Layout { files: Arc::new(Files::tar(&path)?), tag }),
            Place::DockerArchive { path, name } => {
                let files = Arc::new(Files::tar(&path)?);
                let name = name.map(|name| name.familiar());
                // Newer ones are layouts, too, and have the manifests that the images came with.
                if files.open("index.json").is_ok() && files.open("oci-layout").is_ok() {
                    return Ok(Self::Layout { files, tag: name });
                }
                let image = Arc::new(archive::list(&files, name.as_deref())?);
                Ok(Self::Archive { files, image })
            }
        })
        .await
    }

    /// The document that the source is a name of.
    pub async fn root(&self) -> Outcome<Document> {
        match self {
            Self::Registry { client, reference } => fetch(client, reference).await,
            Self::Layout { files, tag } => {
                let (files, tag) = (Arc::clone(files), tag.clone());
                blocking(move || layout::root(&files, tag.as_deref())).await
            }
            Self::Archive { image, .. } => {
                Document::read(image.manifest.clone(), Digest::of(&image.manifest), None)
            }
        }
    }

    /// A document that an index lists.
    pub async fn document(&self, listed: &Descriptor) -> Outcome<Document> {
        let mut document = match self {
            Self::Registry { client, reference } => {
                fetch(client, &reference.at(listed.digest.clone())).await?
            }
            Self::Layout { files, .. } | Self::Archive { files, .. } => {
                let (files, listed) = (Arc::clone(files), listed.clone());
                blocking(move || layout::document(&files, &listed)).await?
            }
        };
        document.platform.clone_from(&listed.platform);
        Ok(document)
    }

    /// A blob from `offset` on: exactly as many bytes as are left of it. What breaks off is gone on with.
    pub fn blob(&self, blob: &Descriptor, offset: u64) -> Bytestream {
        match self {
            Self::Registry { client, reference } => {
                let state = Download {
                    client: client.clone(),
                    reference: reference.clone(),
                    blob: blob.clone(),
                    offset,
                    failures: 0,
                    parts: None,
                };
                stream::unfold(Some(state), Download::next).boxed()
            }
            Self::Layout { files, .. } => {
                let path = layout::place(&blob.digest);
                from_file(files.open(&path), blob.size, offset)
            }
            Self::Archive { files, image } => {
                let part = match image.paths.get(&blob.digest) {
                    Some(path) => files.open(path),
                    None => Err(io::Error::other(format!("the archive has no {}", blob.digest))),
                };
                from_file(part, blob.size, offset)
            }
        }
    }
}

async fn fetch(client: &Client, reference: &Reference) -> Outcome<Document> {
    let answer = client.manifest(reference, &ACCEPTED).await;
    let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
    Document::read(answer.bytes, answer.digest, answer.media_type.as_deref())
}

/// A blob on its way from a registry.
struct Download {
    client: Client,
    reference: Reference,
    blob: Descriptor,
    /// How much of it has come.
    offset: u64,
    /// Attempts since the last byte.
    failures: u32,
    parts: Option<BlobStream>,
}

impl Download {
    async fn next(state: Option<Self>) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut state = state?;
        loop {
            let left = state.blob.size.saturating_sub(state.offset);
            if left == 0 {
                return None;
            }
            match state.part().await {
                Ok(Some(part)) if part.len() as u64 > left => {
                    let text = format!(
                        "{} is larger than the {} bytes announced",
                        state.blob.digest, state.blob.size
                    );
                    return Some((Err(io::Error::new(io::ErrorKind::InvalidData, text)), None));
                }
                Ok(Some(part)) => {
                    state.offset += part.len() as u64;
                    state.failures = 0;
                    return Some((Ok(part), Some(state)));
                }
                // It ended early: as if it had been cut.
                Ok(None) if state.failures + 1 < ATTEMPTS => {}
                Ok(None) => {
                    let text = format!("{} ends {left} bytes early", state.blob.digest);
                    return Some((Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)), None));
                }
                Err(error) if error.is_transient() && state.failures + 1 < ATTEMPTS => {}
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            }
            state.parts = None;
            state.failures += 1;
            tokio::time::sleep(Duration::from_millis(100 << state.failures)).await;
        }
    }

    async fn part(&mut self) -> Result<Option<Bytes>, berth_registry::Error> {
        let mut parts = match self.parts.take() {
            Some(parts) => parts,
            None => self.client.blob(&self.reference, &self.blob, self.offset).await?,
        };
        let part = parts.next().await.transpose()?;
        self.parts = Some(parts);
        Ok(part)
    }
}

/// A part of a file as a stream, which a thread of its own reads.
fn from_file(part: io::Result<Part>, size: u64, offset: u64) -> Bytestream {
    let part = match part {
        Ok(part) if part.size == size => part,
        Ok(part) => {
            let text =
                format!("a blob has {} bytes, and not the {size} that its manifest announces", part.size);
            return stream::iter([Err(io::Error::new(io::ErrorKind::InvalidData, text))]).boxed();
        }
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut reader = match part.reader(offset) {
            Ok(reader) => reader,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            // A receiver that is gone has no use for the rest.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) })
        .boxed()
}

/// Runs work that blocks on a thread for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(error.to_string()))?
}

/// A document of a file, verified.
pub fn verified(bytes: Vec<u8>, listed: &Descriptor) -> Outcome<Document> {
    if let Err(actual) = listed.digest.verify(&bytes) {
        return Err(Failure::new(format!("a manifest has digest {actual}, expected {}", listed.digest)));
    }
    Document::read(bytes, listed.digest.clone(), Some(&listed.media_type))
}

/// Longest document of a file.
pub const LONGEST: u64 = MANIFEST_LIMIT;
