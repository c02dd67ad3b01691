//! The copying itself: an index with its manifests, manifests with their blobs, each before what names it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_api::progress::{JsonMessage, ProgressDetail};
use berth_oci::{Descriptor, Digest, Platform};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::progress::{Screen as Bars, To};
use super::document::Document;
use super::sink::{Offer, Sink};
use super::source::Source;
use crate::failure::{Failure, Outcome};

/// Blobs that are on their way at the same time.
const PARALLEL: usize = 4;
/// Most documents that one name may lead to.
const DOCUMENTS: usize = 1000;
/// Shortest time between two counts.
const PAUSE: Duration = Duration::from_millis(100);

/// Where progress is shown.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<Bars>>);

impl Screen {
    /// A new one.
    pub fn new(to: To) -> Self {
        Self(Arc::new(Mutex::new(Bars::new(to))))
    }

    /// A line about no blob.
    pub fn line(&self, text: &str) {
        self.show(&JsonMessage::status("", text));
    }

    /// Leaves what it shows.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end();
    }

    fn state(&self, blob: &Descriptor, status: &str, current: u64) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut message = JsonMessage::status(blob.digest.short(), status);
        let total = if current > 0 { number(blob.size) } else { 0 };
        message.progress_detail = Some(ProgressDetail { current: number(current), total });
        self.show(&message);
    }

    fn show(&self, message: &JsonMessage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).message(message);
    }
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: usize,
}

/// A copy.
pub struct Transfer {
    /// Where from.
    pub source: Source,
    /// Where to.
    pub sink: Sink,
    /// Where progress is shown.
    pub screen: Screen,
}

impl Transfer {
    /// Copies the image for `platform`, or everything if there is none.
    pub async fn run(&mut self, platform: Option<Platform>) -> Outcome<Copied> {
        let root = self.source.root().await?;
        let root = match platform {
            Some(platform) => self.chosen(root, &platform).await?,
            None => root,
        };
        if root.manifests().is_some() && !self.sink.takes_indexes() {
            return Err(Failure::new(
                "an archive of docker save holds one image for one platform: use oci-archive:, or --platform",
            ));
        }
        let mut documents = self.below(&root).await?;
        let mut blobs: Vec<Descriptor> = Vec::new();
        for document in documents.iter().chain([&root]) {
            for blob in document.blobs() {
                if !blobs.iter().any(|known| known.digest == blob.digest) {
                    blobs.push(blob);
                }
            }
        }
        let bring = |blob| self.bring(blob);
        stream::iter(blobs).map(bring).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        // The deepest first: a registry wants to know what an index lists.
        while let Some(document) = documents.pop() {
            self.sink.put(&document).await?;
        }
        let digest = self.sink.finish(&root).await?;
        if digest != root.digest {
            return Err(Failure::new(format!("the copy has digest {digest}, expected {}", root.digest)));
        }
        Ok(Copied { digest, size: root.bytes.len() })
    }

    /// What an index lists for a platform; a manifest is itself.
    async fn chosen(&self, root: Document, platform: &Platform) -> Outcome<Document> {
        if root.manifests().is_none() {
            return Ok(root);
        }
        let Some(found) = root.find(platform) else {
            return Err(Failure::new(format!(
                "no matching manifest for {platform} in the manifest list entries"
            )));
        };
        self.source.document(&found).await
    }

    /// All documents that one leads to, those that list others before them.
    async fn below(&self, root: &Document) -> Outcome<Vec<Document>> {
        let mut found: Vec<Document> = Vec::new();
        let mut wanted: Vec<Descriptor> = root.manifests().unwrap_or_default().to_vec();
        let mut next = 0;
        while let Some(listed) = wanted.get(next).cloned() {
            next += 1;
            if found.iter().any(|known| known.digest == listed.digest) || listed.digest == root.digest {
                continue;
            }
            if found.len() >= DOCUMENTS {
                return Err(Failure::new(format!("the index lists more than {DOCUMENTS} manifests")));
            }
            let document = self.source.document(&listed).await?;
            wanted.extend(document.manifests().unwrap_or_default().iter().cloned());
            found.push(document);
        }
        Ok(found)
    }

    /// Brings one blob over, unless it is there.
    async fn bring(&self, blob: Descriptor) -> Outcome {
        match self.sink.offer(&blob, self.neighbour()).await? {
            Offer::Exists => self.screen.state(&blob, "Already exists", 0),
            Offer::Mounted => self.screen.state(&blob, "Mounted", 0),
            Offer::Wanted(begun) => {
                self.screen.state(&blob, "Copying", 0);
                let (source, screen, wanted) = (self.source.clone(), self.screen.clone(), blob.clone());
                let feed = move |offset| {
                    let (screen, blob) = (screen.clone(), wanted.clone());
                    let done = AtomicU64::new(offset);
                    let mut last = Instant::now();
                    let parts = source.blob(&wanted, offset);
                    let told = parts.inspect_ok(move |part| {
                        let done = done.fetch_add(part.len() as u64, Ordering::Relaxed) + part.len() as u64;
                        if last.elapsed() >= PAUSE {
                            last = Instant::now();
                            screen.state(&blob, "Copying", done);
                        }
                    });
                    told.boxed()
                };
                self.sink.bring(&blob, begun, feed).await?;
                self.screen.state(&blob, "Copied", 0);
            }
        }
        Ok(())
    }

    /// The source's repository, if the destination is another one of the same registry.
    fn neighbour(&self) -> Option<&str> {
        match (&self.source, &self.sink) {
            (Source::Registry { reference: from, .. }, Sink::Registry { reference: to, .. })
                if from.domain() == to.domain() && from.path() != to.path() =>
            {
                Some(from.path())
            }
            _ => None,
        }
    }
}
