//! Bringing an image from a registry.

mod documents;

use std::sync::Arc;

use berth_oci::{Descriptor, Digest, Platform, Reference};
use berth_storage::{BlobKind, Expected, Lease, Tag};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::assemble::{self, Plan};
use crate::progress::{self, Reporter};
use crate::stream::{Download, Part, QUEUE};
use crate::turn::{Turn, blocking};
use crate::unpack::{Unpacked, unpack};
use crate::{Error, Images, Inner, Progress, Result, fetch, origins};
pub(crate) use documents::{Documents, fetch_config, fetch_documents};

/// Bounds of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    /// Layers that are brought at the same time.
    pub parallel: usize,
    /// Attempts at one layer, each of which goes on where the last one stopped.
    pub attempts: usize,
}

impl Default for PullLimits {
    /// Docker's.
    fn default() -> Self {
        Self { parallel: 3, attempts: 5 }
    }
}

/// How an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct Pulling {
    /// For which platform; this machine's if none is given.
    pub platform: Option<Platform>,
    /// On whose behalf.
    pub caller: berth_registry::Caller,
    /// Whether it is told what will be downloaded, before it is.
    pub estimate: bool,
    /// Whether it gets no name, not even by its digest.
    pub unnamed: bool,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the configuration.
    pub id: Digest,
    /// Digest of what the reference names: a manifest or an index.
    pub digest: Digest,
    /// Nothing had to be changed.
    pub up_to_date: bool,
}

