//! The text of a Dockerfile as typed instructions, each with its lines.
//!
//! Variables stay as they are written: their values depend on what comes before and on the build's arguments.

mod directive;
mod document;
mod files;
mod flags;
mod health;
mod instruction;
mod lines;
mod mount;
mod parse;
mod print;
mod run;
mod words;

pub use directive::Directives;
pub use document::Document;
pub use files::{Add, Copy, CopySource};
pub use instruction::{Argument, CommandLine, From, Instruction, KEYWORDS, Pair, Trigger};
pub use mount::{Mount, MountKind, MountText, Sharing};
pub use run::{Network, Run, Security};

use crate::error::{Lines, Result};

/// Largest Dockerfile that is read, in bytes.
pub const FILE_LIMIT: usize = 16 << 20;
/// Longest line that is read, in bytes: Docker's.
pub const LINE_LIMIT: usize = 65535;

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What its first comments say to the parser.
    pub directives: Directives,
    /// The instructions in their order.
    pub statements: Vec<Statement>,
    /// Lines that are empty in the midst of an instruction.
    pub empty_continuations: Vec<usize>,
}

/// An instruction in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The first word, in the case in which it is written.
    pub keyword: String,
    /// What it says.
    pub instruction: Instruction,
    /// Its text on one line, without here-documents.
    pub text: String,
    /// Where it is, here-documents included.
    pub lines: Lines,
    /// Comments right before it.
    pub comments: Vec<String>,
}

impl Dockerfile {
    /// Reads a Dockerfile. Bytes that are no UTF-8 become U+FFFD, as they would in the image's configuration.
    ///
    /// # Errors
    /// No instruction, an unknown or malformed one, a here-document without end, directives that contradict each other, a
    /// file or line that is too long.
    pub fn read(content: &[u8]) -> Result<Dockerfile> {
        let text = lines::text(content)?;
        let source = lines::read(&text)?;
        let statements = source.statements.into_iter().map(parse::statement).collect::<Result<_>>()?;
        Ok(Dockerfile {
            directives: source.directives,
            statements,
            empty_continuations: source.empty_continuations,
        })
    }

    /// Reads an instruction that an `ONBUILD` left in an image, to be carried out at `place`, the `FROM` of that image.
    ///
    /// # Errors
    /// As [`Dockerfile::read`]; also if it is more than one instruction, or none for this place.
    pub fn read_trigger(text: &str, place: Lines) -> Result<Statement> {
        let read = || {
            let mut statements = Dockerfile::read(text.as_bytes())?.statements;
            match (statements.pop(), statements.is_empty()) {
                (Some(one), true) => match one.instruction {
                    Instruction::From(_) | Instruction::Maintainer(_) | Instruction::OnBuild(_) => {
                        crate::error::wrong(format!(
                            "{} isn't allowed as an ONBUILD trigger",
                            one.keyword.to_uppercase()
                        ))
                    }
                    _ => Ok(one),
                },
                _ => crate::error::wrong("onbuild trigger should be a single expression"),
            }
        };
        let statement = read().map_err(|error| error.moved(place))?;
        Ok(Statement { lines: place, ..statement })
    }
}

#[cfg(test)]
mod tests;
