//! Attestations: what an index says of its images. They are not kept here; a push copies them from where the index came from.

use std::sync::Arc;

use berth_oci::media_type::ACCEPTED;
use berth_oci::{Descriptor, Manifest, Reference};
use berth_registry::Client;
use tokio::sync::mpsc;

use super::PushLimits;
use super::content::Content;
use super::index::Whole;
use crate::progress::Reporter;
use crate::turn::blocking;
use crate::{Error, Images, Progress, Result, fetch};

/// Where attestations go, and on whose behalf.
pub(super) struct Way<'a> {
    pub registry: &'a Client,
    pub target: &'a Reference,
    pub limits: PushLimits,
    pub progress: &'a mpsc::Sender<Progress>,
}

impl Images {
    /// Brings attestations that an index lists to the target, byte for byte; whether all of them could be had.
    pub(super) async fn copy_attestations(
        &self,
        way: &Way<'_>,
        whole: &Whole,
        missing: &[&Descriptor],
    ) -> Result<bool> {
        if missing.is_empty() {
            return Ok(true);
        }
        let repositories = self.repositories(whole).await?;
        for entry in missing {
            let mut is_there = false;
            for from in repositories.iter().filter(|from| from.name() != way.target.name()) {
                is_there = self.copy_attestation(way, from, entry).await?;
                if is_there {
                    break;
                }
            }
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Repositories that are known to hold an index.
    async fn repositories(&self, whole: &Whole) -> Result<Vec<Reference>> {
        let images = self.clone();
        let (index, kept): (_, Vec<_>) =
            (whole.stands.digest.clone(), whole.kept.iter().map(|(_, record)| record.id.clone()).collect());
        blocking(move || {
            let mut repositories = Vec::new();
            for id in kept {
                let names = images.storage().images().names(&id)?.into_iter();
                let names = names.filter(|name| name.target == index);
                // What has a digest for a name is what a registry has; tags may be anybody's.
                let names = names.filter_map(|name| name.name.parse::<Reference>().ok());
                repositories.extend(names.filter(|name| name.digest().is_some()));
            }
            repositories.dedup();
            Ok(repositories)
        })
        .await
    }

    /// `false` if `from` does not have it. What the target refuses is the push's failure.
    async fn copy_attestation(&self, way: &Way<'_>, from: &Reference, entry: &Descriptor) -> Result<bool> {
        let Way { registry, target, limits, progress } = way;
        let missing = |error: Error| {
            tracing::info!(from = from.name(), %error, "an attestation cannot be copied");
            Ok(false)
        };
        let answer = match registry.manifest(&from.at(entry.digest.clone()), &ACCEPTED).await {
            Ok(answer) => answer,
            Err(error) => return missing(error.into()),
        };
        // Its layers are of any kind: it is no image.
        let manifest: Manifest = serde_json::from_slice(&answer.bytes)
            .map_err(|error| Error::io("reading an attestation", error.into()))?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            if registry.has_blob(target, &blob.digest).await? {
                continue;
            }
            let reporter = Reporter::new(blob.digest.short().to_owned(), (*progress).clone());
            let fetched = fetch::fetch(&self.inner, registry, from, blob, limits.attempts, &reporter).await;
            let _lease = match fetched {
                Ok(lease) => lease,
                Err(error) => return missing(error),
            };
            let content = Content::Cached(blob.digest.clone());
            let feed = content.feed(Arc::clone(&self.inner.storage), blob.size, reporter.clone());
            registry.upload(target, blob, None, feed.as_ref(), limits.attempts).await?;
            reporter.state("Pushed").await;
        }
        registry.put_manifest(&target.at(entry.digest.clone()), &entry.media_type, answer.bytes).await?;
        Ok(true)
    }
}
