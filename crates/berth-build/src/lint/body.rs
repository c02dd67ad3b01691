//! Warnings about the instructions of a stage.

use std::collections::BTreeMap;

use berth_archive::ignore::clean;
use berth_oci::config::{ContainerDefaults, ImageConfig};

use super::{Report, Rule, Surroundings, from};
use crate::configure::{Draft, Settings, exposed};
use crate::dockerfile::{Argument, CommandLine, CopySource, Instruction, Pair, Statement};
use crate::error::Lines;
use crate::expand::{Variables, Words};
use crate::stages::{Stage, Stages};
use crate::suggest;
use crate::variables::Globals;

/// A stage as far as it is known when the stage is read.
#[derive(Clone)]
struct State {
    draft: Draft,
    /// Whether the environment of the base is known.
    known: bool,
    /// Whether a working directory has been set in this file.
    placed: bool,
}

pub(super) fn check(stages: &Stages, surroundings: &Surroundings<'_>, words: Words, report: &mut Report) {
    for one in &stages.preamble {
        if let Instruction::Arg(arguments) = &one.instruction {
            self::arguments(arguments, one, false, report);
        }
    }
    let Ok(globals) = Globals::new(surroundings.given, &stages.arguments, words) else { return };
    let settings = Settings { given: surroundings.given, globals: &globals, words };
    let mut done: BTreeMap<String, State> = BTreeMap::new();
    for stage in &stages.stages {
        let Ok(image) = words.expand(&stage.from.image, &globals) else { continue };
        let mut state = match done.get(&image.text.to_lowercase()) {
            Some(base) => {
                let (draft, _) =
                    Draft::new(base.draft.image.clone(), surroundings.given, Some(&base.draft.scope));
                State { draft, ..base.clone() }
            }
            None => begin(&image.text, surroundings),
        };
        statements(stage, &mut state, settings, surroundings, report);
        if let Some(name) = &stage.from.name {
            done.insert(name.clone(), state);
        }
    }
}

fn begin(image: &str, surroundings: &Surroundings<'_>) -> State {
    let base =
        if image == "scratch" { Some(ContainerDefaults::default()) } else { (surroundings.base)(image) };
    let known = base.is_some();
    let config = ImageConfig { config: base.unwrap_or_default(), ..ImageConfig::default() };
    State { draft: Draft::new(config, surroundings.given, None).0, known, placed: false }
}

fn statements(
    stage: &Stage,
    state: &mut State,
    settings: Settings<'_>,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) {
    let mut last: BTreeMap<&str, &Statement> = BTreeMap::new();
    for one in &stage.statements {
        let keyword = one.instruction.keyword();
        if matches!(keyword, "CMD" | "ENTRYPOINT" | "HEALTHCHECK")
            && let Some(earlier) = last.insert(keyword, one)
        {
            let text = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            report.add(Rule::MultipleInstructionsDisallowed, earlier.lines, &earlier.comments, text);
        }
        plain(one, state, report);
        let mut missing = Vec::new();
        if let Instruction::Arg(arguments) = &one.instruction {
            let texts = arguments.iter().filter(|own| !surroundings.given.arguments.contains_key(&own.name));
            let made = texts
                .filter_map(|own| settings.words.expand(own.default.as_deref()?, &state.draft.scope).ok());
            missing.extend(made.flat_map(|made| made.missing));
        }
        let Ok(applied) = state.draft.apply(&one.instruction, settings) else { continue };
        missing.extend(applied.missing);
        if state.known {
            undefined(missing, one, state, report);
        }
        expanded(&applied.instruction, one, state, surroundings, report);
    }
}

fn undefined(missing: Vec<String>, one: &Statement, state: &State, report: &mut Report) {
    let scope = &state.draft.scope;
    for name in missing.iter().filter(|name| !scope.declares(name) && scope.value(name).is_none()) {
        let meant = suggest::nearest(name, scope.names());
        let meant = meant.map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
        report.add(
            Rule::UndefinedVar,
            one.lines,
            &one.comments,
            format!("Usage of undefined variable '${name}'{meant}"),
        );
    }
}

