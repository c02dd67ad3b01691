//! `RUN`: a program in a container of its own.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_api::container::{Config, HealthConfig};
use berth_build::dockerfile::{Network, Security};
use berth_build::solve::{Image, Program};
use berth_build::variables::HOSTNAME;
use berth_image::NewLayer;
use berth_oci::config::ContainerDefaults;
use berth_storage::Snapshot;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::executor::Worker;
use super::lent::Loan;
use super::mounts::{self, Mounts};
use super::output::red;
use crate::op::{Attach, CreateContainer, Remove, WaitCondition};
use crate::{Engine, Error, name};

/// Names of containers that are to go with their builds.
const TABLE: &str = "build-containers";
/// Pieces of output that wait for a slow client.
const QUEUE: usize = 16;
/// Bytes of a frame's head.
const HEAD: usize = 8;

/// Removes the containers of builds that an earlier engine did not end, and what was lent to them.
pub(crate) async fn sweep(engine: &Engine) {
    mounts::sweep(&engine.parts);
    let left = engine.parts.storage.kv().list(TABLE).unwrap_or_default();
    for (name, _) in left {
        match engine.remove(&name, Remove { force: true, volumes: true }).await {
            Ok(()) | Err(Error::NoSuchContainer(_)) => forget(engine, &name),
            Err(error) => tracing::warn!(name, %error, "a container of a build could not be removed"),
        }
    }
}

fn forget(engine: &Engine, name: &str) {
    if let Err(error) = engine.parts.storage.kv().remove(TABLE, name) {
        tracing::warn!(name, %error, "a container of a build stays on record");
    }
}

/// A container of a step. It is removed with this, unless it is to stay.
pub(super) struct Temporary {
    engine: Arc<Engine>,
    pub id: String,
    name: String,
    handle: tokio::runtime::Handle,
    mounts: Mounts,
    /// The latest time of modification in its layer, in seconds.
    latest: Option<i64>,
    cancelled: CancellationToken,
}

impl Temporary {
    /// Creates it. Blocks.
    pub fn create(
        worker: &Worker,
        image: &Image,
        does: Does<'_>,
        mut mounts: Mounts,
    ) -> Result<(Temporary, Vec<String>), Error> {
        let random = |source| Error::Io { operation: "read random bytes".into(), source };
        let name = format!("build-{}", name::new_id().map_err(random)?.get(..16).unwrap_or_default());
        let engine = Arc::clone(&worker.engine);
        engine.parts.storage.kv().put(TABLE, &name, "")?;
        let mut op = request(worker, image, does, &name);
        op.lent.clone_from(&mounts.places);
        // Not given up half-way: what it makes has to be known.
        let created = worker.handle.block_on(engine.create(op));
        if created.is_err() {
            forget(&engine, &name);
        }
        let created = created?;
        let handle = worker.handle.clone();
        // One that fails may stay all the same, to be looked into; that is no reason to wait for the disk.
        let loan = Loan { volatile: worker.request.remove, ..mounts.loan() };
        engine.parts.lent.put(&created.id, loan);
        let (latest, cancelled) = (worker.request.epoch(), worker.cancelled.clone());
        let temporary = Temporary { engine, id: created.id, name, handle, mounts, latest, cancelled };
        Ok((temporary, created.warnings))
    }

    /// The first digits of its ID.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// It stays when the build is over.
    pub fn keep(mut self) {
        self.engine.parts.lent.forget(&self.id);
        forget(&self.engine, &self.name);
        self.name.clear();
    }

