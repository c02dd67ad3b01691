//! An image of what a container has changed.

use std::collections::HashSet;
use std::sync::Arc;

use berth_api::container::Config;
use berth_archive::pack::layer;
use berth_oci::config::{ContainerDefaults, Healthcheck, History};
use berth_oci::{Digest, ImageConfig, Reference};
use berth_storage::Snapshot;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::build::cancel::Cancelling;
use crate::container::Container;
use crate::container::state::State;
use crate::engine::Parts;
use crate::event::{ContainerEvent, ImageEvent};
use crate::life::owner::{Request, ask};
use crate::{Engine, Error, content, op};

/// Where it is kept which containers are frozen only while an image is made of them.
const FROZEN: &str = "frozen-by-commit";

/// Whether an engine that ended since froze the container for a commit. It is forgotten by this.
pub(crate) fn is_left_frozen(parts: &Parts, id: &str) -> bool {
    let known = parts.storage.kv().get(FROZEN, id);
    if let Ok(Some(_)) = known {
        forget_frozen(parts, id);
        return true;
    }
    false
}

fn forget_frozen(parts: &Parts, id: &str) {
    if let Err(error) = parts.storage.kv().remove(FROZEN, id) {
        tracing::warn!(container = id, %error, "what froze the container stays on record");
    }
}

impl Engine {
    /// Makes an image of a container: its image's layers with one more, of what it has changed. Gives the image's ID.
    pub async fn commit(&self, request: op::Commit) -> Result<String, Error> {
        let container = self.parts.containers.find(&request.container)?;
        usable(&container)?;
        let defaults = defaults(&container, &request)?;
        let parts = Arc::clone(&self.parts);
        // A client that goes away must not leave it frozen.
        let work = tokio::spawn(async move {
            let frozen = request.pause && freeze(&parts, &container).await;
            let outcome = {
                let (parts, container) = (Arc::clone(&parts), Arc::clone(&container));
                blocking(move || commit(&parts, &container, defaults, &request)).await
            };
            if frozen {
                thaw(&parts, &container).await;
            }
            outcome
        });
        work.await.unwrap_or_else(|_| Err(Error::Unavailable("the engine is ending".into())))
    }
}

/// Pauses a container while its files are read; whether it was this that did so. As in Docker, one that does not run needs no
/// pause. An engine that dies meanwhile lets it go on when it starts again.
pub(crate) async fn freeze(parts: &Parts, container: &Arc<Container>) -> bool {
    let idle = container.state().running().is_none_or(|running| running.paused);
    if idle || parts.storage.kv().put(FROZEN, container.id(), "").is_err() {
        return false;
    }
    let frozen = ask(container, Request::Pause).await.is_ok();
    if !frozen {
        forget_frozen(parts, container.id());
    }
    frozen
}

/// Lets a container go on that was frozen.
pub(crate) async fn thaw(parts: &Parts, container: &Arc<Container>) {
    // Somebody else may have let it go on, or ended it.
    if let Err(error) = ask(container, Request::Unpause).await {
        tracing::debug!(container = container.id(), %error, "it was not to be let go on");
    }
    forget_frozen(parts, container.id());
}

/// Refuses a container whose files go.
fn usable(container: &Container) -> Result<(), Error> {
    match container.state() {
        State::Removing => Err(Error::Conflict(format!(
            "You cannot commit container {} which is being removed",
            container.id()
        ))),
        _ => Ok(()),
    }
}

/// What the image's containers are by default: what the request says, changed, and completed by the container's.
fn defaults(container: &Container, request: &op::Commit) -> Result<ContainerDefaults, Error> {
    let own = image_part(&container.definition.config);
    let mut defaults = request.config.as_ref().map_or_else(|| own.clone(), image_part);
    change(&mut defaults, &request.changes)?;
    complete(&mut defaults, own);
    Ok(defaults)
}

