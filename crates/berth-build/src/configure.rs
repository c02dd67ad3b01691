//! What instructions make of an image's configuration. Pure: a configuration goes in, another one comes out.

mod port;
mod show;
mod signal;

use berth_archive::ignore::clean;
use berth_oci::config::{Healthcheck, ImageConfig};
use serde_json::json;

use crate::dockerfile::{
    Add, CommandLine, Copy, CopySource, Document, Instruction, Mount, Network, Pair, Run, Security,
};
use crate::error::{Error, Fault, Result, wrong};
use crate::expand::{Expanded, Variables, Words};
use crate::variables::{Given, Globals, Scope};

pub use port::{Exposed, exposed};
pub use show::arguments as shown_words;

/// What runs a line if the image names no shell.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Where scripts are seen that are here-documents, as in BuildKit.
const SCRIPTS: &str = "/dev/pipes/";
/// Where programs are if the base says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image while its stage is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The configuration so far. Its environment is that of `scope` after each instruction.
    pub image: ImageConfig,
    /// The variables so far.
    pub scope: Scope,
    /// Whether this stage has a command of its own, which an entry point does not take away.
    commanded: bool,
}

/// What an instruction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The instruction, its variables replaced.
    pub instruction: Instruction,
    /// The entry for the image's history; none for `COPY` and `ADD`, whose entry names what was copied: see
    /// [`Draft::no_operation`].
    pub history: Option<String>,
    /// Variables that were used and are not set.
    pub missing: Vec<String>,
}

/// A file that is there for one step alone, and can be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where it is seen.
    pub path: String,
    /// What is in it.
    pub content: String,
}

/// What outlives a single instruction.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// What the build was told.
    pub given: &'a Given,
    /// Variables of `FROM`.
    pub globals: &'a Globals,
    /// How words are read.
    pub words: Words,
}

/// Replaces variables, and remembers those that are not set.
struct Expander<'a> {
    words: Words,
    scope: &'a dyn Variables,
    missing: Vec<String>,
}

impl Expander<'_> {
    fn all(&mut self, text: &str, words: Words) -> Result<Expanded> {
        let made = words.expand(text, self.scope)?;
        self.missing.extend(made.missing.iter().cloned());
        Ok(made)
    }

    fn word(&mut self, text: &str) -> Result<String> {
        Ok(self.all(text, self.words)?.text)
    }

    fn option(&mut self, text: &Option<String>) -> Result<Option<String>> {
        text.as_deref().map(|text| self.word(text)).transpose()
    }

    fn list(&mut self, texts: &[String]) -> Result<Vec<String>> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    fn pairs(&mut self, pairs: &[Pair]) -> Result<Vec<Pair>> {
        let pair = |pair: &Pair| {
            Ok(Pair { name: self.word(&pair.name)?, value: self.word(&pair.value)?, legacy: pair.legacy })
        };
        pairs.iter().map(pair).collect()
    }

    fn sources(&mut self, sources: &[CopySource]) -> Result<Vec<CopySource>> {
        let source = |source: &CopySource| {
            Ok(match source {
                CopySource::Path(path) => CopySource::Path(self.word(path)?),
                CopySource::Document(document) if document.expand => {
                    let content = self.all(&document.content, Words::document())?.text;
                    CopySource::Document(Document { content, ..document.clone() })
                }
                CopySource::Document(document) => CopySource::Document(document.clone()),
            })
        };
        sources.iter().map(source).collect()
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<Instruction> {
        Ok(match instruction {
            Instruction::Env(pairs) => Instruction::Env(self.pairs(pairs)?),
            Instruction::Label(pairs) => Instruction::Label(self.pairs(pairs)?),
            Instruction::Copy(copy) => Instruction::Copy(Copy {
                sources: self.sources(&copy.sources)?,
                destination: self.word(&copy.destination)?,
                chown: self.option(&copy.chown)?,
                chmod: self.option(&copy.chmod)?,
                ..copy.clone()
            }),
            Instruction::Add(add) => Instruction::Add(Add {
                sources: self.sources(&add.sources)?,
                destination: self.word(&add.destination)?,
                chown: self.option(&add.chown)?,
                chmod: self.option(&add.chmod)?,
                checksum: self.option(&add.checksum)?,
                ..add.clone()
            }),
            Instruction::Expose(ports) => {
                let mut found = Vec::new();
                for port in ports {
                    found.extend(self.all(port, self.words)?.words);
                }
                Instruction::Expose(found)
            }
            Instruction::Volume(paths) => Instruction::Volume(self.list(paths)?),
            Instruction::User(user) => Instruction::User(self.word(user)?),
            Instruction::Workdir(path) => Instruction::Workdir(self.word(path)?),
            Instruction::StopSignal(name) => Instruction::StopSignal(self.word(name)?),
            // Their text is for a shell or for later; names of arguments and defaults are the scope's business.
            other => other.clone(),
        })
    }
}

