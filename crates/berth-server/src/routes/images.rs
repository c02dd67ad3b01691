//! Images: listed, pulled, loaded, named, removed.

use std::future::ready;
use std::sync::Arc;

use berth_api::progress::JsonMessage;
use berth_api::version::ApiVersion;
use berth_engine::{Engine, Error, op};
use berth_oci::{Platform, Reference};
use bytes::Bytes;
use futures_util::stream::{once, unfold};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http::{Response, StatusCode};
use http_body_util::BodyStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::intake::carried;
use super::{Outcome, import, legacy, platforms};
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;
use crate::incoming::RequestBody;

/// Progress messages that wait for a slow client.
const PROGRESS_QUEUE: usize = 64;

pub async fn list(call: Call) -> Outcome {
    let version = |minor| call.version >= ApiVersion::new(1, minor);
    let list = op::ImageList {
        all: call.query.flag("all"),
        filters: call.query.filters()?,
        shared_size: version(42) && call.query.flag("shared-size"),
        manifests: version(47) && call.query.flag("manifests"),
    };
    if version(54) && call.query.flag("identity") && !list.manifests {
        return Err(Failure::invalid("identity requires manifests=1"));
    }
    let images = call.engine.image_list(list).await?;
    Ok(legacy::images(call.version, images))
}

pub async fn inspect(call: Call, name: &str) -> Outcome {
    let manifests = call.version >= ApiVersion::new(1, 48) && call.query.flag("manifests");
    let platform = platforms::single(&call.query, call.version, ApiVersion::new(1, 49))?;
    if manifests && platform.is_some() {
        return Err(Failure::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = call.engine.image_inspect(name, platform, manifests).await?;
    Ok(legacy::image(call.version, &image))
}

pub async fn history(call: Call, name: &str) -> Outcome {
    let platform = platforms::single(&call.query, call.version, ApiVersion::new(1, 48))?;
    Ok(answer::ok(&call.engine.image_history(name, platform).await?))
}

pub async fn layers(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.image_layers(name).await?))
}

pub async fn remove(call: Call, name: &str) -> Outcome {
    if name.trim().is_empty() {
        return Err(Failure::invalid("image name cannot be blank"));
    }
    let force = call.query.flag("force");
    if call.version >= ApiVersion::new(1, 50) {
        let platforms = platforms::all(&call.query, "platforms")?;
        if !platforms.is_empty() {
            return Ok(answer::ok(&call.engine.image_remove_platforms(name, platforms, force).await?));
        }
    }
    let remove = op::ImageRemove { force, keep_parents: call.query.flag("noprune") };
    Ok(answer::ok(&call.engine.image_remove(name, remove).await?))
}

pub async fn tag(call: Call, name: &str) -> Outcome {
    call.engine.image_tag(name, call.query.get("repo"), call.query.get("tag")).await?;
    Ok(answer::status(StatusCode::CREATED))
}

pub async fn prune(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.image_prune(call.query.filters()?).await?))
}

/// The reference that `fromImage` and `tag` name together; none without an image. Without a tag it is all of a repository.
fn reference(query: &Query) -> Option<String> {
    // As in Docker, some clients leave a colon behind for all tags.
    let name = query.given("fromImage").map(|name| name.strip_suffix(':').unwrap_or(name))?;
    Some(match query.given("tag") {
        None => name.to_owned(),
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
    })
}

pub async fn create(call: Call) -> Outcome {
    let Some(reference) = reference(&call.query) else { return import::image(call).await };
    let platform = call.query.given("platform").map(str::to_owned);
    let caller = call.caller();
    // Berth's own: what will be downloaded is told first.
    let estimate = call.query.flag("estimate");
    let engine = call.engine.clone();
    let is_all = reference
        .parse::<Reference>()
        .is_ok_and(|reference| reference.tag().is_none() && reference.digest().is_none());
    progress(|messages| async move {
        if is_all {
            return engine.image_pull_all(&reference, platform.as_deref(), caller, messages).await;
        }
        engine.image_pull(&reference, platform.as_deref(), caller, estimate, messages).await
    })
    .await
}

