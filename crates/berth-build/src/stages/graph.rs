//! Which stages need which: an acyclic graph, since a stage can need earlier ones only.

use std::collections::{BTreeMap, BTreeSet};

use berth_oci::{Platform, Reference};

use super::{Stage, Stages};
use crate::dockerfile::{Instruction, Statement};
use crate::error::{Error, Fault, Lines, Result, wrong};
use crate::expand::Words;
use crate::suggest;
use crate::variables::Globals;

/// Stages with what they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// For each stage, in the order of the Dockerfile.
    pub inputs: Vec<Input>,
    /// The stage to build.
    pub target: usize,
}

/// What a stage needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it begins with.
    pub base: Origin,
    /// `--platform` of its `FROM`.
    pub platform: Option<Platform>,
    /// What its instructions take files from, beside the build's context.
    pub uses: Vec<Use>,
    /// Whether a context takes the place of the whole stage.
    pub replaced: bool,
}

/// One place where a stage takes files from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The name as it is written.
    pub written: String,
    /// What it means.
    pub origin: Origin,
    /// Where it stands.
    pub lines: Lines,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: `scratch`.
    Scratch,
    /// The result of an earlier stage.
    Stage(usize),
    /// An image.
    Image(String),
    /// A context that the build was given by this name.
    Context(String),
}

/// What the names of a Dockerfile can mean beside its stages.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// `--build-context`: names, normalised if they are names of images.
    contexts: BTreeSet<String>,
}

impl Outside {
    /// Named contexts.
    pub fn new<S: AsRef<str>>(contexts: impl IntoIterator<Item = S>) -> Outside {
        Outside { contexts: contexts.into_iter().map(|name| normal(name.as_ref())).collect() }
    }

    fn origin(&self, name: &str) -> Origin {
        match name {
            name if self.contexts.contains(&normal(name)) => Origin::Context(name.to_owned()),
            "scratch" => Origin::Scratch,
            name => Origin::Image(name.to_owned()),
        }
    }
}

/// The name of a context as it is compared with others: in lower case, and that of an image with everything that is implied.
pub fn normal(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) => reference.with_default_tag().canonical(),
        Err(_) => name.to_lowercase(),
    }
}

impl Graph {
    /// Finds what each stage needs.
    ///
    /// # Errors
    /// A target that is not there; bases that are blank, or platforms that are none; stages that are used before they are
    /// defined, or by themselves.
    pub fn new(
        stages: &Stages,
        target: Option<&str>,
        globals: &Globals,
        outside: &Outside,
        words: Words,
    ) -> Result<Graph> {
        let target = stages.target(target)?;
        let mut graph = Graph { inputs: Vec::new(), target };
        for (index, stage) in stages.stages.iter().enumerate() {
            let input = graph.input(stages, index, stage, globals, outside, words);
            graph.inputs.push(input.map_err(|error| error.at(stage.lines))?);
        }
        Ok(graph)
    }

    fn input(
        &self,
        stages: &Stages,
        index: usize,
        stage: &Stage,
        globals: &Globals,
        outside: &Outside,
        words: Words,
    ) -> Result<Input> {
        // A context with the stage's name takes the whole stage's place.
        if let Some(name) = stage.from.name.as_ref().filter(|name| outside.contexts.contains(&normal(name))) {
            let base = Origin::Context(name.clone());
            return Ok(Input { base, platform: None, uses: Vec::new(), replaced: true });
        }
        let image = words.expand(&stage.from.image, globals)?.text;
        if image.is_empty() {
            return wrong(format!("base name ({}) should not be blank", stage.from.image));
        }
        let base = match named(stages, &image, index) {
            Some(earlier) => Origin::Stage(earlier),
            None => outside.origin(&image),
        };
        let platform =
            stage.from.platform.as_deref().map(|text| platform(text, globals, words)).transpose()?;
        let mut uses = Vec::new();
        for trigger in self.inherited_triggers(stages, &base) {
            let statement = crate::dockerfile::Dockerfile::read_trigger(trigger, stage.lines)?;
            uses.extend(uses_of(stages, index, &statement, outside, words)?);
        }
        for statement in &stage.statements {
            uses.extend(uses_of(stages, index, statement, outside, words)?);
        }
        Ok(Input { base, platform, uses, replaced: false })
    }

