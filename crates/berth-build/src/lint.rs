//! Warnings about a Dockerfile, before anything is built.

mod body;
mod from;
mod options;
mod rule;

use berth_archive::ignore::Ignore;
use berth_oci::config::ContainerDefaults;

pub use options::Options;
pub use rule::Rule;

use crate::dockerfile::Dockerfile;
use crate::error::{Lines, Result};
use crate::expand::Words;
use crate::stages::Stages;
use crate::variables::Given;

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule that is broken.
    pub rule: Rule,
    /// How.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

impl Warning {
    /// `Rule: message (line 3)`.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), self.message, self.lines.first)
    }
}

/// What is known beside the text.
pub struct Surroundings<'a> {
    /// What the build was told.
    pub given: &'a Given,
    /// What stays out of the context.
    pub ignore: &'a Ignore,
    /// What a base image sets, by the name in `FROM` with its variables replaced; none if it is not known, and then no
    /// variable of its stage is called undefined.
    pub base: &'a dyn Fn(&str) -> Option<ContainerDefaults>,
}

/// Warnings, and whether they are wanted.
#[derive(Debug, Default)]
struct Report {
    options: Options,
    found: Vec<Warning>,
}

impl Report {
    fn add(&mut self, rule: Rule, lines: Lines, comments: &[String], message: impl Into<String>) {
        if self.options.with_comments(comments).wants(rule) {
            self.found.push(Warning { rule, message: message.into(), lines });
        }
    }
}

/// All warnings, by line; and whether they are to fail the build.
///
/// # Errors
/// A directive `check` that cannot be read; a Dockerfile without stages.
pub fn check(file: &Dockerfile, surroundings: &Surroundings<'_>) -> Result<(Vec<Warning>, bool)> {
    let options = match &file.directives.check {
        Some((text, lines)) => Options::parse(text).map_err(|error| error.at(*lines))?,
        None => Options::default(),
    };
    let mut report = Report { options, found: Vec::new() };
    for line in &file.empty_continuations {
        report.add(Rule::NoEmptyContinuation, Lines::one(*line), &[], "Empty continuation line");
    }
    let stages = Stages::new(file)?;
    let words = Words::new(file.directives.escape);
    casing(file, &mut report);
    from::check(&stages, surroundings, words, &mut report);
    body::check(&stages, surroundings, words, &mut report);
    report.found.sort_by_key(|warning| (warning.lines, warning.rule));
    let fails = report.options.error && !report.found.is_empty();
    Ok((report.found, fails))
}

/// The error that warnings are if they are to be one.
pub fn failure(warnings: &[Warning]) -> String {
    let rules: std::collections::BTreeSet<String> =
        warnings.iter().map(|warning| warning.rule.name()).collect();
    format!("lint violation found for rules: {}", rules.into_iter().collect::<Vec<_>>().join(", "))
}

/// Keywords are all in upper case or all in lower case, whichever most of them are.
fn casing(file: &Dockerfile, report: &mut Report) {
    let lower = |word: &str| word == word.to_lowercase();
    let upper = |word: &str| word == word.to_uppercase();
    let count = |is: fn(&str) -> bool| file.statements.iter().filter(|one| is(&one.keyword)).count();
    let lower_wanted = count(lower) > count(upper);
    for one in &file.statements {
        let (right, wanted) = if lower_wanted {
            (lower(&one.keyword), "lowercase")
        } else {
            (upper(&one.keyword), "uppercase")
        };
        if !right {
            let text =
                format!("Command '{}' should match the case of the command majority ({wanted})", one.keyword);
            report.add(Rule::ConsistentInstructionCasing, one.lines, &one.comments, text);
        }
    }
}

#[cfg(test)]
mod tests;