pub async fn load(call: Call) -> Outcome {
    let quiet = call.query.flag("quiet");
    let platforms = platforms::of_archive(call.version, &call.query)?;
    let engine = call.engine.clone();
    let body = parts(call.request);
    progress(move |messages| {
        carried(body, move |archive| load_body(engine, Box::new(archive), platforms, quiet, messages))
    })
    .await
}

/// A request's body, as it comes.
pub(super) fn parts(
    request: http::Request<RequestBody>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static {
    let body = BodyStream::new(request.into_body())
        .map_err(std::io::Error::other)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
    Box::pin(body)
}

async fn load_body(
    engine: Arc<Engine>,
    reader: Box<dyn std::io::Read + Send>,
    platforms: Vec<Platform>,
    quiet: bool,
    messages: mpsc::Sender<JsonMessage>,
) -> Result<(), Error> {
    if !quiet {
        return engine.image_load(reader, platforms, messages).await;
    }
    // Quiet is without bars; what was loaded is still told.
    let (sender, mut receiver) = mpsc::channel(PROGRESS_QUEUE);
    let load = engine.image_load(reader, platforms, sender);
    let forward = async {
        while let Some(message) = receiver.recv().await {
            if message.progress_detail.is_none() && messages.send(message).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(load, forward).0
}

/// Ends a task when its client goes away.
struct Running(JoinHandle<Result<(), Error>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` and streams its messages. A failure before the first message is an error of the request; one after it
/// is the last message.
pub(super) async fn progress<F, R>(work: F) -> Outcome
where
    F: FnOnce(mpsc::Sender<JsonMessage>) -> R,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, mut messages) = mpsc::channel(PROGRESS_QUEUE);
    let mut running = Running(tokio::spawn(work(sender)));
    let Some(first) = messages.recv().await else {
        join(&mut running).await?;
        return Ok(streamed(Body::empty()));
    };
    // Each is sent when it comes, and not only once there is another.
    let first = once(ready(line(&first)));
    let rest = unfold(Some((messages, running)), |state| async move {
        let (mut messages, mut running) = state?;
        match messages.recv().await {
            Some(message) => Some((line(&message), Some((messages, running)))),
            None => {
                let failure = join(&mut running).await.err()?;
                Some((line(&JsonMessage::error(failure.message)), None))
            }
        }
    });
    Ok(streamed(Body::stream(first.chain(rest))))
}

async fn join(running: &mut Running) -> Result<(), Failure> {
    match (&mut running.0).await {
        Ok(result) => result.map_err(Failure::from),
        Err(error) => {
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the operation ended: {error}")))
        }
    }
}

fn line(message: &JsonMessage) -> Bytes {
    // Docker ends progress messages with CR and LF.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    line.into()
}

fn streamed(body: Body) -> Response<Body> {
    answer::stream("application/json", body)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// The next line of a body; none at its end.
    async fn next(body: &mut Body) -> Option<Bytes> {
        body.frame().await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn what_is_told_is_sent_at_once() {
        for failure in [None, Some(Error::InvalidParameter("no".to_owned()))] {
            let (go_on, wait) = oneshot::channel::<()>();
            let fails = failure.is_some();
            let answer = progress(|messages| async move {
                let _ = messages.send(JsonMessage::status("", "one")).await;
                let _ = wait.await;
                failure.map_or(Ok(()), Err)
            });
            let Ok(answer) = answer.await else { panic!("it failed before it began") };
            let mut body = answer.into_body();
            assert_eq!(next(&mut body).await.unwrap(), "{\"status\":\"one\"}\r\n");
            go_on.send(()).unwrap();
            if fails {
                assert!(next(&mut body).await.unwrap().starts_with(b"{\"errorDetail\""));
            }
            assert!(next(&mut body).await.is_none());
        }
    }
}
