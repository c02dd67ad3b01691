//! Carries out what the solver decides.

use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use berth_api::progress::JsonMessage;
use berth_build::Lines;
use berth_build::dockerfile::Mount;
use berth_build::solve::{Change, Copying, Event, Executor, Image, Probe, Program, Step, Wanted};
use berth_image::{Composed, NewLayer};
use berth_oci::config::History;
use berth_oci::{Digest, ImageConfig, Platform, Reference};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio_util::sync::CancellationToken;

use super::allow;
use super::borrowed::Borrowed;
use super::cancel::Cancelling;
use super::context::Context;
use super::copy;
use super::gather::{self, Files};
use super::link;
use super::mounted::Mounted;
use super::mounts::{self, Mounts};
use super::output::Output;
use super::request::BuildRequest;
use super::run::{self, Does, Temporary};
use super::under_way::{Claim, ImageUse};
use super::{cache, contexts, stubs, tree};
use crate::engine::Parts;
use crate::usage::ceiling;
use crate::{Engine, Error};

/// Messages of a pull that wait for a slow client.
const QUEUE: usize = 16;

/// A build that nobody wants any more.
pub(super) fn cancelled() -> Error {
    Error::Unavailable("Build cancelled".into())
}

/// Adds what is missing if the programs of an image are another machine's.
fn foreign(error: Error, platform: &Platform) -> Error {
    let host = Platform::host();
    let text = error.to_string();
    if !text.contains("exec format error") || platform.satisfies(&host) {
        return error;
    }
    Error::InvalidParameter(format!(
        "{text}: the image is for {platform} and this host is {host}; an emulator for it has to be registered with the kernel \
         (binfmt_misc), such as by the package qemu-user-static"
    ))
}

/// A build under way.
pub(super) struct Worker {
    pub engine: Arc<Engine>,
    pub request: BuildRequest,
    pub output: Output,
    pub cancelled: CancellationToken,
    pub handle: Handle,
    /// The files that came with it.
    pub context: Option<Arc<Context>>,
    /// Keeps the layers of its images, whoever removes them meanwhile.
    pub held: Arc<Mutex<Vec<(berth_image::Held, ImageUse)>>>,
    /// Images that named contexts became.
    pub made: contexts::Made,
    /// Where the instruction stands that has failed.
    pub failed: Arc<OnceLock<Lines>>,
    /// Caches that steps are taken from, and the steps that are to go to some.
    pub caches: Arc<cache::Caches>,
    /// What stages have in common that are built at once: one that fails ends them all.
    group: CancellationToken,
    /// The step that is being made, so that nobody else makes it.
    claim: Option<Claim>,
}

impl Worker {
    pub fn new(
        engine: Arc<Engine>,
        request: BuildRequest,
        messages: Sender<JsonMessage>,
        cancelled: CancellationToken,
    ) -> Result<Worker, Error> {
        let output = Output::new(messages, request.quiet, request.aux);
        let handle = Handle::current();
        let group = cancelled.child_token();
        Ok(Worker {
            engine,
            request,
            output,
            cancelled,
            handle,
            context: None,
            held: Arc::default(),
            made: Arc::default(),
            failed: Arc::default(),
            caches: Arc::default(),
            group,
            claim: None,
        })
    }

    pub fn parts(&self) -> &Arc<Parts> {
        &self.engine.parts
    }