impl Draft {
    /// A stage at its beginning: upon `base`, or upon nothing. The instructions that the base's `ONBUILD` left are taken
    /// out of the configuration and returned.
    pub fn new(base: ImageConfig, given: &Given, inherited: Option<&Scope>) -> (Draft, Vec<String>) {
        let mut image = base;
        let triggers = image.config.on_build.take().unwrap_or_default();
        if image.config.env.value("PATH").is_none() {
            image.config.env.push(PATH.to_owned());
        }
        let scope = Scope::new(given, image.config.env.clone(), inherited);
        (Draft { image, scope, commanded: false }, triggers)
    }

    /// An image that is changed and not built: nothing is added to it or taken out.
    pub fn bare(image: ImageConfig) -> Draft {
        let scope = Scope::new(&Given::default(), image.config.env.clone(), None);
        Draft { image, scope, commanded: false }
    }

    /// Carries out an instruction, as far as configuration and variables go.
    ///
    /// # Errors
    /// Variables that cannot be put in, values that make no sense. The draft is unchanged then.
    pub fn apply(&mut self, instruction: &Instruction, settings: Settings<'_>) -> Result<Applied> {
        let mut expander = Expander { words: settings.words, scope: &self.scope, missing: Vec::new() };
        let instruction = expander.instruction(instruction)?;
        let missing = expander.missing;
        let mut changed = self.clone();
        let history = changed.change(&instruction, settings)?;
        changed.image.config.env.clone_from(&changed.scope.environment);
        *self = changed;
        Ok(Applied { instruction, history, missing })
    }

