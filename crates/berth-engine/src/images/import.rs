//! An image of an archive of files.

use std::io::{self, Read};
use std::sync::Arc;

use berth_api::progress::{JsonMessage, ProgressDetail};
use berth_oci::config::{ContainerDefaults, History, RootFs};
use berth_oci::{ImageConfig, Platform};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::mpsc::Sender;
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::Url;

use super::commit::change;
use crate::engine::Parts;
use crate::event::ImageEvent;
use crate::{Engine, Error, op};

/// Bytes between two messages of progress.
const STEP: u64 = 512 << 10;
/// Most that is read of an archive that nobody wants, in bytes.
const DRAINED: u64 = 64 << 20;

impl Engine {
    /// Makes an image of one layer, which is an archive, compressed or not. Tells the image's ID.
    pub async fn image_import(
        &self,
        request: op::Import,
        archive: Box<dyn Read + Send>,
        progress: Sender<JsonMessage>,
    ) -> Result<(), Error> {
        let defaults = match prepare(&request) {
            Ok(defaults) => defaults,
            Err(refusal) => {
                // A client that cannot write its request would not see the answer.
                let rest = self.parts.paced.run(move || {
                    let _ = io::copy(&mut archive.take(DRAINED), &mut io::sink());
                    Ok(())
                });
                rest.await?;
                return Err(refusal);
            }
        };
        let parts = Arc::clone(&self.parts);
        let id = self.parts.paced.run(move || import(&parts, &request, defaults, archive)).await?;
        // A client that has gone is noticed by whoever runs the request.
        let _ = progress.send(JsonMessage::status("", id)).await;
        Ok(())
    }

    /// The same with an archive that is fetched; without a scheme, `http` is meant.
    pub async fn image_import_from(
        &self,
        request: op::Import,
        address: &str,
        progress: Sender<JsonMessage>,
    ) -> Result<(), Error> {
        prepare(&request)?;
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let url = Url::parse(&address)
            .map_err(|error| Error::InvalidParameter(format!("parse {address:?}: {error}")))?;
        let fetched = self.parts.images.fetch(&url).await?;
        let shown = berth_registry::without_credentials(url.as_str());
        let _ = progress.send(JsonMessage::status("", format!("Downloading from {shown}"))).await;
        let parts = told(fetched.parts.map(|part| part.map_err(io::Error::other)), fetched.length, &progress);
        let reader = SyncIoBridge::new(StreamReader::new(Box::pin(parts)));
        self.image_import(request, Box::new(reader), progress).await
    }
}

/// Passes the parts of a download on, and tells now and then how far it is.
fn told(
    parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    length: Option<u64>,
    progress: &Sender<JsonMessage>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let progress = progress.clone();
    let (mut done, mut due) = (0, 0);
    parts.inspect(move |part| {
        done += part.as_ref().map_or(0, |part| part.len() as u64);
        if done >= due {
            due = done + STEP;
            let detail = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let mut message = JsonMessage::status("", "Importing");
            let (current, total) = (detail(done), detail(length.unwrap_or(0)));
            message.progress_detail = Some(ProgressDetail { current, total });
            // Not waited for: the next one says more.
            let _ = progress.try_send(message);
        }
    })
}

/// Checks all that can be checked before the first byte.
fn prepare(request: &op::Import) -> Result<ContainerDefaults, Error> {
    if request.platform.as_ref().is_some_and(|platform| platform.os != "linux") {
        return Err(Error::InvalidParameter("operating system is not supported".into()));
    }
    let mut defaults = ContainerDefaults::default();
    change(&mut defaults, &request.changes)?;
    Ok(defaults)
}

fn import(
    parts: &Parts,
    request: &op::Import,
    defaults: ContainerDefaults,
    archive: Box<dyn Read + Send>,
) -> Result<String, Error> {
    let layer = parts.images.layer_of("import", archive)?;
    let now = Timestamp::now().to_string();
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let config = ImageConfig {
        created: Some(now.clone()),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        os_version: platform.os_version,
        config: defaults,
        comment: request.message.clone(),
        rootfs: RootFs::default(),
        history: vec![History { created: Some(now), comment: request.message.clone(), ..History::default() }],
        ..ImageConfig::default()
    };
    let id = parts.images.compose(config, Some(layer), request.name.as_ref(), None)?.id;
    if let Some(name) = &request.name {
        parts.image_event(&id, &name.familiar(), ImageEvent::Tag);
    }
    parts.image_event(&id, &id.to_string(), ImageEvent::Import);
    Ok(id.to_string())
}