    /// Fails if nobody wants the build any more.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancelled.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Waits for something, as long as somebody wants the build.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.handle.block_on(async {
            tokio::select! {
                biased;
                () = self.cancelled.cancelled() => Err(cancelled()),
                result = work => result,
            }
        })
    }

    /// The same bytes, as long as somebody wants the build.
    pub fn cancelling<R: Read>(&self, reader: R) -> impl Read + use<R> {
        Cancelling::new(reader, &self.cancelled)
    }

    /// Takes an error for what it comes from, if that is the end of the build.
    pub fn reason(&self, error: Error) -> Error {
        self.check().err().unwrap_or(error)
    }

    /// The build is over: what a failure is told as.
    pub fn end(mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        // Before the client hears of the end.
        self.context = None;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => self.output.failed(error),
        }
    }

    /// Keeps an image until the build is over: its layers whoever removes it, and itself from the ceiling of the cache.
    pub fn hold(&self, image: &Image) -> Result<(), Error> {
        let used = self.parts().steps.use_image(&image.id);
        if self.parts().storage.images().get(&image.id)?.is_none() {
            return Err(berth_image::Error::NotFound(image.id.to_string()).into());
        }
        let held = self.parts().images.hold(&image.id, &image.config)?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push((held, used));
        Ok(())
    }

    /// Records an image, with `layer` on top if there is one, and keeps it as [`Worker::hold`] does.
    pub fn compose(
        &self,
        config: ImageConfig,
        layer: Option<NewLayer>,
        parent: Option<&Digest>,
    ) -> Result<Image, Error> {
        let parts = self.parts();
        let Composed { id, config, held } = parts.images.compose(config, layer, None, parent)?;
        let used = parts.steps.use_image(&id);
        // Whoever removed it before it was in use did not know.
        if parts.storage.images().get(&id)?.is_none() {
            parts.images.compose(config.clone(), None, None, parent)?;
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push((held, used));
        Ok(Image { id, config })
    }

    fn local(&self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let found = self.parts().images.resolve_for(name, platform)?;
        Ok(Image { id: found.record.id, config: found.config })
    }

    fn pull(&mut self, name: &str, platform: Option<&Platform>) -> Result<(), Error> {
        let invalid =
            |error: berth_oci::reference::ReferenceError| Error::InvalidParameter(error.to_string());
        let reference: Reference = name.parse().map_err(invalid)?;
        let caller = self.request.caller(&reference);
        let (sender, mut messages) = mpsc::channel(QUEUE);
        let (engine, name) = (Arc::clone(&self.engine), name.to_owned());
        let platform = platform.map(ToString::to_string);
        let pull = self
            .handle
            .spawn(async move { engine.image_pull(&name, platform.as_deref(), caller, false, sender).await });
        let told = loop {
            let message = self.wait(async { Ok(messages.recv().await) });
            match message.and_then(|message| message.map_or(Ok(None), |one| self.output.send(one).map(Some)))
            {
                Ok(Some(())) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = told {
            pull.abort();
            return Err(error);
        }
        self.wait(async { pull.await.unwrap_or_else(|_| Err(cancelled())) })
    }

    fn directory(&self, parent: Option<&Image>, path: &str) -> Result<Option<NewLayer>, Error> {
        let target = Mounted::new(self.parts(), parent.map(|image| &image.config))?;
        let root = target.root()?;
        // As in Docker, it belongs to root, whoever the steps run as.
        tree::make_directories(root, path.as_bytes(), (0, 0))
            .map_err(|error| tree::failed("mkdir", path.as_bytes(), &error))?;
        target.layer(self)
    }

    fn run(
        &mut self,
        parent: Option<&Image>,
        config: &ImageConfig,
        program: &Program,
    ) -> Result<Option<NewLayer>, Error> {
        allow::check(&self.request, program)?;
        let mounts = Mounts::make(self, program, &config.config.working_dir)?;
        let nothing;
        let base = match parent {
            Some(image) => image,
            None => {
                // A container has an image, and be there nothing in it.
                nothing = self.compose(config.clone(), None, None)?;
                &nothing
            }
        };
        let (container, warnings) = Temporary::create(self, base, Does::Run(program), mounts)?;
        for warning in warnings {
            self.output.say(&format!(" ---> [Warning] {warning}\n"))?;
        }
        self.output.say(&format!(" ---> Running in {}\n", container.short()))?;
        let outcome = match run::to_end(self, &container) {
            Ok((0, _)) => container.layer(),
            Ok((code, why)) => {
                let why = if why.is_empty() { why } else { format!(": {why}") };
                let command = program.command.join(" ");
                let message = format!("The command '{command}' returned a non-zero code: {code}{why}");
                Err(Error::Step { message, code: i32::try_from(code).unwrap_or(i32::MAX) })
            }
            Err(error) => Err(foreign(error, &config.platform())),
        };
        self.finish(container, outcome)
    }

    /// Removes the container of a step, or leaves it as it was asked for.
    fn finish<T>(&mut self, container: Temporary, outcome: Result<T, Error>) -> Result<T, Error> {
        let remove = self.request.force_remove || self.request.remove && outcome.is_ok();
        if self.cancelled.is_cancelled() {
            return outcome;
        }
        if !remove {
            container.keep();
            return outcome;
        }
        let short = container.short().to_owned();
        drop(container);
        self.output.say(&format!(" ---> Removed intermediate container {short}\n"))?;
        outcome
    }

    /// Records the image of a step.
    fn record(&mut self, step: &Recorded<'_>, layer: Option<NewLayer>) -> Result<Image, Error> {
        let epoch = self.request.epoch().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let now = epoch.unwrap_or_else(Timestamp::now).to_string();
        let mut config = step.config.clone();
        config.created = Some(now.clone());
        config.comment.clear();
        config.history.push(History {
            created: Some(now),
            created_by: step.history.to_owned(),
            author: config.author.clone(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        let parts = Arc::clone(self.parts());
        let image = self.compose(config, layer, step.parent)?;
        self.caches.took(step.key, &image.id, step.parent);
        if let Err(error) = parts.storage.build_steps().put(step.key, &image.id) {
            tracing::warn!(%error, "a build step is not remembered");
        }
        self.caches.made();
        ceiling::look(&parts, &self.handle, false);
        Ok(image)
    }
}

/// What is recorded of a step.
struct Recorded<'a> {
    parent: Option<&'a Digest>,
    config: &'a ImageConfig,
    history: &'a str,
    key: &'a Digest,
}

impl Executor for Worker {
    type Error = Error;
    type Files = Files;

    fn fork(&mut self, label: Option<&str>) -> Worker {
        Worker {
            engine: Arc::clone(&self.engine),
            request: self.request.clone(),
            output: self.output.fork(label),
            cancelled: self.group.clone(),
            handle: self.handle.clone(),
            context: self.context.clone(),
            held: Arc::clone(&self.held),
            made: Arc::clone(&self.made),
            failed: Arc::clone(&self.failed),
            caches: Arc::clone(&self.caches),
            group: self.group.clone(),
            claim: None,
        }
    }

    fn stop(&mut self) {
        self.group.cancel();
    }

    fn tell(&mut self, event: Event<'_>) -> Result<(), Error> {
        self.check()?;
        self.output.event(&event)
    }

    fn image(&mut self, name: &str, wanted: Wanted<'_>) -> Result<Image, Error> {
        let Wanted { platform, copied, meant } = wanted;
        let named = self.context_image(name, platform).transpose();
        match named.unwrap_or_else(|| self.find_image(name, platform)) {
            Err(error) if self.cancelled.is_cancelled() || !copied && meant.is_none() => Err(error),
            Err(error) => {
                let before = if copied { format!("invalid from flag value {name}: ") } else { String::new() };
                let after =
                    meant.map(|stage| format!(" (did you mean the stage {stage}?)")).unwrap_or_default();
                Err(Error::Files(format!("{before}{error}{after}")))
            }
            found => found,
        }
    }

    fn failed(&mut self, lines: Lines) {
        // The first is the cause: others end because of it.
        let _ = self.failed.set(lines);
    }

    fn cached(&mut self, probe: &Probe<'_>) -> Result<Option<Image>, Error> {
        if self.request.no_cache {
            return Ok(None);
        }
        let found = if self.request.cache_from.is_empty() {
            self.done_by_anyone(probe)?
        } else {
            self.cached_from(&self.request.cache_from, probe)?
        };
        if let Some(image) = &found {
            self.caches.took(probe.key, &image.id, probe.parent.map(|image| &image.id));
        }
        Ok(found)
    }

    fn gather(&mut self, copying: &Copying) -> Result<(Files, String), Error> {
        gather::gather(self, copying)
    }

    fn bound(&mut self, mount: &Mount, lines: Lines) -> Result<String, Error> {
        mounts::digest(self, mount, lines.first)
    }

    fn make(&mut self, step: Step<'_, Files>) -> Result<Image, Error> {
        let _claim = self.claim.take();
        self.check()?;
        self.carry_out(step).map_err(|error| self.reason(error))
    }
}

impl Worker {
    fn carry_out(&mut self, step: Step<'_, Files>) -> Result<Image, Error> {
        let Step { parent, config, history, change, key, fresh } = step;
        let layer = match change {
            Change::Nothing => self.nothing(parent, &config)?,
            Change::Directory(path) => self.directory(parent, path)?,
            Change::Run(program) => self.run(parent, &config, program)?,
            Change::Copy(copying, files) => {
                if copying.link {
                    let linked = link::copy(self, parent, (copying, &history), &files, fresh)?;
                    let fresh = linked.layer.is_some();
                    let parent = parent.map(|image| &image.id);
                    let made = self.record(
                        &Recorded { parent, config: &config, history: &history, key: &key },
                        linked.layer,
                    )?;
                    if fresh {
                        self.parts().storage.build_steps().put(&linked.key, &made.id)?;
                    }
                    return Ok(made);
                }
                let target = Mounted::new(self.parts(), parent.map(|image| &image.config))?;
                let manner = copy::Manner::new(copying, target.root()?)?;
                copy::copy(self, target, copying, &files, manner)?
            }
        };
        let parent = parent.map(|image| &image.id);
        self.record(&Recorded { parent, config: &config, history: &history, key: &key }, layer)
    }

    /// The result of a step, here or in a cache; waits for whoever makes it now. If nobody did, it is for this one to make.
    fn done_by_anyone(&mut self, probe: &Probe<'_>) -> Result<Option<Image>, Error> {
        let claim = loop {
            match self.parts().steps.begin(probe.key) {
                Ok(claim) => break claim,
                Err(over) => self.wait(async {
                    over.cancelled().await;
                    Ok(())
                })?,
            }
        };
        let found = match self.done_here(probe.key)? {
            Some(image) => Some(image),
            None => cache::find(self, probe)?,
        };
        self.claim = Some(claim).filter(|_| found.is_none());
        Ok(found)
    }

    /// What a step made that was done on this machine, held until the build is over.
    fn done_here(&self, key: &Digest) -> Result<Option<Image>, Error> {
        let Some(id) = self.parts().storage.build_steps().get(key)? else { return Ok(None) };
        // What somebody removes meanwhile is made again.
        let Ok(config) = self.parts().images.config(&id) else { return Ok(None) };
        let image = Image { id, config };
        Ok(self.hold(&image).is_ok().then_some(image))
    }

    /// An image that a name means, held until the build is over; it is fetched if it has to be.
    pub(super) fn find_image(&mut self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let image = self.find(name, platform)?;
        match self.hold(&image) {
            // Somebody has just removed it.
            Err(Error::Image(berth_image::Error::NotFound(_))) => {
                let image = self.find(name, platform)?;
                self.hold(&image)?;
                Ok(image)
            }
            held => held.map(|()| image),
        }
    }

    fn find(&mut self, name: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let own = self.request.platform.clone();
        let platform = platform.or(own.as_ref());
        // Part of one may be a name as well.
        let is_id = |image: &Image| image.id.to_string() == name || image.id.hex() == name;
        match self.local(name, platform) {
            Ok(image) if !self.request.pull || is_id(&image) => Ok(image),
            Ok(_) | Err(Error::Image(berth_image::Error::NotFound(_))) => {
                self.pull(name, platform)?;
                self.local(name, platform)
            }
            Err(error) => Err(error),
        }
    }

    /// A volume cannot be where the image has a file.
    fn check_volumes(&self, image: &Image, config: &ImageConfig) -> Result<(), Error> {
        let known = &image.config.config.volumes;
        let new: Vec<&String> =
            config.config.volumes.keys().filter(|path| !known.contains_key(*path)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let borrowed = Borrowed::new(self.parts(), &image.config)?;
        let files = borrowed.snapshot()?.image()?;
        for path in new {
            if stubs::is_file(&files, path.as_bytes())? {
                return Err(Error::InvalidParameter(format!(
                    "cannot mount volume over existing file, file exists {path}"
                )));
            }
        }
        Ok(())
    }

    /// A step that changes no file. Where containers are to stay, it has one, as in Docker.
    fn nothing(&mut self, parent: Option<&Image>, config: &ImageConfig) -> Result<Option<NewLayer>, Error> {
        if let Some(image) = parent {
            self.check_volumes(image, config)?;
        }
        if let (false, Some(image)) = (self.request.remove, parent) {
            let (container, _) =
                Temporary::create(self, image, Does::Stay(&config.config), Mounts::default())?;
            self.output.say(&format!(" ---> Running in {}\n", container.short()))?;
            container.keep();
        }
        Ok(None)
    }
}
