//! Warnings about `FROM`.

use std::collections::BTreeSet;

use berth_oci::{Platform, Reference};

use super::{Report, Rule, Surroundings};
use crate::expand::{Variables, Words};
use crate::stages::{Stage, Stages};
use crate::suggest;
use crate::variables::{Given, Globals};

pub(super) fn check(stages: &Stages, surroundings: &Surroundings<'_>, words: Words, report: &mut Report) {
    let mut names = BTreeSet::new();
    let given = surroundings.given;
    let globals = Globals::new(given, &stages.arguments, words).ok();
    let defaults = Given { arguments: Default::default(), ..given.clone() };
    let defaults = Globals::new(&defaults, &stages.arguments, words).ok();
    for stage in &stages.stages {
        name(stage, &mut names, report);
        if let Some(globals) = &globals {
            variables(stage, globals, words, report);
        }
        let made = defaults.as_ref().and_then(|defaults| words.expand(&stage.from.image, defaults).ok());
        if made.is_some_and(|made| made.text.parse::<Reference>().is_err()) {
            let image = &stage.from.image;
            let text = format!("Default value for ARG {image} results in empty or invalid base image name");
            report.add(Rule::InvalidDefaultArgInFrom, stage.lines, &stage.comments, text);
        }
    }
}

fn name<'a>(stage: &'a Stage, names: &mut BTreeSet<&'a str>, report: &mut Report) {
    let mut add = |rule, text: String| report.add(rule, stage.lines, &stage.comments, text);
    if let Some((word, name)) = &stage.from.written {
        if *name != name.to_lowercase() {
            add(Rule::StageNameCasing, format!("Stage name '{name}' should be lowercase"));
        }
        let keyword = &stage.keyword;
        let agrees = match (keyword.to_lowercase() == *keyword, keyword.to_uppercase() == *keyword) {
            (true, _) => *word == word.to_lowercase(),
            (_, true) => *word == word.to_uppercase(),
            _ => true,
        };
        if !agrees {
            add(Rule::FromAsCasing, format!("'{word}' and '{keyword}' keywords' casing do not match"));
        }
    }
    let Some(name) = stage.from.name.as_deref() else { return };
    if matches!(name, "context" | "scratch") {
        let text = format!("Stage name should not use the same name as reserved stage {name:?}");
        add(Rule::ReservedStageName, text);
    }
    if !names.insert(name) {
        let text = format!("Duplicate stage name {name:?}, stage names should be unique");
        add(Rule::DuplicateStageName, text);
    }
    if let Some(text) = description(&stage.comments, &[name], "FROM") {
        add(Rule::InvalidDefinitionDescription, text);
    }
}

/// What is wrong with the last comment as a description of one of `names`.
pub(super) fn description(comments: &[String], names: &[&str], keyword: &str) -> Option<String> {
    let first = comments.last()?.split(' ').next()?;
    let example = if let [one] = names { one } else { "<arg_key>" };
    let text = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    (!names.contains(&first)).then_some(text)
}

fn variables(stage: &Stage, globals: &Globals, words: Words, report: &mut Report) {
    let mut add = |rule, text: String| report.add(rule, stage.lines, &stage.comments, text);
    for text in [Some(&stage.from.image), stage.from.platform.as_ref()].into_iter().flatten() {
        let Ok(made) = words.expand(text, globals) else { continue };
        for missing in made.missing.iter().filter(|name| !globals.names().any(|own| own == *name)) {
            let meant = suggest::nearest(missing, globals.names());
            let meant = meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            add(Rule::UndefinedArgInFrom, format!("FROM argument '{missing}' is not declared{meant}"));
        }
    }
    let Some(written) = &stage.from.platform else { return };
    let Ok(made) = words.expand(written, globals) else { return };
    if made.found.len() == 1
        && made.missing.is_empty()
        && made.found.contains("TARGETPLATFORM")
        && globals.value("TARGETPLATFORM") == Some(&made.text)
    {
        let text = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        add(Rule::RedundantTargetPlatform, text);
    }
    if let (true, true, Ok(platform)) =
        (made.found.is_empty(), made.missing.is_empty(), made.text.parse::<Platform>())
    {
        let name = stage.from.name.as_deref().unwrap_or_default();
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let text = format!("FROM --platform flag should not use constant value {:?}", made.text);
            add(Rule::FromPlatformFlagConstDisallowed, text);
        }
    }
}