impl Images {
    /// Brings the image that `reference` names.
    ///
    /// # Errors
    /// What the registry says; content that is not what was announced; a full disk. Nothing is changed then, and what
    /// came of the layers is kept for the next attempt.
    pub async fn pull(
        &self,
        reference: &Reference,
        how: Pulling,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Pulled> {
        let reference = reference.clone().with_default_tag();
        let registry = self.inner.registry.on_behalf(reference.domain(), how.caller);
        let registry = progress::telling(&registry, &progress);
        let documents = fetch_documents(&registry, &reference, how.platform).await?;
        let storage = self.storage();
        let id = documents.config.0.clone();
        let target = documents.index.as_ref().unwrap_or(&documents.manifest).0.clone();
        let names = if how.unnamed { Vec::new() } else { names(&reference, &target)? };
        // Who wants the same image waits until it is there, and finds all its layers.
        let whole = Digest::of(format!("image {id}").as_bytes());
        let turn = match self.inner.turns.try_take(&whole) {
            Some(turn) => turn,
            None => {
                for layer in &documents.layers {
                    let reporter = Reporter::new(layer.digest.short().to_owned(), progress.clone());
                    reporter.state("Waiting").await;
                }
                self.inner.turns.take(&whole).await
            }
        };
        let mut lease = storage.lease();
        let plan = Plan::new(storage, &documents.parsed, &mut lease)?;
        let known = storage.images().get(&id)?.is_some();
        let same = known
            && match storage.images().by_name(&reference.canonical())? {
                // Another platform of the same index may be what the name means first.
                Some(image) => {
                    image.id == id
                        || storage.images().target(&reference.canonical())?.as_ref() == Some(&target)
                }
                None => reference.tag().is_none(),
            };
        let images = self.clone();
        let wanted = reference.clone();
        let (documents, plan, estimate) = blocking(move || {
            let estimate = images.check_room(&documents, &plan, &wanted)?;
            Ok((documents, plan, estimate))
        })
        .await?;
        if let Some(line) = estimate.line().filter(|_| how.estimate) {
            progress::line(&progress, line).await;
        }
        let layers = self.bring_layers(&registry, &reference, &documents, &plan, progress).await?;
        let origin = reference.clone();
        let images = self.clone();
        let digest = target.clone();
        turn.blocking(move || images.store(&documents, &plan, layers, &names, &origin, &mut lease)).await?;
        Ok(Pulled { id, digest, up_to_date: same })
    }

    /// Stores everything at the end of a pull. Blocks.
    fn store(
        &self,
        documents: &Documents,
        plan: &Plan,
        layers: Vec<Unpacked>,
        names: &[Tag],
        origin: &Reference,
        lease: &mut Lease,
    ) -> Result<()> {
        let storage = self.storage();
        assemble::place(storage, plan, layers, lease)?;
        for (digest, bytes) in documents.index.iter().chain([&documents.manifest, &documents.config]) {
            storage.blobs().put(digest, bytes, lease)?;
        }
        let index = documents.index.as_ref().map(|(digest, _)| digest.clone());
        let sources = [berth_storage::Source { manifest: documents.manifest.0.clone(), index }];
        assemble::record(storage, &documents.config.0, &documents.parsed, plan, &sources, names)?;
        origins::remember(storage, plan.diffs.iter().zip(&documents.layers), origin)
    }

    /// Downloads and unpacks the missing layers; the result is in their order.
    async fn bring_layers(
        &self,
        registry: &berth_registry::Client,
        reference: &Reference,
        documents: &Documents,
        plan: &Plan,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Unpacked>> {
        let limits = self.limits();
        let slots = Arc::new(Semaphore::new(limits.parallel.max(1)));
        let mut tasks = JoinSet::new();
        for (index, (layer, diff)) in documents.layers.iter().zip(&plan.diffs).enumerate() {
            let reporter = Reporter::new(layer.digest.short().to_owned(), progress.clone());
            if index < plan.present {
                reporter.state("Already exists").await;
                continue;
            }
            reporter.state("Pulling fs layer").await;
            let job = Job {
                inner: Arc::clone(&self.inner),
                registry: registry.clone(),
                reference: reference.clone(),
                layer: layer.clone(),
                diff: diff.clone(),
                reporter,
                attempts: limits.attempts,
            };
            let slots = Arc::clone(&slots);
            tasks.spawn(async move {
                let _slot = slots.acquire_owned().await;
                (index, job.run().await)
            });
        }
        drop(progress);
        let mut layers: Vec<(usize, Unpacked)> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (index, outcome) =
                done.map_err(|error| Error::io("bring a layer", std::io::Error::other(error)))?;
            // The first failure ends the others: dropping the set aborts them.
            layers.push((index, outcome?));
        }
        layers.sort_by_key(|(index, _)| *index);
        Ok(layers.into_iter().map(|(_, layer)| layer).collect())
    }
}

/// The names that a pull gives: the tag, and the digest beside it.
fn names(reference: &Reference, target: &Digest) -> Result<Vec<Tag>> {
    let by_digest = reference.at(target.clone()).canonical();
    let mut names = vec![Tag { name: by_digest, target: target.clone() }];
    if reference.tag().is_some() && reference.digest().is_none() {
        names.push(Tag { name: reference.canonical(), target: target.clone() });
    }
    Ok(names)
}

/// One layer to bring.
struct Job {
    inner: Arc<Inner>,
    registry: berth_registry::Client,
    reference: Reference,
    layer: Descriptor,
    diff: Digest,
    reporter: Reporter,
    attempts: usize,
}

impl Job {
    async fn run(self) -> Result<Unpacked> {
        // A blob has one writer: whoever wants it too waits, and then finds it in the cache.
        let turn = self.inner.turns.take(&self.layer.digest).await;
        let mut attempt = 1;
        loop {
            let begun = self.inner.storage.blobs().begun(&self.layer.digest);
            let error = match self.attempt(&turn).await {
                Err(error) => error,
                done => return done,
            };
            let layer = self.layer.digest.short();
            // A mirror's failure is not the registry's, and what goes on from a damaged beginning is damaged.
            if self.registry.distrust(&self.layer.digest) || (begun > 0 && error.is_damage()) {
                tracing::warn!(layer, %error, "a download begins again");
                continue;
            }
            if attempt >= self.attempts || !error.is_transient() {
                return Err(error);
            }
            tracing::info!(layer, %error, attempt, "going on with a download");
            self.reporter.state("Retrying").await;
            tokio::time::sleep(std::time::Duration::from_millis(200 << attempt.min(8))).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, turn: &Turn) -> Result<Unpacked> {
        if let Some(unpacked) = self.cached(turn).await? {
            return Ok(unpacked);
        }
        let expected = Expected { digest: self.layer.digest.clone(), size: Some(self.layer.size) };
        let inner = Arc::clone(&self.inner);
        let writer = turn
            .blocking(move || {
                inner.storage.check_space()?;
                Ok(inner.storage.blobs().writer(BlobKind::Layer, expected)?)
            })
            .await?;
        let (sender, parts) = mpsc::channel(QUEUE);
        let offset = writer.offset();
        let download = Download::new(writer, parts, self.reporter.clone(), self.layer.size)?;
        let feed = self.feed(offset, sender);
        let (inner, diff) = (Arc::clone(&self.inner), self.diff.clone());
        let (name, reporter) = (self.layer.digest.short().to_owned(), self.reporter.clone());
        let work = turn.blocking(move || take_in(&inner, &name, &diff, download, &reporter));
        // The feed ends with the download, or when the receiver is gone.
        let ((), unpacked) = tokio::join!(feed, work);
        unpacked
    }

    /// Sends the parts of the blob from `offset` on.
    async fn feed(&self, offset: u64, sender: mpsc::Sender<Part>) {
        if offset >= self.layer.size {
            return;
        }
        let mut stream = match self.registry.blob(&self.reference, &self.layer, offset).await {
            Ok(stream) => stream,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        while let Some(part) = stream.next().await {
            let failed = part.is_err();
            if sender.send(part).await.is_err() || failed {
                return;
            }
        }
    }

    /// Unpacks the blob again if it is still there from an earlier pull; one that is damaged is thrown away.
    async fn cached(&self, turn: &Turn) -> Result<Option<Unpacked>> {
        let inner = Arc::clone(&self.inner);
        let (digest, diff) = (self.layer.digest.clone(), self.diff.clone());
        turn.blocking(move || {
            let mut lease = inner.storage.lease();
            if !inner.storage.blobs().hold(&digest, &mut lease)? {
                return Ok(None);
            }
            let file = inner.storage.blobs().open(&digest).map_err(Error::from);
            let unpacked = file.and_then(|file| {
                let reader = std::io::BufReader::with_capacity(256 << 10, file);
                unpack(&inner.storage, digest.short(), &diff, reader)
            });
            match unpacked {
                Err(error) if fetch::discard_if_damaged(&inner.storage, &digest)? => {
                    tracing::warn!(layer = digest.short(), %error, "a damaged blob of the cache is thrown away");
                    Ok(None)
                }
                outcome => outcome.map(Some),
            }
        })
        .await
    }
}

/// Unpacks while the download writes, and stores the blob once both are done. Blocks.
fn take_in(
    inner: &Inner,
    name: &str,
    diff: &Digest,
    mut download: Download,
    reporter: &Reporter,
) -> Result<Unpacked> {
    let outcome = unpack(&inner.storage, name, diff, &mut download);
    if let Some(failure) = download.take_failure() {
        return Err(failure);
    }
    reporter.blocking_state("Download complete");
    // If the unpacking failed on a damaged download, the digest tells so: it is the better reason.
    if outcome.is_err() {
        let _ = std::io::copy(&mut download, &mut std::io::sink());
    }
    let mut lease = inner.storage.lease();
    let committed = download.finish().and_then(|writer| Ok(writer.commit(&mut lease)?));
    match (committed, outcome) {
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(unpacked)) => {
            reporter.blocking_state("Pull complete");
            Ok(unpacked)
        }
    }
}
