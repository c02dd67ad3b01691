//! Errors that know their place in the Dockerfile.

use std::fmt;

/// Lines of a Dockerfile, counted from 1; both ends are part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first line.
    pub first: usize,
    /// The last line.
    pub last: usize,
}

impl Lines {
    /// One line.
    pub fn one(line: usize) -> Lines {
        Lines { first: line, last: line }
    }
}

/// Why a Dockerfile cannot be used. The text is Docker's where clients look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    what: Fault,
    suggestion: Option<String>,
    lines: Option<Lines>,
    /// Whether the line's number is part of the text.
    numbered: bool,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is nothing but comments.
    #[error("file with no instructions")]
    NoInstructions,
    /// There is no `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// An instruction other than `ARG` before the first `FROM`.
    #[error("no build stage in current context")]
    BeforeFrom,
    /// No instruction has this name.
    #[error("unknown instruction: {0}")]
    UnknownInstruction(String),
    /// The stage to build is not there.
    #[error("target stage {0:?} could not be found")]
    UnknownTarget(String),
    /// A stage that needs itself.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// An instruction, its flags or its words make no sense.
    #[error("{0}")]
    Instruction(String),
    /// A variable's value cannot be put in.
    #[error("failed to process {word:?}: {problem}")]
    Expansion {
        /// The word as written.
        word: String,
        /// Why not.
        problem: String,
    },
    /// Larger than what is read.
    #[error("{0}")]
    TooLarge(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error about an instruction.
pub(crate) fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Fault::Instruction(text.into())))
}

impl Error {
    pub(crate) fn new(what: Fault) -> Error {
        Error { what, suggestion: None, lines: None, numbered: false }
    }

    /// Adds what may have been meant.
    pub(crate) fn meant(mut self, suggestion: Option<impl Into<String>>) -> Error {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// Adds the place, unless one is known: the innermost is the right one.
    pub(crate) fn at(mut self, lines: Lines) -> Error {
        self.lines.get_or_insert(lines);
        self
    }

    /// As [`Error::at`]; the text names the first line.
    pub(crate) fn numbered(mut self, lines: Lines) -> Error {
        self.numbered = true;
        self.at(lines)
    }

    /// Gives it another place: text of one file, carried out because of another.
    pub(crate) fn moved(mut self, lines: Lines) -> Error {
        self.lines = Some(lines);
        self.numbered = false;
        self
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.what
    }

    /// Where it is, if it is in one place.
    pub fn lines(&self) -> Option<Lines> {
        self.lines
    }

    /// What may have been meant.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (true, Some(lines)) = (self.numbered, self.lines) {
            write!(out, "dockerfile parse error on line {}: ", lines.first)?;
        }
        write!(out, "{}", self.what)?;
        match &self.suggestion {
            Some(meant) => write!(out, " (did you mean {meant}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_suggestion() {
        let error = Error::new(Fault::UnknownInstruction("FRMO".into())).meant(Some("FROM"));
        let error = error.numbered(Lines { first: 3, last: 4 });
        assert_eq!(
            error.to_string(),
            "dockerfile parse error on line 3: unknown instruction: FRMO (did you mean FROM?)"
        );
        assert_eq!(error.at(Lines::one(9)).lines(), Some(Lines { first: 3, last: 4 }));
    }
}
