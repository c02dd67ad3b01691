//! What registries have.

use berth_oci::media_type::{ACCEPTED, DOCKER_MANIFEST, OCI_MANIFEST};
use berth_oci::{CONFIG_LIMIT, Document, ImageConfig, Manifest, Reference};
use berth_registry::{Client, Credentials, Proxies, RegistryConfig};
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::entry::{Entry, Listed, ListedPlatform};
use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};

/// A manifest list with everything that is shown of it.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Listed>,
}

/// What a name stands for in a registry.
pub enum Found {
    /// An image.
    Image(Box<Entry>),
    /// A list of images.
    List(Vec<Listed>),
}

/// A client for the registry of a name, with the user's account for it. One that is `insecure` may do without TLS.
pub async fn client(context: &Context, name: &Reference, insecure: bool) -> Client {
    let domain = name.domain();
    let client = Client::new(RegistryConfig {
        insecure: insecure.then(|| domain.to_owned()).into_iter().collect(),
        proxies: Proxies::from_environment(),
        ..RegistryConfig::default()
    });
    let auth = credentials::find(&context.config, credentials::address(domain)).await;
    let account = if !auth.registrytoken.is_empty() {
        Credentials::Token(auth.registrytoken)
    } else if !auth.identitytoken.is_empty() {
        Credentials::Identity(auth.identitytoken)
    } else if !auth.username.is_empty() && !auth.password.is_empty() {
        Credentials::Password { user: auth.username, password: auth.password }
    } else {
        return client;
    };
    client.with_credentials(domain, account)
}

/// What a registry says, in Docker's words where it has no such name.
pub fn failure(name: &Reference, error: &berth_registry::Error) -> Failure {
    if error.is_not_found() || matches!(error, berth_registry::Error::Denied { .. }) {
        return Failure::new(format!("no such manifest: {}", name.canonical()));
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Failure::new(text)
}

/// Looks at what a registry has under a name.
///
/// # Errors
/// What the registry says; a document that makes no sense.
pub async fn look(client: &Client, name: &Reference) -> Outcome<Found> {
    let answer = client.manifest(name, &ACCEPTED).await.map_err(|error| failure(name, &error))?;
    let document = Document::read(&answer.bytes, answer.media_type.as_deref());
    let manifest = match document.map_err(|error| Failure::new(error.to_string()))? {
        Document::Index(_) => {
            let list: List = serde_json::from_slice(&answer.bytes)
                .map_err(|error| Failure::new(format!("malformed manifest: {error}")))?;
            return Ok(Found::List(list.manifests));
        }
        Document::Manifest(manifest) => manifest,
    };
    let platform = platform(client, name, &manifest).await?;
    let given = answer.media_type.as_deref().filter(|kind| *kind == DOCKER_MANIFEST);
    let media_type = match manifest.media_type.as_str() {
        "" => given.unwrap_or(OCI_MANIFEST),
        own => own,
    };
    let listed = Listed {
        media_type: media_type.to_owned(),
        digest: answer.digest,
        size: answer.bytes.len() as u64,
        platform: Some(platform),
    };
    Ok(Found::Image(Box::new(Entry::new(name, listed, &answer.bytes)?)))
}

/// The image of a name.
///
/// # Errors
/// As [`look`]; it is a list.
pub async fn image(client: &Client, name: &Reference) -> Outcome<Entry> {
    match look(client, name).await? {
        Found::Image(entry) => Ok(*entry),
        Found::List(_) => Err(Failure::new(format!("{} is a manifest list", name.canonical()))),
    }
}

/// The images of a list; their platforms are those of the list.
///
/// # Errors
/// As [`image`].
pub async fn images(client: &Client, name: &Reference, list: &[Listed]) -> Outcome<Vec<Entry>> {
    let mut entries = Vec::new();
    for member in list {
        let mut named: Reference = name.at(member.digest.clone());
        if let Some(tag) = name.tag() {
            let whole = format!("{}:{tag}@{}", name.name(), member.digest);
            named = whole.parse().unwrap_or(named);
        }
        let mut entry = image(client, &named).await?;
        entry.descriptor.platform = Some(member.platform.clone().unwrap_or_default());
        entries.push(entry);
    }
    Ok(entries)
}

/// What an image's configuration says that it is for.
async fn platform(client: &Client, name: &Reference, manifest: &Manifest) -> Outcome<ListedPlatform> {
    let config = &manifest.config;
    let too_large = || Failure::new(format!("image configuration is larger than {CONFIG_LIMIT} bytes"));
    if config.size > CONFIG_LIMIT {
        return Err(too_large());
    }
    let failed = |error| failure(name, &error);
    let mut stream = client.blob(name, config, 0).await.map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(failed)?);
        if bytes.len() as u64 > CONFIG_LIMIT {
            return Err(too_large());
        }
    }
    if config.digest.verify(&bytes).is_err() {
        return Err(Failure::new(format!("image config verification failed for digest {}", config.digest)));
    }
    // What is no image, such as an attestation, need not say.
    let platform = ImageConfig::read(&bytes).map(|config| config.platform()).unwrap_or_default();
    Ok(ListedPlatform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version.unwrap_or_default(),
        os_features: Vec::new(),
        variant: platform.variant.unwrap_or_default(),
    })
}
