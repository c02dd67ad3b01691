//! From a statement's text to its instruction.

use super::instruction::{Argument, CommandLine, From, Instruction, KEYWORDS, Pair, Trigger};
use super::lines::Raw;
use super::{Statement, files, flags, health, run, words};
use crate::error::{Error, Fault, Result, wrong};
use crate::suggest;

pub(super) fn statement(raw: Raw) -> Result<Statement> {
    let (keyword, text, lines) = (raw.keyword.clone(), raw.text.clone(), raw.lines);
    let comments = raw.comments.clone();
    let instruction = instruction(raw).map_err(|error| error.numbered(lines))?;
    Ok(Statement { keyword, instruction, text, lines, comments })
}

fn instruction(raw: Raw) -> Result<Instruction> {
    let keyword = raw.keyword.to_uppercase();
    Ok(match keyword.as_str() {
        "ADD" => Instruction::Add(files::add(raw)?),
        "ARG" => Instruction::Arg(arguments(&raw)?),
        "CMD" => Instruction::Cmd(bare_command(&raw)?),
        "COPY" => Instruction::Copy(files::copy(raw)?),
        "ENTRYPOINT" => Instruction::Entrypoint(bare_command(&raw)?),
        "ENV" => Instruction::Env(pairs(&raw, "ENV")?),
        "EXPOSE" => Instruction::Expose(ports(&raw)?),
        "FROM" => Instruction::From(from(&raw)?),
        "HEALTHCHECK" => Instruction::Healthcheck(health::healthcheck(&raw)?),
        "LABEL" => Instruction::Label(pairs(&raw, "LABEL")?),
        "MAINTAINER" => Instruction::Maintainer(one(&raw, "MAINTAINER")?),
        "ONBUILD" => Instruction::OnBuild(trigger(&raw)?),
        "RUN" => Instruction::Run(run::run(raw)?),
        "SHELL" => Instruction::Shell(shell(&raw)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(&raw, "STOPSIGNAL")?),
        "USER" => Instruction::User(one(&raw, "USER")?),
        "VOLUME" => Instruction::Volume(volumes(&raw)?),
        "WORKDIR" => Instruction::Workdir(one(&raw, "WORKDIR")?),
        _ => {
            let meant = suggest::nearest_keyword(&raw.keyword, &KEYWORDS);
            return Err(Error::new(Fault::UnknownInstruction(raw.keyword)).meant(meant));
        }
    })
}

/// A command: a JSON array, or a line for the shell.
pub(super) fn command(rest: &str) -> Result<CommandLine> {
    Ok(match words::json(rest)? {
        Some(words) => CommandLine::Exec(words),
        None => CommandLine::Shell(rest.to_owned()),
    })
}

fn bare_command(raw: &Raw) -> Result<CommandLine> {
    flags::none(&raw.flags)?;
    command(&raw.rest)
}

fn one(raw: &Raw, keyword: &str) -> Result<String> {
    if raw.rest.is_empty() {
        return wrong(format!("{keyword} requires exactly one argument"));
    }
    flags::none(&raw.flags)?;
    Ok(raw.rest.clone())
}

fn some<T>(words: Vec<T>, keyword: &str) -> Result<Vec<T>> {
    match words.is_empty() {
        true => wrong(format!("{keyword} requires at least one argument")),
        false => Ok(words),
    }
}

/// `name=value …`, or the older `name value`.
fn pairs(raw: &Raw, keyword: &str) -> Result<Vec<Pair>> {
    flags::none(&raw.flags)?;
    let words = some(words::quoted(&raw.rest, raw.escape), keyword)?;
    let pair = |name: &str, value: &str, legacy| match name {
        "" => wrong(format!("{keyword} names can not be blank")),
        _ => Ok(Pair { name: name.to_owned(), value: value.to_owned(), legacy }),
    };
    if words.first().is_some_and(|first| !first.contains('=')) {
        return match words::first(&raw.rest) {
            (_, "") => wrong(format!("{keyword} must have two arguments")),
            (name, value) => Ok(vec![pair(name, value, true)?]),
        };
    }
    let split = |word: &String| match word.split_once('=') {
        Some((name, value)) => pair(name, value, false),
        None => wrong(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
    };
    words.iter().map(split).collect()
}

fn arguments(raw: &Raw) -> Result<Vec<Argument>> {
    flags::none(&raw.flags)?;
    let words = some(words::quoted(&raw.rest, raw.escape), "ARG")?;
    let argument = |word: &String| {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => return wrong("ARG names can not be blank"),
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(Argument { name: name.to_owned(), default, description: description(raw, name) })
    };
    words.iter().map(argument).collect()
}

/// What a comment `# name text` says about `name`.
fn description(raw: &Raw, name: &str) -> Option<String> {
    let texts = raw.comments.iter().filter_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '));
    texts.map(str::to_owned).next()
}

fn ports(raw: &Raw) -> Result<Vec<String>> {
    let mut ports = some(words::plain(&raw.rest), "EXPOSE")?;
    flags::none(&raw.flags)?;
    ports.sort();
    Ok(ports)
}

fn volumes(raw: &Raw) -> Result<Vec<String>> {
    let words = match words::json(&raw.rest)? {
        Some(words) => words,
        None => words::plain(&raw.rest),
    };
    let words: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
    flags::none(&raw.flags)?;
    if words.iter().any(String::is_empty) {
        return wrong("VOLUME specified can not be an empty string");
    }
    some(words, "VOLUME")
}

fn shell(raw: &Raw) -> Result<Vec<String>> {
    flags::none(&raw.flags)?;
    match words::json(&raw.rest)? {
        Some(words) => some(words, "SHELL"),
        None if raw.rest.is_empty() => some(Vec::new(), "SHELL"),
        None => wrong("SHELL requires the arguments to be in JSON form"),
    }
}

fn from(raw: &Raw) -> Result<From> {
    let words = words::plain(&raw.rest);
    let (image, written) = match words.as_slice() {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (image, Some((keyword.clone(), name.clone())))
        }
        _ => return wrong("FROM requires either one or three arguments"),
    };
    let name = written.as_ref().map(|(_, name)| stage_name(name)).transpose()?;
    let flags = flags::check(&raw.flags, &[("platform", flags::Kind::Text)])?;
    Ok(From { image: image.clone(), name, written, platform: flags.text("platform") })
}

fn stage_name(written: &str) -> Result<String> {
    let name = written.to_lowercase();
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    match first && name.chars().all(rest) {
        true => Ok(name),
        false => wrong(format!(
            "invalid name for build stage: {written:?}, name can't start with a number or contain symbols"
        )),
    }
}

fn trigger(raw: &Raw) -> Result<Trigger> {
    let (keyword, _) = words::first(&raw.rest);
    match keyword.to_uppercase().as_str() {
        "" => return wrong("ONBUILD requires at least one argument"),
        "ONBUILD" => return wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        name @ ("MAINTAINER" | "FROM") => {
            return wrong(format!("{name} isn't allowed as an ONBUILD trigger"));
        }
        _ => flags::none(&raw.flags)?,
    }
    let mut text = raw.rest.clone();
    for document in &raw.documents {
        text.push_str(&format!("\n{}{}", document.content, document.name));
    }
    Ok(Trigger { text })
}
