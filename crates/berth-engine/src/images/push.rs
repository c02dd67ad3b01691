//! Pushes, logins, and looks at registries.

use std::sync::Arc;

use berth_api::{auth, image, progress};
use berth_image::{Instead, PushLimits, Pushed, Pushing};
use berth_oci::{Platform, Reference};
use tokio::sync::mpsc;

use super::{Caller, QUEUE, messages};
use crate::blocking::blocking;
use crate::descriptors::{described, platform};
use crate::event::{Event, ImageEvent};
use crate::{Engine, Error};

/// What Docker's clients call Docker Hub.
const HUB_NAMES: [&str; 5] =
    ["", "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

impl Engine {
    /// Pushes a tag of a repository to its registry, or all of them if none is given.
    pub async fn image_push(
        &self,
        name: &str,
        tag: Option<&str>,
        platform: Option<Platform>,
        caller: Caller,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let reference = target(name, tag)?;
        let begin = format!("The push refers to repository [{}]", reference.name());
        let _ = progress.send(progress::JsonMessage::status("", begin)).await;
        let (parts, wanted) = (Arc::clone(&self.parts), reference.clone());
        let tags = blocking(move || Ok(parts.images.pushable(&wanted)?)).await?;
        let registry = &self.parts.current.get().registry;
        let how = Pushing {
            platform,
            caller: caller.into(),
            limits: PushLimits { parallel: registry.concurrent_uploads, ..PushLimits::default() },
        };
        for tag in tags {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let push = self.parts.images.push(&tag, &how, sender);
            let (pushed, ()) = tokio::join!(push, messages::loading(receiver, &progress));
            tell(&pushed?, &progress).await;
        }
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let labels = parts.images.resolve(&reference.clone().with_default_tag().familiar());
            let labels =
                labels.map(|image| image.config.config.labels.into_iter().collect()).unwrap_or_default();
            // As in Docker, a push is of a name and not of an image.
            let (id, name) = (reference.familiar(), reference.familiar_repository());
            parts.events.publish(Event::Image { id, name, labels, event: ImageEvent::Push });
            Ok(())
        })
        .await
    }

    /// Tries the caller's account for the registry that it names.
    pub async fn login(&self, caller: Caller) -> Result<auth::AuthResponse, Error> {
        let domain = domain(caller.auth.as_ref().map_or("", |auth| &auth.serveraddress));
        let login = self.parts.images.login(&domain, caller.into()).await.map_err(refused)?;
        Ok(auth::AuthResponse {
            status: "Login Succeeded".to_owned(),
            identity_token: login.identity.unwrap_or_default(),
        })
    }

    /// What a registry has under a name.
    pub async fn distribution(&self, name: &str, caller: Caller) -> Result<image::Distribution, Error> {
        let reference: Reference =
            name.parse().map_err(|error| Error::InvalidParameter(format!("{error}")))?;
        let found = self.parts.images.distribution(&reference, caller.into()).await;
        let found = found.map_err(refused)?;
        Ok(image::Distribution {
            descriptor: described(found.descriptor),
            platforms: found.platforms.into_iter().map(platform).collect(),
        })
    }
}

/// What is to be pushed; what the name itself says of a tag does not count.
fn target(name: &str, tag: Option<&str>) -> Result<Reference, Error> {
    let invalid = |error: berth_oci::reference::ReferenceError| Error::InvalidParameter(error.to_string());
    let reference: Reference = name.parse().map_err(invalid)?;
    match tag {
        Some(digest) if digest.contains(':') => {
            Err(Error::InvalidParameter("cannot push a digest reference".to_owned()))
        }
        Some(tag) => reference.tagged(tag).map_err(invalid),
        None if reference.digest().is_some() => {
            Err(Error::InvalidParameter("cannot push a digest reference".to_owned()))
        }
        None => reference.name().parse().map_err(invalid),
    }
}

/// The last messages of one tag's push.
async fn tell(pushed: &Pushed, out: &mpsc::Sender<progress::JsonMessage>) {
    let Pushed { tag, digest, size, replaced, instead } = pushed;
    // A client that has gone away is noticed by whoever runs the request.
    if let Some(original) = replaced {
        let text = format!(
            "{tag}: the original layers cannot be had any more: compressed anew, manifest {original} is now {digest}"
        );
        let _ = out.send(progress::JsonMessage::status("", text)).await;
    }
    let text = format!("{tag}: digest: {digest} size: {size}");
    let _ = out.send(progress::JsonMessage::status("", text)).await;
    let aux = serde_json::json!({ "Tag": tag, "Digest": digest.to_string(), "Size": size });
    // Docker sends an empty detail along.
    let detail = Some(progress::ProgressDetail::default());
    let message = progress::JsonMessage { aux: Some(aux), progress_detail: detail, ..Default::default() };
    let _ = out.send(message).await;
    if let Some(Instead { index, manifest }) = instead {
        // Clients have their own words for it.
        let aux = serde_json::json!({
            "manifestPushedInsteadOfIndex": true,
            "originalIndex": described(index.clone()),
            "selectedManifest": described(manifest.clone()),
        });
        let _ = out.send(progress::JsonMessage { aux: Some(aux), ..Default::default() }).await;
    }
}

/// The registry that an address of Docker's clients stands for.
pub(super) fn domain(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    if HUB_NAMES.contains(&host) { "docker.io".to_owned() } else { host.to_owned() }
}

/// Refusals of a registry, with the statuses that tell clients to ask for other credentials.
pub(super) fn refused(error: berth_image::Error) -> Error {
    match error {
        berth_image::Error::Registry(
            berth_registry::Error::Refused { message } | berth_registry::Error::Denied { message, .. },
        ) if message.starts_with("denied") => Error::Forbidden(message),
        berth_image::Error::Registry(
            berth_registry::Error::Refused { message } | berth_registry::Error::Denied { message, .. },
        ) => Error::Unauthorized(message),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_registries_are_understood() {
        for (address, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://r.example/v2/", "r.example"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(domain(address), expected, "{address}");
        }
    }

    #[test]
    fn the_tag_beside_the_name_counts() {
        let text = |name: &str, tag| target(name, tag).map(|found| found.canonical()).ok();
        assert_eq!(text("r.example/a:1", Some("2")).as_deref(), Some("r.example/a:2"));
        assert_eq!(text("r.example/a:1", None).as_deref(), Some("r.example/a"));
        assert_eq!(text("a", Some("1")).as_deref(), Some("docker.io/library/a:1"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(text("a", Some(&digest)), None);
        assert_eq!(text(&format!("a@{digest}"), None), None);
        assert_eq!(text("A", None), None);
    }
}