    /// What it has changed, as a layer; none if nothing was. Blocks.
    pub fn layer(&self) -> Result<Option<NewLayer>, Error> {
        let container = self.engine.parts.containers.find(&self.id)?;
        let mounted = !self.mounts.places.is_empty();
        let hide = |snapshot: &Snapshot, hidden: &mut HashSet<Vec<u8>>| match mounted {
            true => super::stubs::hide_parents(&snapshot.written()?, &snapshot.image()?, hidden),
            false => Ok(()),
        };
        let layer = crate::images::pack(&self.engine.parts, &container, hide, self.latest, &self.cancelled)?;
        Ok(Some(layer).filter(|layer| !layer.is_empty()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        self.engine.parts.lent.forget(&self.id);
        let remove = Remove { force: true, volumes: true };
        match self.handle.block_on(self.engine.remove(&self.id, remove)) {
            Ok(()) | Err(Error::NoSuchContainer(_)) => forget(&self.engine, &self.name),
            Err(error) => {
                tracing::warn!(id = self.id, %error, "a container of a build stays until the next start")
            }
        }
    }
}

/// What the container of a step is there for.
#[derive(Clone, Copy)]
pub(super) enum Does<'a> {
    /// It runs a program.
    Run(&'a Program),
    /// Nothing: it is only left behind, as what the step makes.
    Stay(&'a ContainerDefaults),
}

/// What the container of a step is.
fn request(worker: &Worker, image: &Image, does: Does<'_>, name: &str) -> CreateContainer {
    let defaults = &image.config.config;
    let mut host = worker.request.host.clone();
    host.log_config.driver = "none".into();
    let mut config = Config {
        image: image.id.to_string(),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        working_dir: defaults.working_dir.clone(),
        user: defaults.user.clone(),
        hostname: worker.request.argument(HOSTNAME).unwrap_or_default().to_owned(),
        ..Config::default()
    };
    match does {
        Does::Run(program) => {
            // As in Docker, no words at all leave it to the image what runs.
            if !program.command.is_empty() {
                config.cmd = Some(program.command.clone());
                // One empty word: no program of the image's stands before the command.
                config.entrypoint = Some(vec![String::new()]);
            }
            config.env = Some(program.environment.clone());
            match program.network {
                Network::Default => {}
                Network::None => host.network_mode = "none".into(),
                Network::Host => host.network_mode = "host".into(),
            }
            host.privileged |= program.security == Security::Insecure;
        }
        Does::Stay(made) => {
            config.cmd = Some(vec!["/bin/sh".into(), "-c".into(), "#(nop)".into()]);
            config.labels = Some(made.labels.clone().into_iter().collect());
        }
    }
    CreateContainer {
        name: Some(name.to_owned()),
        platform: None,
        config,
        host_config: host,
        endpoints: Default::default(),
        read_only_top: false,
        lent: Vec::new(),
    }
}

/// Runs a container to its end, and tells what it writes. Gives its exit code. Blocks.
pub(super) fn to_end(worker: &mut Worker, container: &Temporary) -> Result<(i64, String), Error> {
    let (sender, mut pieces) = mpsc::channel::<(bool, String)>(QUEUE);
    let (engine, id) = (Arc::clone(&worker.engine), container.id.clone());
    let running = worker.handle.spawn(async move { follow(&engine, &id, &sender).await });
    let cancelled = worker.cancelled.clone();
    loop {
        let handle = worker.handle.clone();
        let piece = handle.block_on(async {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => Err(super::executor::cancelled()),
                piece = pieces.recv() => Ok(piece),
            }
        });
        let told = match piece {
            Ok(None) => break,
            Ok(Some((true, text))) => worker.output.say(&red(&text)),
            Ok(Some((false, text))) => worker.output.say(&text),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            running.abort();
            return Err(error);
        }
    }
    worker.wait(async { running.await.unwrap_or_else(|_| Err(super::executor::cancelled())) })
}

/// Starts a container, and passes on what it writes until it ends.
async fn follow(
    engine: &Arc<Engine>,
    id: &str,
    sender: &mpsc::Sender<(bool, String)>,
) -> Result<(i64, String), Error> {
    let failed = |source| Error::Io { operation: "connect to a container".into(), source };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    theirs.set_nonblocking(true).map_err(failed)?;
    let mut ours = UnixStream::from_std(ours).map_err(failed)?;
    let attach = Attach { stream: true, stdout: true, stderr: true, ..Attach::default() };
    let pending = engine.attach(id, attach).await?;
    pending.connect(OwnedFd::from(theirs), Vec::new()).await?;
    let waiting = engine.wait(id, WaitCondition::NextExit).await?;
    engine.start(id).await?;
    let mut head = [0; HEAD];
    let mut unfinished = [Vec::new(), Vec::new()];
    // Its end, however it comes about, is the end of what it writes.
    while ours.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let error = head[0] == 2;
        let Some(begun) = unfinished.get_mut(usize::from(error)) else { continue };
        let mut frame = (&mut ours).take(u64::from(length));
        if frame.read_to_end(begun).await.is_err() {
            break;
        }
        let text = text(begun);
        if !text.is_empty() && sender.send((error, text)).await.is_err() {
            return Err(super::executor::cancelled());
        }
    }
    for (error, left) in [(false, &unfinished[0]), (true, &unfinished[1])] {
        if !left.is_empty() {
            let _ = sender.send((error, String::from_utf8_lossy(left).into_owned())).await;
        }
    }
    let ended = waiting.finish().await?;
    Ok((ended.status_code, ended.error.map(|error| error.message).unwrap_or_default()))
}

/// Takes text, but for the beginning of a character whose rest is still to come.
fn text(bytes: &mut Vec<u8>) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let rest = bytes.split_off(whole);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn characters_stay_whole() {
        let mut bytes = "aä".as_bytes()[..2].to_vec();
        assert_eq!((text(&mut bytes).as_str(), bytes.len()), ("a", 1));
        bytes.push(0xa4);
        assert_eq!((text(&mut bytes).as_str(), bytes.len()), ("ä", 0));
        let mut bytes = vec![0xff, b'x'];
        assert_eq!((text(&mut bytes).as_str(), bytes.len()), ("\u{fffd}x", 0));
    }
}
