//! Instructions as text that reads back as the same instruction.

use std::fmt;

use berth_oci::config::Healthcheck;

use super::document::Document;
use super::files::{Add, Copy, CopySource};
use super::instruction::{CommandLine, Instruction, Pair};
use super::run::{Network, Run, Security};

impl fmt::Display for Instruction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.keyword())?;
        match self {
            Instruction::Add(add) => self::add(add, out),
            Instruction::Arg(arguments) => {
                arguments.iter().try_for_each(|argument| match &argument.default {
                    Some(value) => write!(out, " {}={value}", argument.name),
                    None => write!(out, " {}", argument.name),
                })
            }
            Instruction::Cmd(line) | Instruction::Entrypoint(line) => write!(out, " {line}"),
            Instruction::Copy(copy) => self::copy(copy, out),
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                pairs.iter().try_for_each(|pair| write!(out, " {pair}"))
            }
            Instruction::Expose(words) => words.iter().try_for_each(|word| write!(out, " {word}")),
            Instruction::From(from) => {
                flag("platform", from.platform.as_deref(), out)?;
                write!(out, " {}", from.image)?;
                from.written.as_ref().map_or(Ok(()), |(word, name)| write!(out, " {word} {name}"))
            }
            Instruction::Healthcheck(check) => health(check, out),
            Instruction::OnBuild(trigger) => write!(out, " {}", trigger.text),
            Instruction::Run(run) => self::run(run, out),
            Instruction::Shell(words) | Instruction::Volume(words) => write!(out, " {}", json(words)),
            Instruction::Maintainer(text)
            | Instruction::StopSignal(text)
            | Instruction::User(text)
            | Instruction::Workdir(text) => write!(out, " {text}"),
        }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandLine::Exec(words) => out.write_str(&json(words)),
            CommandLine::Shell(line) => out.write_str(line),
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}{}", self.name, if self.legacy { " " } else { "=" }, self.value)
    }
}

fn json(words: &[String]) -> String {
    let texts = words.iter().map(|word| serde_json::Value::from(word.as_str()).to_string());
    format!("[{}]", texts.collect::<Vec<_>>().join(","))
}

/// A flag, what has a meaning in its value escaped.
fn flag(name: &str, value: Option<&str>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    write!(out, " --{name}=")?;
    for character in value.chars() {
        if character.is_whitespace() || matches!(character, '"' | '\'' | '\\') {
            out.write_str("\\")?;
        }
        write!(out, "{character}")?;
    }
    Ok(())
}

fn switch(name: &str, value: Option<bool>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    flag(name, value.map(|value| if value { "true" } else { "false" }), out)
}

fn run(run: &Run, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for mount in &run.mounts {
        flag("mount", Some(&mount.text), out)?;
    }
    if run.network != Network::Default {
        flag("network", Some(run.network.name()), out)?;
    }
    if run.security == Security::Insecure {
        flag("security", Some("insecure"), out)?;
    }
    write!(out, " {}", run.command)?;
    run.documents.iter().try_for_each(|document| content(document, out))
}

/// Lines of a here-document and its end.
fn content(document: &Document, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(out, "\n{}{}", document.content, document.name)
}

fn copy(copy: &Copy, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    flag("from", copy.from.as_deref(), out)?;
    flag("chown", copy.chown.as_deref(), out)?;
    flag("chmod", copy.chmod.as_deref(), out)?;
    switch("link", copy.link.then_some(true), out)?;
    switch("parents", copy.parents.then_some(true), out)?;
    copy.exclude.iter().try_for_each(|pattern| flag("exclude", Some(pattern), out))?;
    sources(&copy.sources, &copy.destination, out)
}

fn add(add: &Add, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    flag("chown", add.chown.as_deref(), out)?;
    flag("chmod", add.chmod.as_deref(), out)?;
    switch("link", add.link.then_some(true), out)?;
    flag("checksum", add.checksum.as_deref(), out)?;
    switch("keep-git-dir", add.keep_git_dir, out)?;
    switch("unpack", add.unpack, out)?;
    add.exclude.iter().try_for_each(|pattern| flag("exclude", Some(pattern), out))?;
    sources(&add.sources, &add.destination, out)
}

fn sources(sources: &[CopySource], destination: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let documents = sources.iter().filter_map(|source| match source {
        CopySource::Document(document) => Some(document),
        CopySource::Path(_) => None,
    });
    let mut words: Vec<String> = sources
        .iter()
        .map(|source| match source {
            CopySource::Path(path) => path.clone(),
            CopySource::Document(document) => document.opening(),
        })
        .collect();
    words.push(destination.to_owned());
    let odd = |word: &String| word.is_empty() || word.contains(char::is_whitespace) || word.contains("<<");
    let has_documents = documents.clone().next().is_some();
    if !has_documents
        && (words.iter().any(odd) || words.first().is_some_and(|word| word.starts_with(['[', '-'])))
    {
        return write!(out, " {}", json(&words));
    }
    write!(out, " {}", words.join(" "))?;
    documents.into_iter().try_for_each(|document| content(document, out))
}

fn health(check: &Healthcheck, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (name, time) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        flag(name, time.map(|time| format!("{time}ns")).as_deref(), out)?;
    }
    flag("retries", check.retries.map(|count| count.to_string()).as_deref(), out)?;
    match check.test.split_first() {
        Some((form, words)) if form == "CMD" => write!(out, " CMD {}", json(words)),
        Some((form, words)) if form == "CMD-SHELL" => write!(out, " CMD {}", words.join(" ")),
        _ => write!(out, " NONE"),
    }
}