    fn change(&mut self, instruction: &Instruction, settings: Settings<'_>) -> Result<Option<String>> {
        let config = &mut self.image.config;
        let text = match instruction {
            Instruction::Cmd(line) => {
                let words = command(line, config.shell.as_deref());
                let empty = matches!(line, CommandLine::Exec(words) if words.is_empty())
                    || matches!(line, CommandLine::Shell(text) if text.is_empty());
                self.commanded |= !empty;
                let text = format!("CMD {}", show::arguments(&words));
                // An empty one takes the base's away.
                config.cmd = Some(words).filter(|words| !words.is_empty());
                text
            }
            Instruction::Entrypoint(line) => {
                let words = match line {
                    CommandLine::Shell(text) if text.is_empty() => Vec::new(),
                    line => command(line, config.shell.as_deref()),
                };
                let text = format!("ENTRYPOINT {}", show::arguments(&words));
                // An empty one takes the base's away.
                config.entrypoint = Some(words).filter(|words| !words.is_empty());
                if !self.commanded {
                    config.cmd = None;
                }
                text
            }
            Instruction::Env(pairs) => {
                pairs.iter().for_each(|pair| self.scope.set(&pair.name, &pair.value));
                show::pairs("ENV", pairs)
            }
            Instruction::Label(pairs) => {
                let labels = pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone()));
                config.labels.extend(labels);
                show::pairs("LABEL", pairs)
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    let found = exposed(port).map_err(|text| Error::new(Fault::Instruction(text)))?;
                    config.exposed_ports.extend(found.ports().map(|port| (port, json!({}))));
                }
                format!("EXPOSE {}", ports.join(" "))
            }
            Instruction::Healthcheck(check) => {
                config.healthcheck = Some(check.clone());
                format!("HEALTHCHECK {}", show::health(check))
            }
            Instruction::OnBuild(trigger) => {
                config.on_build.get_or_insert_default().push(trigger.text.clone());
                format!("ONBUILD {}", trigger.text)
            }
            Instruction::StopSignal(name) => {
                if !signal::is_one(name) {
                    return wrong(format!("invalid signal: {name}"));
                }
                config.stop_signal = Some(name.clone());
                format!("STOPSIGNAL {name}")
            }
            Instruction::User(user) => {
                config.user.clone_from(user);
                format!("USER {user}")
            }
            Instruction::Volume(paths) => {
                if paths.iter().any(String::is_empty) {
                    return wrong("VOLUME specified can not be an empty string");
                }
                config.volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
                format!("VOLUME [{}]", paths.join(" "))
            }
            Instruction::Workdir(path) => {
                config.working_dir = directory(&config.working_dir, path)?;
                let text = format!("WORKDIR {}", config.working_dir);
                return Ok(Some(self.no_operation(&text)));
            }
            Instruction::Shell(words) => {
                config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::Maintainer(name) => {
                self.image.author.clone_from(name);
                format!("MAINTAINER {name}")
            }
            Instruction::Arg(_) => self.declare(instruction, settings)?,
            Instruction::Run(run) => return Ok(Some(self.run_history(run))),
            Instruction::Copy(_) | Instruction::Add(_) | Instruction::From(_) => return Ok(None),
        };
        // Docker joins its words with a space, and one of them ends with one.
        Ok(Some(self.no_operation(&format!(" {text}"))))
    }

    fn declare(&mut self, instruction: &Instruction, settings: Settings<'_>) -> Result<String> {
        let Instruction::Arg(arguments) = instruction else { return Ok(String::new()) };
        let mut texts = Vec::new();
        for argument in arguments {
            // The history shows defaults and never what the build was given: that may be a secret.
            let default = argument.default.as_deref();
            let shown = default.and_then(|text| Some(settings.words.expand(text, &self.scope).ok()?.text));
            texts.push(match shown {
                Some(value) => format!("{}={value}", argument.name),
                None => argument.name.clone(),
            });
            self.scope.declare(argument, settings.given, settings.globals, settings.words)?;
        }
        Ok(format!("ARG {}", texts.join(" ")))
    }

    /// An entry of the history that no program stands behind.
    pub fn no_operation(&self, comment: &str) -> String {
        format!("{} #(nop) {comment}", shell(self.image.config.shell.as_deref()).join(" "))
    }

    /// The words that a step executes, as the history has them.
    pub fn command(&self, run: &Run) -> Vec<String> {
        let sole = sole_document(run).map(|document| CommandLine::Shell(document.content.clone()));
        let line = sole.unwrap_or_else(|| match (&run.command, run.documents.as_slice()) {
            // The shell reads the documents after the line.
            (CommandLine::Shell(text), documents) if !documents.is_empty() => {
                let parts = documents.iter().map(|one| format!("\n{}{}", one.content, one.name));
                CommandLine::Shell(text.clone() + &parts.collect::<String>())
            }
            (line, _) => line.clone(),
        });
        command(&line, self.image.config.shell.as_deref())
    }

    /// The words that a step executes, and the file that they name: of a here-document that says what reads it.
    pub fn program(&self, run: &Run) -> (Vec<String>, Option<Script>) {
        let document = sole_document(run).filter(|document| document.content.starts_with("#!"));
        let Some(document) = document else { return (self.command(run), None) };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let is_name = !document.name.is_empty() && document.name.chars().all(is_plain);
        let path = format!("{SCRIPTS}{}", if is_name { document.name.as_str() } else { "script" });
        let line = CommandLine::Shell(path.clone());
        let script = Script { path, content: document.content.clone() };
        (command(&line, self.image.config.shell.as_deref()), Some(script))
    }

    /// Whether the history says all that a step depends on: what is mounted and how it is confined does not show there, nor
    /// where the words of a program end that has no shell.
    pub fn is_told(&self, run: &Run) -> bool {
        let plain =
            run.mounts.is_empty() && run.network == Network::Default && run.security == Security::Sandbox;
        let shell = shell(self.image.config.shell.as_deref());
        let words = match &run.command {
            CommandLine::Shell(_) => true,
            CommandLine::Exec(words) => {
                let one = |word: &String| !word.is_empty() && !word.contains(char::is_whitespace);
                words.iter().all(one) && !words.starts_with(&shell)
            }
        };
        plain && words
    }

    /// The mounts of a step, their variables replaced.
    ///
    /// # Errors
    /// Values that make no sense.
    pub fn mounts(&self, run: &Run, words: Words) -> Result<Vec<Mount>> {
        let word = |text: &str| Ok(words.expand(text, &self.scope)?.text);
        run.mounts.iter().map(|mount| mount.resolve(word)).collect()
    }

    fn run_history(&self, run: &Run) -> String {
        let arguments = self.scope.visible_arguments();
        let mut words = Vec::new();
        if !arguments.is_empty() {
            words.push(format!("|{}", arguments.len()));
            words.extend(arguments);
        }
        words.extend(self.command(run));
        words.join(" ")
    }

    /// `--label`: added at the end, its text as it is.
    pub fn label(&mut self, name: &str, value: &str) -> String {
        self.image.config.labels.insert(name.to_owned(), value.to_owned());
        self.no_operation(&format!(" LABEL {name}={value}"))
    }

    /// The health check that is replaced by the next one, if that is worth a word.
    pub fn healthcheck(&self) -> Option<&Healthcheck> {
        let set = |check: &&Healthcheck| check.test.first().is_some_and(|form| form != "NONE");
        self.image.config.healthcheck.as_ref().filter(set)
    }
}