/// Carries out instructions.
pub(super) fn change(defaults: &mut ContainerDefaults, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let image = ImageConfig { config: std::mem::take(defaults), ..ImageConfig::default() };
    let changed = berth_build::change::change(image, &changes.join("\n"));
    *defaults = changed.map_err(|error| Error::InvalidParameter(error.to_string()))?.config;
    Ok(())
}

fn commit(
    parts: &Parts,
    container: &Container,
    defaults: ContainerDefaults,
    request: &op::Commit,
) -> Result<String, Error> {
    let base = parts.images.resolve(&container.definition.image)?;
    let _held = parts.images.hold(&base.record.id, &base.config)?;
    let packed = pack(parts, container, |_, _| Ok(()), None, &CancellationToken::new());
    // Its files may have gone while they were read.
    parts.containers.find(container.id())?;
    usable(container)?;
    let layer = packed?;
    let layer = Some(layer).filter(|layer| !layer.is_empty());
    let config = describe(base.config, defaults, container, request, layer.is_none());
    let made = parts.images.compose(config, layer, request.name.as_ref(), Some(&base.record.id))?;
    tell(parts, container, &made.id, request);
    Ok(made.id.to_string())
}

/// What a container has changed, as a layer: not what was only touched. `hide` adds to the paths that are left out, those of its
/// mounts; no time of modification after `latest`, in seconds, is told. Blocks until `cancelled`.
pub(crate) fn pack(
    parts: &Parts,
    container: &Container,
    hide: impl FnOnce(&Snapshot, &mut HashSet<Vec<u8>>) -> Result<(), Error>,
    latest: Option<i64>,
    cancelled: &CancellationToken,
) -> Result<berth_image::NewLayer, Error> {
    let snapshot = parts.storage.snapshots().mounts(container.id())?;
    let (upper, lower) = (snapshot.written()?, snapshot.image()?);
    let mut hidden = content::mounted(&snapshot.merged()?, &container.definition);
    hide(&snapshot, &mut hidden)?;
    let name = container.id().get(..12).unwrap_or(container.id());
    let options = layer::Options { hidden: Some(&hidden), latest, changed: true };
    let write =
        |out: &mut dyn std::io::Write| layer::pack(&upper, &lower, &options, Cancelling::new(out, cancelled));
    Ok(parts.images.layer_from(name, write)?)
}

fn describe(
    base: ImageConfig,
    defaults: ContainerDefaults,
    container: &Container,
    request: &op::Commit,
    empty: bool,
) -> ImageConfig {
    let now = Timestamp::now().to_string();
    let command = container.definition.config.cmd.clone().unwrap_or_default();
    let mut config = ImageConfig {
        created: Some(now.clone()),
        author: request.author.clone(),
        comment: request.comment.clone(),
        config: defaults,
        ..base
    };
    config.history.push(History {
        created: Some(now),
        created_by: command.join(" "),
        author: request.author.clone(),
        comment: request.comment.clone(),
        empty_layer: empty,
    });
    config
}

fn tell(parts: &Parts, container: &Container, id: &Digest, request: &op::Commit) {
    parts.image_event(id, &id.to_string(), ImageEvent::Create);
    let reference = request.name.as_ref().map(Reference::familiar).unwrap_or_default();
    if !reference.is_empty() {
        parts.image_event(id, &reference, ImageEvent::Tag);
    }
    let (comment, image) = (request.comment.clone(), id.to_string());
    parts.events.publish(container.event(ContainerEvent::Commit { comment, image, reference }));
}

/// The part of a container's configuration that an image can have.
fn image_part(config: &Config) -> ContainerDefaults {
    let set = |set: &Option<berth_api::Set>| {
        set.iter().flatten().map(|(key, _)| (key.clone(), serde_json::json!({}))).collect()
    };
    ContainerDefaults {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().unwrap_or_default().into_iter().collect(),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.as_ref().map(|check| {
            let given = |value: i64| Some(value).filter(|value| *value != 0);
            Healthcheck {
                test: check.test.clone().unwrap_or_default(),
                interval: given(check.interval),
                timeout: given(check.timeout),
                start_period: given(check.start_period),
                start_interval: given(check.start_interval),
                retries: given(check.retries),
            }
        }),
        on_build: config.on_build.clone().filter(|list| !list.is_empty()),
        shell: config.shell.clone().filter(|words| !words.is_empty()),
        args_escaped: config.args_escaped,
    }
}

