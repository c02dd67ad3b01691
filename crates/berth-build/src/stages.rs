//! Stages of a Dockerfile, and which of them need which.

mod graph;

pub use graph::{Graph, Input, Origin, Outside, Use, normal};

use crate::dockerfile::{Argument, Dockerfile, From, Instruction, Statement};
use crate::error::{Error, Fault, Lines, Result};

/// A Dockerfile, split at its `FROM`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stages {
    /// What `ARG` says before the first `FROM`.
    pub arguments: Vec<Argument>,
    /// Those statements themselves.
    pub preamble: Vec<Statement>,
    /// The stages in their order; never empty.
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its `FROM`.
    pub from: From,
    /// The statement that holds it.
    pub keyword: String,
    /// Where its `FROM` is.
    pub lines: Lines,
    /// Comments before it.
    pub comments: Vec<String>,
    /// What follows.
    pub statements: Vec<Statement>,
}

impl Stages {
    /// Splits a Dockerfile.
    ///
    /// # Errors
    /// Instructions before the first `FROM`, or no `FROM` at all.
    pub fn new(file: &Dockerfile) -> Result<Stages> {
        let mut found = Stages { arguments: Vec::new(), preamble: Vec::new(), stages: Vec::new() };
        for statement in &file.statements {
            let stage = found.stages.last_mut();
            match (&statement.instruction, stage) {
                (Instruction::From(from), _) => found.stages.push(Stage {
                    from: from.clone(),
                    keyword: statement.keyword.clone(),
                    lines: statement.lines,
                    comments: statement.comments.clone(),
                    statements: Vec::new(),
                }),
                (_, Some(stage)) => stage.statements.push(statement.clone()),
                (Instruction::Arg(arguments), None) => {
                    found.arguments.extend(arguments.iter().cloned());
                    found.preamble.push(statement.clone());
                }
                (_, None) => return Err(Error::new(Fault::BeforeFrom).at(statement.lines)),
            }
        }
        if found.stages.is_empty() { Err(Error::new(Fault::NoStages)) } else { Ok(found) }
    }

    /// The stage that `--target` means: by name in any case, or by number; the last one without a target.
    ///
    /// # Errors
    /// There is no such stage.
    pub fn target(&self, name: Option<&str>) -> Result<usize> {
        let last = self.stages.len().saturating_sub(1);
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(last) };
        let lower = name.to_lowercase();
        let by_name = self.stages.iter().rposition(|stage| stage.from.name.as_ref() == Some(&lower));
        let by_number = || name.parse::<usize>().ok().filter(|index| *index <= last);
        by_name.or_else(by_number).ok_or_else(|| {
            let names = self.stages.iter().filter_map(|stage| stage.from.name.as_deref());
            Error::new(Fault::UnknownTarget(name.to_owned())).meant(crate::suggest::nearest(&lower, names))
        })
    }

    /// The stage before `index` whose name is nearest to one that is none of them, if one is near.
    pub fn nearest(&self, name: &str, index: usize) -> Option<&str> {
        let earlier = self.stages.get(..index).unwrap_or_default();
        let names = earlier.iter().filter_map(|stage| stage.from.name.as_deref());
        crate::suggest::nearest(&name.to_lowercase(), names)
    }

    /// What a stage is called in messages: its name, or `stage-` with its number.
    pub fn label(&self, index: usize) -> String {
        let name = self.stages.get(index).and_then(|stage| stage.from.name.clone());
        name.unwrap_or_else(|| format!("stage-{index}"))
    }
}

#[cfg(test)]
mod tests;
