//! What a registry tells without anything being stored.

use berth_oci::media_type::{ACCEPTED, OCI_INDEX, OCI_MANIFEST};
use berth_oci::{Descriptor, Document, ImageConfig, Platform, Reference};
use berth_registry::{Caller, Login};

use crate::pull::fetch_config;
use crate::{Images, Result};

/// What a registry has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What it is for.
    pub platforms: Vec<Platform>,
}

impl Images {
    /// Tries the caller's credentials for the registry `domain`.
    ///
    /// # Errors
    /// The registry refuses them, or cannot be reached.
    pub async fn login(&self, domain: &str, caller: Caller) -> Result<Login> {
        let registry = self.inner.registry.on_behalf(domain, caller);
        Ok(registry.login(domain).await?)
    }

    /// Searches a registry for repositories that `term` fits.
    ///
    /// # Errors
    /// What the registry says; it cannot be searched, or cannot be reached.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
        caller: Caller,
    ) -> Result<Vec<berth_registry::Found>> {
        Ok(self.inner.registry.on_behalf(domain, caller).search(domain, term, limit).await?)
    }

    /// All images of the repository of `reference` that a registry has by tags.
    ///
    /// # Errors
    /// What the registry says; a tag that is none.
    pub async fn tags(&self, reference: &Reference, caller: Caller) -> Result<Vec<Reference>> {
        let registry = self.inner.registry.on_behalf(reference.domain(), caller);
        let tags = registry.tags(reference).await?;
        tags.iter().map(|tag| Ok(reference.tagged(tag)?)).collect()
    }

    /// Asks a registry what `reference` names.
    ///
    /// # Errors
    /// What the registry says; documents that make no sense.
    pub async fn distribution(&self, reference: &Reference, caller: Caller) -> Result<Distribution> {
        let reference = reference.clone().with_default_tag();
        let registry = self.inner.registry.on_behalf(reference.domain(), caller);
        let answer = registry.manifest(&reference, &ACCEPTED).await?;
        let size = answer.bytes.len() as u64;
        let (kind, platforms) = match Document::read(&answer.bytes, answer.media_type.as_deref())? {
            Document::Index(index) => {
                let platforms = index.manifests.into_iter().filter_map(|manifest| manifest.platform);
                (named(index.media_type, &answer.media_type, OCI_INDEX), platforms.collect())
            }
            Document::Manifest(manifest) => {
                let config = fetch_config(&registry, &reference, &manifest.config).await?;
                let platform = ImageConfig::read(&config)?.platform();
                (named(manifest.media_type, &answer.media_type, OCI_MANIFEST), vec![platform])
            }
        };
        Ok(Distribution { descriptor: Descriptor::new(&kind, answer.digest, size), platforms })
    }
}

/// What a document is: by its own words, the registry's, or its form.
fn named(own: String, said: &Option<String>, usual: &str) -> String {
    let found = Some(own).filter(|own| !own.is_empty()).or_else(|| said.clone());
    found.unwrap_or_else(|| usual.to_owned())
}