/// Completes what a request leaves open with the container's.
fn complete(mine: &mut ContainerDefaults, own: ContainerDefaults) {
    let inherit = |mine: &mut String, own: String| {
        if mine.is_empty() {
            *mine = own;
        }
    };
    inherit(&mut mine.user, own.user);
    inherit(&mut mine.working_dir, own.working_dir);
    for (port, value) in own.exposed_ports {
        mine.exposed_ports.entry(port).or_insert(value);
    }
    for (path, value) in own.volumes {
        mine.volumes.entry(path).or_insert(value);
    }
    for (name, value) in own.labels {
        mine.labels.entry(name).or_insert(value);
    }
    let name = crate::create::merge::variable_name;
    let missing: Vec<String> =
        own.env.into_iter().filter(|own| !mine.env.iter().any(|mine| name(mine) == name(own))).collect();
    mine.env.extend(missing);
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&mine.entrypoint) {
        if is_empty(&mine.cmd) {
            mine.cmd = own.cmd;
        }
        if mine.entrypoint.is_none() {
            mine.entrypoint = own.entrypoint;
        }
    }
    match (&mut mine.healthcheck, own.healthcheck) {
        (Some(mine), Some(own)) => {
            if mine.test.is_empty() {
                mine.test = own.test;
            }
            mine.interval = mine.interval.or(own.interval);
            mine.timeout = mine.timeout.or(own.timeout);
            mine.start_period = mine.start_period.or(own.start_period);
            mine.start_interval = mine.start_interval.or(own.start_interval);
            mine.retries = mine.retries.or(own.retries);
        }
        (mine, own) => *mine = mine.take().or(own),
    }
    mine.stop_signal = mine.stop_signal.take().or(own.stop_signal);
    mine.stop_timeout = mine.stop_timeout.or(own.stop_timeout);
    mine.shell = mine.shell.take().or(own.shell);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_a_request_leaves_open_is_the_containers() {
        let own = Config {
            user: "1".into(),
            env: list(&["A=1", "B=2"]),
            cmd: list(&["sleep", "9"]),
            entrypoint: list(&["/e"]),
            labels: Some([("a".to_owned(), "own".to_owned()), ("b".to_owned(), "own".to_owned())].into()),
            stop_signal: "SIGINT".into(),
            ..Config::default()
        };
        let given = Config {
            env: list(&["A=x"]),
            cmd: list(&["true"]),
            labels: Some([("a".to_owned(), "given".to_owned())].into()),
            ..Config::default()
        };
        let mut found = image_part(&given);
        complete(&mut found, image_part(&own));
        assert_eq!(found.env, ["A=x", "B=2"]);
        assert_eq!((found.cmd, found.entrypoint), (list(&["true"]), list(&["/e"])));
        assert_eq!((found.labels["a"].as_str(), found.labels["b"].as_str()), ("given", "own"));
        assert_eq!((found.user.as_str(), found.stop_signal.as_deref()), ("1", Some("SIGINT")));
        let mut found = image_part(&Config { entrypoint: list(&["/new"]), ..Config::default() });
        complete(&mut found, image_part(&own));
        assert_eq!(
            (found.cmd, found.entrypoint),
            (None, list(&["/new"])),
            "a new program has no old arguments"
        );
    }

    #[test]
    fn changes_are_checked() {
        let mut defaults = ContainerDefaults::default();
        change(&mut defaults, &["CMD a".into(), "ENV x=y".into()]).unwrap();
        assert_eq!(defaults.env, ["x=y"]);
        for text in ["STOPSIGNAL SIGNONE", "RUN x", "EXPOSE x", ""] {
            let error = change(&mut defaults, &[text.into()]).unwrap_err();
            assert!(matches!(error, Error::InvalidParameter(_)), "{text}: {error}");
        }
    }
}
