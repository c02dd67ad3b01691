//! Images brought from registries: one, or all of a repository.

use std::sync::Arc;

use berth_api::progress::JsonMessage;
use berth_image::{Pulled, Pulling};
use berth_oci::{Digest, Platform, Reference};
use tokio::sync::mpsc;

use super::{Caller, QUEUE, messages};
use crate::blocking::blocking;
use crate::event::{Event, ImageEvent};
use crate::{Engine, Error};

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::InvalidParameter(error.to_string())
}

fn platform_of(text: Option<&str>) -> Result<Option<Platform>, Error> {
    text.map(str::parse::<Platform>).transpose().map_err(|error| invalid(&error))
}

impl Engine {
    /// Pulls an image by its reference, such as `debian:12`; with `estimate`, what will be downloaded is told first. Errors after the first message are also returned.
    pub async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        caller: Caller,
        estimate: bool,
        progress: mpsc::Sender<JsonMessage>,
    ) -> Result<(), Error> {
        let reference: Reference = reference.parse().map_err(|error| invalid(&error))?;
        let reference = reference.with_default_tag();
        let how =
            Pulling { platform: platform_of(platform)?, caller: caller.into(), estimate, unnamed: false };
        let pulled = self.pull_one(&reference, how, &progress).await?;
        messages::pulled(&reference.familiar(), pulled.up_to_date, &progress).await;
        self.tell_pull(&reference, pulled.id).await
    }

    /// Pulls all tags of a repository, such as `debian`, one after the other. Those that came before one that fails
    /// stay. Errors after the first message are also returned.
    pub async fn image_pull_all(
        &self,
        repository: &str,
        platform: Option<&str>,
        caller: Caller,
        progress: mpsc::Sender<JsonMessage>,
    ) -> Result<(), Error> {
        let repository: Reference = repository.parse().map_err(|error| invalid(&error))?;
        let how = Pulling {
            platform: platform_of(platform)?,
            caller: caller.into(),
            estimate: false,
            unnamed: false,
        };
        let tags = self.parts.images.tags(&repository, how.caller.clone()).await?;
        let mut last = None;
        let mut up_to_date = true;
        for tag in tags {
            let pulled = self.pull_one(&tag, how.clone(), &progress).await?;
            up_to_date &= pulled.up_to_date;
            last = Some(pulled.id);
        }
        messages::pulled(&repository.familiar_repository(), up_to_date, &progress).await;
        match last {
            Some(id) => self.tell_pull(&repository, id).await,
            None => Ok(()),
        }
    }

    /// Pulls one image, and tells all but how it ended.
    async fn pull_one(
        &self,
        reference: &Reference,
        how: Pulling,
        progress: &mpsc::Sender<JsonMessage>,
    ) -> Result<Pulled, Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let pull = self.parts.images.pull(reference, how, sender);
        let tell = messages::layers(reference, receiver, progress);
        let (pulled, begun) = tokio::join!(pull, tell);
        let pulled = pulled?;
        if !begun {
            messages::begin(reference, progress).await;
        }
        messages::digest(&pulled.digest, progress).await;
        Ok(pulled)
    }

    /// As in Docker, a pull is of a name and not of an image.
    async fn tell_pull(&self, reference: &Reference, image: Digest) -> Result<(), Error> {
        let parts = Arc::clone(&self.parts);
        let (id, name) = (reference.familiar(), reference.familiar_repository());
        blocking(move || {
            let labels = parts.image_labels(&image);
            parts.events.publish(Event::Image { id, name, labels, event: ImageEvent::Pull });
            Ok(())
        })
        .await
    }
}