    /// What the instructions `ONBUILD` of a base stage leave to stages upon it.
    fn inherited_triggers<'a>(&self, stages: &'a Stages, base: &Origin) -> Vec<&'a str> {
        let Origin::Stage(base) = base else { return Vec::new() };
        let statements =
            stages.stages.get(*base).map(|stage| stage.statements.as_slice()).unwrap_or_default();
        let triggers = statements.iter().filter_map(|statement| match &statement.instruction {
            Instruction::OnBuild(trigger) => Some(trigger.text.as_str()),
            _ => None,
        });
        triggers.collect()
    }

    /// Adds what an instruction needs that `ONBUILD` of a base image leaves: it is known only when the image is there.
    ///
    /// # Errors
    /// As for [`Graph::new`].
    pub fn add_trigger(
        &mut self,
        stages: &Stages,
        index: usize,
        statement: &Statement,
        outside: &Outside,
        words: Words,
    ) -> Result<()> {
        let uses = uses_of(stages, index, statement, outside, words)?;
        if let Some(input) = self.inputs.get_mut(index) {
            input.uses.splice(0..0, uses);
        }
        Ok(())
    }

    /// The stages that a stage needs directly.
    pub fn needs(&self, index: usize) -> BTreeSet<usize> {
        let Some(input) = self.inputs.get(index) else { return BTreeSet::new() };
        let origins = input.uses.iter().map(|one| &one.origin).chain([&input.base]);
        origins
            .filter_map(|origin| if let Origin::Stage(stage) = origin { Some(*stage) } else { None })
            .collect()
    }

    /// The stages that the target needs, itself last: each comes after all that it needs.
    pub fn order(&self) -> Vec<usize> {
        let (mut found, mut open) = (BTreeSet::new(), vec![self.target]);
        while let Some(index) = open.pop() {
            if found.insert(index) {
                open.extend(self.needs(index));
            }
        }
        found.into_iter().collect()
    }

    /// Images that the target's stages need, each with the platforms that are asked for; none is the build's own.
    pub fn images(&self) -> BTreeMap<String, Vec<Option<Platform>>> {
        let mut found: BTreeMap<String, Vec<Option<Platform>>> = BTreeMap::new();
        for input in self.order().into_iter().filter_map(|index| self.inputs.get(index)) {
            let used = input.uses.iter().map(|one| (&one.origin, None));
            for (origin, platform) in used.chain([(&input.base, input.platform.clone())]) {
                if let Origin::Image(name) = origin {
                    let platforms = found.entry(name.clone()).or_default();
                    if !platforms.contains(&platform) {
                        platforms.push(platform);
                    }
                }
            }
        }
        found
    }
}

fn platform(written: &str, globals: &Globals, words: Words) -> Result<Platform> {
    let made = words.expand(written, globals)?;
    let meant = || made.missing.iter().find_map(|name| suggest::nearest(name, globals.names()));
    let error = |text: String| Error::new(Fault::Instruction(text)).meant(meant());
    if made.text.is_empty() {
        return Err(error(format!("empty platform value from expression {written}")));
    }
    let parsed = made.text.parse::<Platform>();
    parsed.map_err(|problem| error(format!("failed to parse platform {written}: {problem}")))
}

/// The latest stage of this name before `index`.
fn named(stages: &Stages, name: &str, index: usize) -> Option<usize> {
    let lower = name.to_lowercase();
    let earlier = stages.stages.get(..index).unwrap_or_default();
    earlier.iter().rposition(|stage| stage.from.name.as_ref() == Some(&lower))
}

fn uses_of(
    stages: &Stages,
    index: usize,
    statement: &Statement,
    outside: &Outside,
    words: Words,
) -> Result<Vec<Use>> {
    let names: Vec<&str> = match &statement.instruction {
        Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => return Ok(Vec::new()),
    };
    let is_copy = matches!(statement.instruction, Instruction::Copy(_));
    let one = |name: &str| {
        if is_copy && words.expand(name, &())?.text != name {
            return wrong(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                scope as a workaround",
            );
        }
        let origin = used(stages, index, name, is_copy, outside)?;
        Ok(Use { written: name.to_owned(), origin, lines: statement.lines })
    };
    names.into_iter().map(|name| one(name).map_err(|error| error.at(statement.lines))).collect()
}

/// What `--from` or `from=` means in the stage `index`.
fn used(stages: &Stages, index: usize, name: &str, is_copy: bool, outside: &Outside) -> Result<Origin> {
    if let Some(earlier) = named(stages, name, index) {
        return Ok(Origin::Stage(earlier));
    }
    if let Ok(number) = name.parse::<usize>() {
        return match number {
            earlier if earlier < index => Ok(Origin::Stage(earlier)),
            own if own == index && is_copy => {
                wrong(format!("invalid from flag value {name}: refers to current build stage"))
            }
            own if own == index => Err(Error::new(Fault::Circular(stages.label(index)))),
            later if later < stages.stages.len() => too_early(stages, index, name, is_copy),
            _ => wrong(format!("invalid stage index {number}")),
        };
    }
    let lower = name.to_lowercase();
    match stages.stages.iter().position(|stage| stage.from.name.as_ref() == Some(&lower)) {
        Some(own) if own == index => Err(Error::new(Fault::Circular(stages.label(index)))),
        Some(_) => too_early(stages, index, name, is_copy),
        None => Ok(outside.origin(name)),
    }
}

fn too_early<T>(stages: &Stages, index: usize, name: &str, is_copy: bool) -> Result<T> {
    let verb = if is_copy { "copy" } else { "mount" };
    wrong(format!(
        "cannot {verb} from stage {name:?}, it needs to be defined before current stage {:?}",
        stages.label(index)
    ))
}
