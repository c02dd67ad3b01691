//! Builds: the steps of a Dockerfile in their order, each taken from the cache or carried out.
//!
//! The solver knows what depends on what, and what an image's configuration becomes; an [`Executor`] does what needs files,
//! containers and images. A step's key is the digest of all that its result depends on: the image below it, the
//! configuration it makes, its own text with all variables replaced, and the digest of the files it takes.

mod copying;
mod schedule;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use berth_oci::{Digest, ImageConfig, Platform};

pub use copying::{Copying, destination};

use crate::configure::Script;
use crate::dockerfile::{Dockerfile, Mount, Network, Security};
use crate::error::{Error, Lines};
use crate::expand::Words;
use crate::stages::{Graph, Outside, Stages};
use crate::variables::{Given, Globals, unused_warning};
use schedule::Plan;

/// An image that a step begins with, or that it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its ID.
    pub id: Digest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// What whoever watches a build is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The instruction as it is written.
        text: &'a str,
    },
    /// Instructions are carried out that the base's `ONBUILD` left: so many.
    Triggers(usize),
    /// The step was done before.
    Cached,
    /// The step ended with this image; none after `FROM scratch`.
    Made(Option<&'a Digest>),
    /// A stage ended with this image.
    Stage(&'a Digest),
    /// Something that is worth a word.
    Warning(&'a str),
}

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Its words.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// What is mounted for it alone.
    pub mounts: Vec<(Mount, Option<Image>)>,
    /// Its network.
    pub network: Network,
    /// How confined it is.
    pub security: Security,
    /// A file that its command names: a here-document with an interpreter of its own.
    pub script: Option<Script>,
    /// Where the instruction stands.
    pub lines: Lines,
}

/// How an image is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// For what platform; none for the build's own.
    pub platform: Option<&'a Platform>,
    /// Whether it is for `--from`.
    pub copied: bool,
    /// The stage that may have been meant, if there is no such image.
    pub meant: Option<&'a str>,
}

/// What a step does to the files.
#[derive(Debug)]
pub enum Change<'a, F> {
    /// Nothing.
    Nothing,
    /// A directory is made, if it is not there.
    Directory(&'a str),
    /// A program runs.
    Run(&'a Program),
    /// Files are copied.
    Copy(&'a Copying, F),
}

/// A step that was not done before.
#[derive(Debug)]
pub struct Step<'a, F> {
    /// The image below it; none for nothing.
    pub parent: Option<&'a Image>,
    /// The configuration it makes. What the files change in it is still missing: the layer, and the history.
    pub config: ImageConfig,
    /// The entry for the history.
    pub history: String,
    /// What it does to the files.
    pub change: Change<'a, F>,
    /// What it is remembered by.
    pub key: Digest,
    /// Whether nothing of it may be taken from the cache.
    pub fresh: bool,
}

/// A step that may have been done before.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// The image below it; none for nothing.
    pub parent: Option<&'a Image>,
    /// The configuration it makes.
    pub config: &'a ImageConfig,
    /// The entry for the history.
    pub history: &'a str,
    /// What it is remembered by.
    pub key: &'a Digest,
    /// Whether the history says all that the step depends on: an image with this history was made by it.
    pub told: bool,
}

/// Does what the solver decides. Stages that do not need each other are carried out at once, each by a fork.
pub trait Executor: Sized + Send {
    /// Why it cannot.
    type Error: From<Error> + Send;
    /// Files that are to be copied.
    type Files;

    /// Another one, for one stage beside others; `label` is its name if what they tell has to be told apart.
    fn fork(&mut self, label: Option<&str>) -> Self;

    /// Stops all forks: one of them has failed.
    fn stop(&mut self);

    /// Passes on what happens. Fails when nobody wants the build any more.
    fn tell(&mut self, event: Event<'_>) -> Result<(), Self::Error>;

    /// Finds an image, or what a context of this name holds as one, and fetches it if need be.
    fn image(&mut self, name: &str, wanted: Wanted<'_>) -> Result<Image, Self::Error>;

    /// What a step made that was done before.
    fn cached(&mut self, probe: &Probe<'_>) -> Result<Option<Image>, Self::Error>;

    /// Finds files to copy, and gives what tells them apart from others.
    fn gather(&mut self, copying: &Copying) -> Result<(Self::Files, String), Self::Error>;

    /// What tells the files of the context that a mount shows apart from others.
    fn bound(&mut self, mount: &Mount, lines: Lines) -> Result<String, Self::Error>;

    /// Carries out a step, and remembers what it made.
    fn make(&mut self, step: Step<'_, Self::Files>) -> Result<Image, Self::Error>;

    /// An instruction has failed. Of several calls of one build the first is the cause.
    fn failed(&mut self, lines: Lines);
}

/// What a build is, beside its Dockerfile and its files.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// What it is told from outside.
    pub given: Given,
    /// Arguments that are named without a value: only their names count.
    pub named: Vec<String>,
    /// Labels that the image gets at the end.
    pub labels: BTreeMap<String, String>,
    /// Stages, by their names in lower case or their numbers, whose steps are all done again.
    pub no_cache: BTreeSet<String>,
    /// Whether all stages up to the target are built, as by Docker's classic builder, and not only those that it needs.
    pub all: bool,
    /// Names that mean a context of the build, before they mean a stage or an image.
    pub contexts: BTreeSet<String>,
    /// How many stages are carried out at once, at most; at least one is.
    pub jobs: usize,
}

impl Build {
    /// Builds the stages that are wanted, those at once that do not need each other. Gives the target's image, and how
    /// many of its layers are those of its base; none if it has nothing in it.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile, and what the executor fails with.
    pub fn run<E: Executor>(
        &self,
        file: &Dockerfile,
        executor: &mut E,
    ) -> Result<Option<(Image, usize)>, E::Error> {
        let stages = Stages::new(file)?;
        let words = Words::new(file.directives.escape);
        let globals = Globals::new(&self.given, &stages.arguments, words)?;
        let outside = Outside::new(&self.contexts);
        let graph = Graph::new(&stages, self.given.target.as_deref(), &globals, &outside, words)?;
        let plan = Plan::new(self, &stages, graph, &globals, words);
        for (number, statement) in (1..).zip(&stages.preamble) {
            executor.tell(Event::Step { number, total: plan.total, text: &statement.text })?;
        }
        let image = plan.carry_out(executor)?;
        let mut given = self.given.clone();
        given.arguments.extend(self.named.iter().map(|name| (name.clone(), String::new())));
        let declared = plan.declared();
        if let Some(text) = unused_warning(&given, declared.iter().map(String::as_str)) {
            executor.tell(Event::Warning(&text))?;
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests;
