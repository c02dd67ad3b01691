//! Builds of images from Dockerfiles: the executor of [`berth_build::solve`], and what Docker's classic builder tells.
//!
//! A build is a thread of its own, which ends between two steps, or in the midst of a program, once nobody wants it any
//! more. Every step makes an image, whose parent is that of the step before. What a build needs while it runs is in a
//! scratch directory, in snapshots that no container has, and in containers that are on record: all of it goes with the
//! build, or with the next start of the engine.

mod allow;
mod borrowed;
mod cache;
mod cache_from;
pub(crate) mod cancel;
mod check;
mod context;
mod contexts;
mod copy;
mod digests;
mod exclude;
mod executor;
mod fetched;
mod gather;
mod git;
mod keys;
pub(crate) mod lent;
mod link;
mod mounted;
mod mounts;
mod output;
mod request;
mod results;
mod run;
mod session;
mod squash;
mod stubs;
mod tree;
pub(crate) mod under_way;

use std::io::Read;
use std::sync::Arc;

use berth_api::progress::JsonMessage;
use berth_archive::ignore::Ignore;
use berth_build::Lines;
use berth_build::dockerfile::Dockerfile;
use berth_build::solve::{Build, Executor, Image};
use berth_build::variables::Given;
use berth_oci::{Platform, Reference};
use tokio::sync::mpsc::Sender;

use crate::event::ImageEvent;
use crate::{Engine, Error};

use check::Checker;
use context::Context;
use executor::Worker;
pub use keys::{Keys, SharedKeys};
pub use lent::LentMount;
pub use request::BuildRequest;
pub(crate) use run::sweep;

/// The argument that stands for the directive `# syntax=`.
const SYNTAX: &str = "BUILDKIT_SYNTAX";
/// The same of `# check=`.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";

impl Engine {
    /// Builds an image of a context (a tar, compressed or not), and tells what happens in the words of Docker's classic
    /// builder. When the future is dropped, the build ends.
    pub async fn build(
        self: &Arc<Self>,
        request: BuildRequest,
        archive: Box<dyn Read + Send>,
        messages: Sender<JsonMessage>,
    ) -> Result<(), Error> {
        let names = request.names()?;
        allow::check_names(&request)?;
        request.check_epoch()?;
        let mut request = request;
        if let Some(session) = &request.session {
            request.keys = SharedKeys(Arc::new(self.client_keys(session)));
        }
        let cancelled = self.parts.ending.child_token();
        let _guard = cancelled.clone().drop_guard();
        let engine = Arc::clone(self);
        // It reads from its client, and tells it what happens.
        let work = move || {
            let mut worker = Worker::new(engine, request, messages, cancelled)?;
            let outcome = solve(&mut worker, archive, &names);
            cache::close(&worker);
            worker.end(outcome)
        };
        self.parts.paced.run(work).await
    }
}

/// Reads context and Dockerfile, builds, and gives the image its names.
fn solve(worker: &mut Worker, archive: Box<dyn Read + Send>, names: &[Reference]) -> Result<(), Error> {
    let context = match worker.request.remote.clone() {
        Some(remote) if remote == session::CLIENT_SESSION => Context::of_client(worker)?,
        Some(address) => context::fetch(worker, &address)?,
        None => Context::read(worker.parts(), archive)?,
    };
    let name = worker.request.dockerfile.clone();
    let (text, ignore) = context.dockerfile(&name)?;
    if text.is_empty() {
        return Err(Error::InvalidParameter(format!("the Dockerfile ({name}) cannot be empty")));
    }
    worker.context = Some(Arc::new(context));
    let outcome = build(worker, &text, &ignore, names);
    if let Err(error) = &outcome {
        check::tell_place(worker, error, &text);
    }
    outcome
}

