//! One stage after the other.

use berth_oci::{Digest, ImageConfig};

use super::schedule::Plan;
use super::{Change, Copying, Event, Executor, Image, Probe, Program, Step, Wanted};
use crate::configure::{Applied, Draft, Settings};
use crate::dockerfile::{Copy, Dockerfile, Instruction, MountKind, Run, Statement};
use crate::error::{Error, Fault, Lines};
use crate::stages::{Graph, Origin, Outside};
use crate::variables::{CACHES, EPOCH, HOSTNAME, Scope};

/// Changes with every change of what keys are made of.
const KEY_VERSION: &str = "berth-build-2";

/// Builds one stage.
pub(super) struct Builder<'a, E> {
    pub plan: &'a Plan<'a>,
    /// What the stages need, those of triggers that come to light among it.
    pub graph: Graph,
    pub executor: &'a mut E,
    /// The number of the last step.
    pub number: usize,
}

/// What a stage came to.
#[derive(Clone)]
pub(super) struct Done {
    /// None if there is nothing in it.
    pub image: Option<Image>,
    /// How many of its layers are those of its base.
    pub base: usize,
    scope: Scope,
}

/// What a step depends on beside configuration and history.
#[derive(Default)]
struct Depends {
    text: String,
    /// Whether it changes the result, and the history does not show it.
    hidden: bool,
}

/// A stage under way.
struct Current {
    index: usize,
    /// None at the beginning of one from nothing.
    image: Option<Image>,
    draft: Draft,
}