/// What needs no variables.
fn plain(one: &Statement, state: &State, report: &mut Report) {
    let keyword = one.instruction.keyword();
    match &one.instruction {
        Instruction::Maintainer(_) => {
            let text = "Maintainer instruction is deprecated in favor of using label";
            report.add(Rule::MaintainerDeprecated, one.lines, &one.comments, text);
        }
        Instruction::Cmd(CommandLine::Shell(_)) | Instruction::Entrypoint(CommandLine::Shell(_))
            // With a shell of its own choice, the author has thought about it.
            if state.draft.image.config.shell.as_ref().is_none_or(Vec::is_empty) => {
                let text = format!(
                    "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                );
                report.add(Rule::JSONArgsRecommended, one.lines, &one.comments, text);
            }
        Instruction::Env(pairs) => {
            legacy(pairs, keyword, one, report);
            pairs.iter().for_each(|pair| secret("ENV", &pair.name, one, report));
        }
        Instruction::Label(pairs) => legacy(pairs, keyword, one, report),
        Instruction::Arg(own) => arguments(own, one, true, report),
        _ => {}
    }
}

fn legacy(pairs: &[Pair], keyword: &str, one: &Statement, report: &mut Report) {
    if pairs.iter().any(|pair| pair.legacy) {
        let text = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        report.add(Rule::LegacyKeyValueFormat, one.lines, &one.comments, text);
    }
}

/// Secrets are looked for within stages only: before them, nothing is kept.
fn arguments(own: &[Argument], one: &Statement, in_stage: bool, report: &mut Report) {
    let names: Vec<&str> = own.iter().map(|argument| argument.name.as_str()).collect();
    if let Some(text) = from::description(&one.comments, &names, "ARG") {
        report.add(Rule::InvalidDefinitionDescription, one.lines, &one.comments, text);
    }
    names.iter().filter(|_| in_stage).for_each(|name| secret("ARG", name, one, report));
}

fn secret(keyword: &str, name: &str, one: &Statement, report: &mut Report) {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name_lower = name.to_lowercase();
    let has = |words: &[&str]| name_lower.split('_').any(|part| words.contains(&part));
    if has(&SECRET) && !has(&HARMLESS) {
        let text = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        report.add(Rule::SecretsUsedInArgOrEnv, one.lines, &one.comments, text);
    }
}

/// What is seen only when variables are replaced.
fn expanded(
    instruction: &Instruction,
    one: &Statement,
    state: &mut State,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) {
    let mut add = |rule, lines: Lines, text: String| report.add(rule, lines, &one.comments, text);
    match instruction {
        Instruction::Workdir(path) => {
            if !state.placed && !path.starts_with('/') {
                let text = format!(
                    "Relative workdir {path:?} can have unexpected results if the base image changes"
                );
                add(Rule::WorkdirRelativePath, one.lines, text);
            }
            state.placed = true;
        }
        Instruction::Expose(ports) => {
            for port in ports {
                let Ok(found) = exposed(port) else { continue };
                if found.odd_case {
                    let text = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    add(Rule::ExposeProtoCasing, one.lines, text);
                }
                if found.has_host {
                    let text = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    add(Rule::ExposeInvalidFormat, one.lines, text);
                }
            }
        }
        Instruction::Copy(copy) if copy.from.is_none() => {
            ignored("Copy", &copy.sources, surroundings)
                .into_iter()
                .for_each(|text| add(Rule::CopyIgnoredFile, one.lines, text));
        }
        Instruction::Add(own) => {
            ignored("Add", &own.sources, surroundings)
                .into_iter()
                .for_each(|text| add(Rule::CopyIgnoredFile, one.lines, text));
        }
        _ => {}
    }
}

/// Sources that never reach the builder. With exceptions among the patterns this cannot be said of a directory.
fn ignored(verb: &str, sources: &[CopySource], surroundings: &Surroundings<'_>) -> Vec<String> {
    let ignore = surroundings.ignore;
    if ignore.has_exceptions() {
        return Vec::new();
    }
    let paths = sources.iter().filter_map(|source| match source {
        CopySource::Path(path) if !path.contains("://") => Some(clean(path)),
        _ => None,
    });
    let out = |path: &String| match path.as_str() {
        "." | "/" => ignore.excludes_all(),
        path => ignore.matches(path.trim_start_matches('/')),
    };
    let text = |path| format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
    paths.filter(out).map(text).collect()
}