/// Builds what a Dockerfile says.
fn build(worker: &mut Worker, text: &[u8], ignore: &Ignore, names: &[Reference]) -> Result<(), Error> {
    let mut file = Dockerfile::read(text).map_err(|error| {
        if let Some(lines) = error.lines() {
            worker.failed(lines);
        }
        match error.to_string() {
            text if text.starts_with("dockerfile parse error") => Error::InvalidParameter(text),
            text => Error::InvalidParameter(format!("failed to parse {}: {text}", worker.request.dockerfile)),
        }
    })?;
    // The client's word counts more than the file's.
    let directives = &mut file.directives;
    for (argument, directive) in [(SYNTAX, &mut directives.syntax), (CHECK, &mut directives.check)] {
        if let Some(value) = worker.request.argument(argument) {
            *directive = Some((value.to_owned(), Lines::one(1)));
        }
    }
    check_frontend(&file).inspect_err(|_| {
        if let Some((_, lines)) = &file.directives.syntax {
            worker.failed(*lines);
        }
    })?;
    let request = &worker.request;
    let given = Given {
        arguments: request.given_arguments(),
        build_platform: Platform::host(),
        target_platform: request.platform.clone().unwrap_or_else(Platform::host),
        target: Some(request.target.clone()).filter(|target| !target.is_empty()),
    };
    let checker = Checker { file: &file, text, given: &given, ignore };
    if !checker.run(worker)? {
        return Ok(());
    }
    cache::open(worker)?;
    let build = Build {
        given: given.clone(),
        named: worker.request.named_arguments(),
        labels: worker.request.labels.clone(),
        // Clients without sessions know the classic builder alone, and may count on what it does.
        all: worker.request.session.is_none(),
        // A step may wait for a network, or for another stage, also where there is one processor.
        jobs: worker.parts().cpus.max(2),
        no_cache: worker.request.no_cache_filter.iter().cloned().collect(),
        contexts: worker.request.contexts.keys().cloned().collect(),
    };
    let Some((image, base)) = build.run(&file, worker)? else {
        return Err(Error::InvalidParameter("No image was generated. Is your Dockerfile empty?".into()));
    };
    let image = if worker.request.squash { squash::squash(worker, image, base)? } else { image };
    // What only goes elsewhere stays as cache.
    let stays = worker.request.outputs.is_empty() || !names.is_empty();
    if stays {
        worker.parts().storage.build_steps().end_with(&image.id)?;
    }
    results::send(worker, &image)?;
    cache::export(worker, &image)?;
    name_it(worker, &image, names, stays)?;
    checker.tell(worker)
}

/// A frontend that is not the one for Dockerfiles has a language of its own.
fn check_frontend(file: &Dockerfile) -> Result<(), Error> {
    match &file.directives.syntax {
        Some((image, lines)) if !is_frontend(image) => Err(Error::InvalidParameter(format!(
            "Dockerfile line {}: the frontend {image} cannot be used: docker/dockerfile is built in, and no other one",
            lines.first
        ))),
        _ => Ok(()),
    }
}

/// Whether an image is the frontend for Dockerfiles, in Docker's registry or in a copy of it elsewhere.
fn is_frontend(image: &str) -> bool {
    let Ok(name) = image.parse::<Reference>() else { return false };
    let repository = name.name();
    ["docker/dockerfile", "docker/dockerfile-upstream"]
        .iter()
        .any(|own| repository.strip_suffix(own).is_some_and(|before| before.ends_with('/')))
}

/// Gives the image its names, and tells of it; of one that stays once no power cut can take it any more.
fn name_it(worker: &mut Worker, image: &Image, names: &[Reference], stays: bool) -> Result<(), Error> {
    let parts = Arc::clone(worker.parts());
    parts.image_event(&image.id, &image.id.to_string(), ImageEvent::Create);
    for name in names {
        parts.images.tag(
            &image.id.to_string(),
            &name.familiar_repository(),
            name.tag().unwrap_or_default(),
        )?;
        parts.image_event(&image.id, &name.familiar(), ImageEvent::Tag);
    }
    if stays {
        parts.storage.images().sync(&image.id)?;
    }
    worker.output.built(&image.id)?;
    for name in names {
        worker.output.say(&format!("Successfully tagged {}\n", name.familiar()))?;
    }
    worker.output.done(&image.id)
}

#[cfg(test)]
mod tests {
    use super::is_frontend;

    #[test]
    fn one_frontend_is_built_in() {
        for (image, expected) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile-upstream:master-labs", true),
            ("mirror.example:5000/hub/docker/dockerfile:1.7", true),
            ("evil.example/x/dockerfile:1", false),
            ("x/dockerfile", false),
            ("dockerfile:1", false),
            ("mydocker/dockerfile", false),
            ("docker/dockerfile-other", false),
            ("", false),
        ] {
            assert_eq!(is_frontend(image), expected, "{image}");
        }
    }
}