/// The document that is all that a step runs.
fn sole_document(run: &Run) -> Option<&Document> {
    match (&run.command, run.documents.as_slice()) {
        (CommandLine::Shell(text), [document]) if text.trim() == document_word(text) => Some(document),
        _ => None,
    }
}

/// The text if it is nothing but the opening of a here-document.
fn document_word(text: &str) -> &str {
    let text = text.trim();
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<").map(|rest| rest.strip_prefix('-').unwrap_or(rest).trim_start());
    let one = |rest: &str| {
        let quoted = |quote| rest.len() > 1 && rest.starts_with(quote) && rest.ends_with(quote);
        quoted('"') || quoted('\'') || !rest.contains(|c: char| c.is_whitespace() || "|&;<>()".contains(c))
    };
    if rest.is_some_and(one) { text } else { "" }
}

fn shell(own: Option<&[String]>) -> Vec<String> {
    match own {
        Some(words) if !words.is_empty() => words.to_vec(),
        _ => SHELL.map(str::to_owned).to_vec(),
    }
}

fn command(line: &CommandLine, own: Option<&[String]>) -> Vec<String> {
    match line {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => {
            let text = Some(text.clone()).filter(|text| !text.is_empty());
            shell(own).into_iter().chain(text).collect()
        }
    }
}

/// A working directory: `path`, seen from `current` if it does not begin at the root.
fn directory(current: &str, path: &str) -> Result<String> {
    match path {
        "" => wrong("cannot normalize nothing"),
        path if path.starts_with('/') => Ok(clean(path)),
        path => Ok(clean(&format!("/{current}/{path}"))),
    }
}

#[cfg(test)]
mod tests;