impl<E: Executor> Builder<'_, E> {
    /// Tells that the next step begins.
    fn step(&mut self, text: &str) -> Result<(), E::Error> {
        self.number += 1;
        self.executor.tell(Event::Step { number: self.number, total: self.plan.total, text })
    }

    /// Builds the stage.
    pub fn stage(mut self, index: usize) -> Result<Done, E::Error> {
        let stages = self.plan.stages;
        let Some(stage) = stages.stages.get(index) else {
            return Ok(Done { image: None, base: 0, scope: Scope::default() });
        };
        self.step(&Instruction::From(stage.from.clone()).to_string())?;
        let begun = self.begin(index);
        let (mut current, triggers) = begun.inspect_err(|_| self.executor.failed(stage.lines))?;
        let base = current.draft.image.rootfs.diff_ids.len();
        if !triggers.is_empty() {
            self.executor.tell(Event::Triggers(triggers.len()))?;
            for text in &triggers {
                let statement = Dockerfile::read_trigger(text, stage.lines)?;
                let outside = Outside::new(&self.plan.build.contexts);
                self.graph.add_trigger(stages, index, &statement, &outside, self.plan.words)?;
                // Nobody knew before that they are needed.
                for needed in self.graph.needs(index) {
                    self.plan.stage(needed, self.executor)?;
                }
                self.statement(&mut current, &statement)
                    .inspect_err(|_| self.executor.failed(statement.lines))?;
            }
        }
        self.executor.tell(Event::Made(current.image.as_ref().map(|image| &image.id)))?;
        let replaced = self.graph.inputs.get(index).is_some_and(|input| input.replaced);
        let statements: &[Statement] = if replaced { &[] } else { stage.statements.as_slice() };
        for statement in statements {
            self.step(&statement.text)?;
            self.statement(&mut current, statement).inspect_err(|_| self.executor.failed(statement.lines))?;
            self.executor.tell(Event::Made(current.image.as_ref().map(|image| &image.id)))?;
        }
        if index == self.graph.target {
            self.labels(&mut current)?;
        }
        // Clients take the last image that they are told for the result: the target's is told when all else is done.
        if let Some(image) = current.image.as_ref().filter(|_| index != self.graph.target) {
            self.executor.tell(Event::Stage(&image.id))?;
        }
        Ok(Done { image: current.image, base, scope: current.draft.scope })
    }

    /// `FROM`.
    fn begin(&mut self, index: usize) -> Result<(Current, Vec<String>), E::Error> {
        let input = self.graph.inputs.get(index);
        let (base, platform) = match input {
            Some(input) => (input.base.clone(), input.platform.clone()),
            None => (Origin::Scratch, None),
        };
        let scope = match &base {
            Origin::Stage(stage) => self.plan.done(*stage).map(|done| done.scope),
            _ => None,
        };
        let image = match &base {
            Origin::Scratch => None,
            Origin::Stage(stage) => self.plan.done(*stage).and_then(|done| done.image),
            Origin::Image(name) | Origin::Context(name) => {
                let meant = self.plan.stages.nearest(name, index);
                let wanted = Wanted { platform: platform.as_ref(), copied: false, meant };
                Some(self.executor.image(name, wanted)?)
            }
        };
        let mut config = image.as_ref().map(|image| image.config.clone()).unwrap_or_else(|| {
            let platform = platform.unwrap_or_else(|| self.plan.build.given.target_platform.clone());
            ImageConfig {
                architecture: platform.architecture,
                variant: platform.variant,
                os: platform.os,
                ..ImageConfig::default()
            }
        });
        // Whoever made the base did not make this.
        config.author.clear();
        let (draft, triggers) = Draft::new(config, &self.plan.build.given, scope.as_ref());
        Ok((Current { index, image, draft }, triggers))
    }

    /// `--label`: one step for each, at the end.
    fn labels(&mut self, current: &mut Current) -> Result<(), E::Error> {
        for (name, value) in &self.plan.build.labels {
            self.step(&format!("LABEL {name}={value}"))?;
            let history = current.draft.label(name, value);
            self.finish(current, history, Depends::default(), Change::Nothing)?;
            self.executor.tell(Event::Made(current.image.as_ref().map(|image| &image.id)))?;
        }
        Ok(())
    }

    fn statement(&mut self, current: &mut Current, statement: &Statement) -> Result<(), E::Error> {
        if let Instruction::Arg(arguments) = &statement.instruction {
            arguments.iter().for_each(|argument| self.plan.declare(&argument.name));
        }
        let settings =
            Settings { given: &self.plan.build.given, globals: self.plan.globals, words: self.plan.words };
        let applied = current.draft.apply(&statement.instruction, settings);
        let Applied { instruction, history, .. } = applied.map_err(|error| error.at(statement.lines))?;
        let history = history.unwrap_or_default();
        match &instruction {
            Instruction::Run(run) => self.run(current, run, history, statement.lines),
            Instruction::Copy(copy) => {
                let from = self.source(current, copy, statement.lines)?;
                let copying = Copying::copy(copy, &current.draft.image.config.working_dir, from);
                self.copy(current, &copying)
            }
            Instruction::Add(add) => {
                let copying = Copying::add(add, &current.draft.image.config.working_dir);
                self.copy(current, &copying)
            }
            Instruction::Workdir(_) => {
                let directory = current.draft.image.config.working_dir.clone();
                self.finish(current, history, Depends::default(), Change::Directory(&directory))
            }
            _ => self.finish(current, history, Depends::default(), Change::Nothing),
        }
    }

    /// The image that `--from` means.
    fn source(&mut self, current: &Current, copy: &Copy, lines: Lines) -> Result<Option<Image>, E::Error> {
        match &copy.from {
            Some(name) => self.named(current, name, lines),
            None => Ok(None),
        }
    }

    fn named(&mut self, current: &Current, name: &str, lines: Lines) -> Result<Option<Image>, E::Error> {
        let uses =
            self.graph.inputs.get(current.index).map(|input| input.uses.as_slice()).unwrap_or_default();
        let origin = uses.iter().find(|one| one.written == name).map(|one| one.origin.clone());
        let nothing = || {
            Error::new(Fault::Instruction(format!("invalid from flag value {name}: there is nothing in it")))
        };
        match origin.unwrap_or_else(|| Origin::Image(name.to_owned())) {
            Origin::Stage(stage) => {
                let image = self.plan.done(stage).and_then(|done| done.image);
                Ok(Some(image.ok_or_else(|| nothing().at(lines))?))
            }
            Origin::Scratch => Err(nothing().at(lines).into()),
            Origin::Image(name) | Origin::Context(name) => {
                let meant = self.plan.stages.nearest(&name, current.index);
                self.executor.image(&name, Wanted { platform: None, copied: true, meant }).map(Some)
            }
        }
    }

    fn run(
        &mut self,
        current: &mut Current,
        run: &Run,
        history: String,
        lines: Lines,
    ) -> Result<(), E::Error> {
        let mut mounts = Vec::new();
        for mount in current.draft.mounts(run, self.plan.words).map_err(|error| error.at(lines))? {
            let from = match &mount.from {
                Some(name) => self.named(current, name, lines)?,
                None => None,
            };
            mounts.push((mount, from));
        }
        let (command, script) = current.draft.program(run);
        let program = Program {
            command,
            script,
            environment: current.draft.scope.step_environment(),
            mounts,
            network: run.network,
            security: run.security,
            lines,
        };
        let mut sources = Vec::new();
        for (mount, from) in &program.mounts {
            let files = match (mount.kind, from) {
                (_, Some(image)) => image.id.to_string(),
                (MountKind::Bind, None) => self.executor.bound(mount, lines)?,
                _ => String::new(),
            };
            sources.push(format!("{mount:?} {files}"));
        }
        // The history joins words with spaces: it does not tell where one ends.
        let arguments = current.draft.scope.visible_arguments();
        let Program { command, script, .. } = &program;
        let given = &self.plan.build.given.arguments;
        let (hostname, caches) = (given.get(HOSTNAME), given.get(CACHES));
        let depends = Depends {
            text: format!(
                "{arguments:?} {command:?} {script:?} {hostname:?} {caches:?} {} {:?} {}",
                run.network.name(),
                run.security,
                sources.join("\n")
            ),
            hidden: hostname.is_some() || !current.draft.is_told(run),
        };
        self.finish(current, history, depends, Change::Run(&program))
    }

    fn copy(&mut self, current: &mut Current, copying: &Copying) -> Result<(), E::Error> {
        let (files, digest) = self.executor.gather(copying)?;
        let history = current.draft.no_operation(&copying.history(&digest));
        let Copying { destination, unpack, link, parents, exclude, .. } = copying;
        let depends = Depends {
            text: format!("{destination:?} {unpack:?} {link} {parents} {exclude:?}"),
            // What links of the image below lead to counts only without it. All else shows in the digest.
            hidden: *link,
        };
        self.finish(current, history, depends, Change::Copy(copying, files))
    }

    /// Whether a stage is to be done again.
    fn is_fresh(&self, index: usize) -> bool {
        let name = self.plan.stages.stages.get(index).and_then(|stage| stage.from.name.as_ref());
        let fresh = &self.plan.build.no_cache;
        name.is_some_and(|name| fresh.contains(name)) || fresh.contains(&index.to_string())
    }

    /// Takes the step from the cache, or carries it out.
    fn finish(
        &mut self,
        current: &mut Current,
        history: String,
        depends: Depends,
        change: Change<'_, E::Files>,
    ) -> Result<(), E::Error> {
        let epoch = self.plan.build.given.arguments.get(EPOCH).map(String::as_str).unwrap_or_default();
        let key = key(current, &history, &depends.text, epoch);
        let (parent, config) = (current.image.as_ref(), &current.draft.image);
        let (fresh, told) = (self.is_fresh(current.index), !depends.hidden);
        let known = match fresh {
            true => None,
            false => self.executor.cached(&Probe { parent, config, history: &history, key: &key, told })?,
        };
        let image = match known {
            Some(image) => {
                self.executor.tell(Event::Cached)?;
                image
            }
            None => {
                let config = current.draft.image.clone();
                let parent = current.image.as_ref();
                self.executor.make(Step { parent, config, history, change, key, fresh })?
            }
        };
        current.draft.image = image.config.clone();
        current.image = Some(image);
        Ok(())
    }
}

/// The digest of all that a step depends on.
fn key(current: &Current, history: &str, depends: &str, epoch: &str) -> Digest {
    let image = &current.draft.image;
    let parent = current.image.as_ref().map(|image| image.id.to_string()).unwrap_or_default();
    // Maps are sorted: the same configuration is the same text.
    let config = serde_json::to_string(&image.config).unwrap_or_default();
    let platform = format!("{}/{}/{:?}", image.os, image.architecture, image.variant);
    let parts = [KEY_VERSION, &parent, &platform, &config, &image.author, history, depends, epoch];
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("{}:{part}\n", part.len()));
    }
    Digest::of(text.as_bytes())
}
