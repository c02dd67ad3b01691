//! Candidates for the word that is being typed: `berth __complete WORD...`, which the shells' scripts call.
//!
//! Each candidate is a line, perhaps with a tab and what it stands for. Two lines are instructions: [`FILES`], and
//! [`NO_SPACE`] before candidates that something follows without a space.

mod names;
mod values;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::grammar::{self, Found};
use crate::{context, flags};

/// The first argument that asks for candidates.
pub const FACE: &str = "__complete";
/// The shell is to offer files.
const FILES: &str = ":files";
/// No space follows the candidates.
const NO_SPACE: &str = ":nospace";
/// Longest that a daemon is waited for: nobody wants to wait for a key.
const PATIENCE: Duration = Duration::from_millis(400);

const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("../../../../contrib/completion/berth.bash")),
    ("fish", include_str!("../../../../contrib/completion/berth.fish")),
    ("zsh", include_str!("../../../../contrib/completion/_berth")),
];

/// The command that prints a shell's script.
pub fn command() -> Command {
    Command::new("completion")
        .about("Prints a script that completes commands, flags and names: bash, fish or zsh")
        .arg(Arg::new("shell").required(true))
}

/// Runs `completion`.
pub fn script(matches: &ArgMatches) -> Outcome {
    let shell = flags::text(matches, "shell").unwrap_or_default();
    match SCRIPTS.iter().find(|(name, _)| *name == shell) {
        Some((_, script)) => {
            out!("{script}");
            Ok(())
        }
        None => Err(Failure::new(format!("no completion for {shell:?}: must be one of bash, fish, zsh"))),
    }
}

/// What may stand in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing that is known.
    Nothing,
    /// One of these, each perhaps with a description after a tab.
    Words(Vec<String>),
    /// A file.
    Files,
    /// Names of objects.
    Names(Vec<Kind>),
}

/// Objects whose names the daemon, or the disk, knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All containers.
    Containers,
    /// Containers that run.
    Running,
    /// Containers that can be started.
    Stopped,
    /// Containers that are paused.
    Paused,
    /// Names of images.
    Images,
    /// Networks.
    Networks,
    /// Volumes.
    Volumes,
    /// Runtimes.
    Runtimes,
    /// Contexts, which are files of the user's.
    Contexts,
}

/// The place that is being typed.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    wanted: Wanted,
    /// What stands before the value in the same word: `--name=`, or `status=` of a filter.
    before: String,
    /// The beginning of the value.
    typed: String,
    /// Words that are there already and need not be offered again.
    there: Vec<String>,
}

/// Prints the candidates; failures give none.
pub async fn run(arguments: &[OsString]) -> Outcome {
    let program = grammar::program(arguments);
    let words = arguments.get(2..).unwrap_or_default();
    let place = place(program, words);
    let found = match &place.wanted {
        Wanted::Nothing | Wanted::Files => Vec::new(),
        Wanted::Words(words) => words.clone(),
        Wanted::Names(kinds) => {
            let context = daemon(program, words)?;
            let names = names::all(&context, kinds, &place.typed);
            tokio::time::timeout(PATIENCE, names).await.unwrap_or_default()
        }
    };
    if place.wanted == Wanted::Files {
        outln!("{FILES}");
    }
    out!("{}", lines(&place, found));
    Ok(())
}

/// The candidates that begin as what is typed.
fn lines(place: &Place, found: Vec<String>) -> String {
    let name = |candidate: &String| candidate.split('\t').next().unwrap_or_default().to_owned();
    let mut found: Vec<String> = found
        .into_iter()
        .filter(|candidate| candidate.starts_with(&place.typed) && !place.there.contains(&name(candidate)))
        .collect();
    found.sort_by(|a, b| crate::format::natural::compare(a, b));
    found.dedup();
    let open = |candidate: &String| name(candidate).ends_with(['=', ':', ',', '/']);
    let mut text = String::new();
    if found.iter().any(open) {
        text.extend([NO_SPACE, "\n"]);
    }
    for candidate in found {
        text.extend([&place.before, &candidate, "\n"]);
    }
    text
}

/// The daemon that the words name.
fn daemon(program: &str, words: &[OsString]) -> Outcome<Context> {
    let parser = Command::new("berth")
        .args(context::flags())
        .disable_help_flag(true)
        .ignore_errors(true)
        .allow_external_subcommands(true);
    let arguments: Vec<OsString> = std::iter::once(program.into()).chain(words.iter().cloned()).collect();
    let matches = parser.try_get_matches_from(&arguments).map_err(|error| Failure::new(error.to_string()))?;
    Context::new(&arguments, &matches)
}

fn place(program: &str, words: &[OsString]) -> Place {
    let (typed, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.to_str().unwrap_or_default(), before));
    let found = grammar::find(program, crate::command_line(), before);
    let of = |wanted, there| Place { wanted, before: String::new(), typed: typed.to_owned(), there };
    // At the root, words before the command may be a flag that waits for its value.
    let last = match found.rest.last() {
        None if found.path == program => before.last(),
        last => last,
    };
    let last = last.and_then(|word| word.to_str()).unwrap_or_default();
    let seen = operands(&found);
    if !seen.ended
        && let Some(arg) = grammar::value_flag(&found.command, last)
    {
        return value(&found, arg, "", typed);
    }
    if seen.ended {
        return of(Wanted::Files, Vec::new());
    }
    if let Some((name, start)) = typed.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
        return match grammar::long(&found.command, name) {
            Some(arg) => value(&found, arg, &format!("--{name}="), start),
            None => of(Wanted::Nothing, Vec::new()),
        };
    }
    if typed.starts_with('-') {
        return of(Wanted::Words(flag_words(&found.command)), Vec::new());
    }
    if found.command.has_subcommands() {
        let wanted =
            if found.rest.is_empty() { Wanted::Words(commands(&found.command)) } else { Wanted::Nothing };
        return of(wanted, Vec::new());
    }
    let wanted = operand(&found, &seen.words);
    let there = if repeats(&found.command) { seen.words } else { Vec::new() };
    of(wanted, there)
}

/// The place of a flag's value.
fn value(found: &Found, arg: &Arg, before: &str, typed: &str) -> Place {
    let name = arg.get_long().unwrap_or_default();
    // A filter's name is followed by what it asks for.
    if name == "filter"
        && let Some((key, start)) = typed.split_once('=')
    {
        let wanted = values::of_filter(found.command.get_name(), key);
        return Place {
            wanted,
            before: format!("{before}{key}="),
            typed: start.to_owned(),
            there: Vec::new(),
        };
    }
    if let Some(start) = typed.strip_prefix("container:") {
        let wanted = Wanted::Names(vec![Kind::Running]);
        return Place {
            wanted,
            before: format!("{before}container:"),
            typed: start.to_owned(),
            there: Vec::new(),
        };
    }
    let wanted = match grammar::takes_value(arg) {
        true => values::of_flag(&found.command, name),
        false => Wanted::Words(vec!["true".to_owned(), "false".to_owned()]),
    };
    Place { wanted, before: before.to_owned(), typed: typed.to_owned(), there: Vec::new() }
}

/// Words after a command that are no flags and no values of flags.
struct Operands {
    words: Vec<String>,
    /// All that follows belongs to a command in a container.
    ended: bool,
}

fn operands(found: &Found) -> Operands {
    let trailing = found.command.get_positionals().position(|arg| arg.get_id() == grammar::COMMAND);
    let mut seen = Operands { words: Vec::new(), ended: false };
    let mut words = found.rest.iter().filter_map(|word| word.to_str());
    let mut flags = true;
    while let Some(word) = words.next() {
        if flags && word == "--" {
            flags = false;
        } else if flags && word.starts_with('-') && word.len() > 1 {
            if grammar::takes_next(&found.command, word) {
                words.next();
            }
        } else {
            seen.words.push(word.to_owned());
            if trailing.is_some_and(|at| seen.words.len() >= at) {
                seen.ended = true;
                break;
            }
        }
    }
    seen
}

fn repeats(command: &Command) -> bool {
    command.get_positionals().any(|arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1))
}

fn described(name: String, about: Option<&clap::builder::StyledStr>) -> String {
    match about {
        Some(about) => format!("{name}\t{about}"),
        None => name,
    }
}

fn commands(command: &Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| described(command.get_name().to_owned(), command.get_about())).collect()
}

fn flag_words(command: &Command) -> Vec<String> {
    let mut words: Vec<String> = grammar::options(command)
        .filter_map(|arg| Some(described(format!("--{}", arg.get_long()?), arg.get_help())))
        .collect();
    words.push("--help\tPrint help".to_owned());
    words
}

/// What a command is about.
fn operand(found: &Found, seen: &[String]) -> Wanted {
    use Kind::{Containers, Contexts, Images, Networks, Paused, Running, Stopped, Volumes};
    let mut path = found.path.split(' ').skip(1);
    let (group, name) = match (path.next().unwrap_or_default(), path.next()) {
        (group, Some(name)) => (group, name),
        (name, None) => ("", name),
    };
    let names = |kinds: &[Kind]| Wanted::Names(kinds.to_vec());
    match (group, name, seen.len()) {
        ("", "completion", 0) => values::words(&["bash", "fish", "zsh"]),
        ("", "help", 0) => Wanted::Words(commands(&crate::command_line())),
        ("", "inspect", _) => names(&[Containers, Images, Networks, Volumes]),
        ("volume", "inspect" | "rm" | "remove", _)
        | ("volume", "export" | "import" | "rename" | "snapshot" | "update", 0) => names(&[Volumes]),
        ("image", "inspect" | "rm" | "remove" | "rmi", _) | ("", "rmi", _) => names(&[Images]),
        ("network", "inspect" | "rm" | "remove", _) | ("network", "connect" | "disconnect", 0) => {
            names(&[Networks])
        }
        ("network", "connect" | "disconnect", 1) => names(&[Containers]),
        ("context", "use" | "inspect" | "export" | "rm" | "update" | "show", _) => names(&[Contexts]),
        ("" | "container", "run" | "create", 0) => names(&[Images]),
        ("" | "image", "history" | "pull" | "push" | "images" | "ls" | "list", 0)
        | ("" | "image", "tag", _) => names(&[Images]),
        ("" | "image", "save", _) => names(&[Images]),
        ("" | "container", "stop" | "kill" | "pause" | "stats", _)
        | ("" | "container", "exec" | "attach" | "top" | "port", 0) => names(&[Running]),
        ("" | "image" | "builder", "build", 0) => Wanted::Files,
        ("" | "container", "start", _) => names(&[Stopped]),
        ("" | "container", "unpause", _) => names(&[Paused]),
        ("" | "container", "rm" | "remove" | "restart" | "wait" | "update", _)
        | ("container", "inspect", _)
        | ("" | "container", "logs" | "rename" | "diff" | "export" | "commit", 0) => names(&[Containers]),
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        place("berth", &words)
    }

    fn offered(line: &str) -> Vec<String> {
        let place = at(line);
        let Wanted::Words(words) = place.wanted.clone() else { panic!("{line}: {place:?}") };
        let lines = lines(&place, words);
        lines.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn commands_and_flags_are_offered() {
        assert_eq!(offered("re"), ["rename", "restart"]);
        assert!(offered("").contains(&"container".to_owned()) && !offered("").contains(&FACE.to_owned()));
        assert_eq!(offered("container pau"), ["pause"]);
        assert_eq!(offered("-H x container s"), ["start", "stats", "stop"]);
        assert_eq!(offered("run --memory-sw"), ["--memory-swap", "--memory-swappiness"]);
        assert_eq!(offered("ps --l"), ["--last", "--latest"]);
        assert_eq!(offered("completion "), ["bash", "fish", "zsh"]);
        assert_eq!(offered("help sta"), ["start", "stats"]);
    }

    #[test]
    fn values_of_flags_are_offered() {
        assert_eq!(offered("run --restart on"), [NO_SPACE, "on-failure", "on-failure:"]);
        assert_eq!(offered("run --restart=un"), ["--restart=unless-stopped"]);
        assert_eq!(offered("run -it --pull "), ["always", "missing", "never"]);
        assert_eq!(offered("stop -s SIGU"), ["SIGURG", "SIGUSR1", "SIGUSR2"]);
        assert_eq!(offered("ps --filter st"), [NO_SPACE, "status="]);
        assert_eq!(offered("ps -f status=p"), ["status=paused"]);
        assert_eq!(offered("ps --filter=status=p"), ["--filter=status=paused"]);
        assert_eq!(offered("run --rm=f"), ["--rm=false"]);
        assert_eq!(offered("run --log-driver j"), ["journald", "json-file"]);
        assert_eq!(at("run --env-file ").wanted, Wanted::Files);
        assert_eq!(at("run --network b").wanted, Wanted::Names(vec![Kind::Networks]));
        let joined = at("run --network container:w");
        assert_eq!(
            (joined.wanted, joined.before.as_str()),
            (Wanted::Names(vec![Kind::Running]), "container:")
        );
        assert_eq!(at("run --name ").wanted, Wanted::Nothing);
    }

    #[test]
    fn names_are_looked_for_where_they_belong() {
        for (line, wanted) in [
            ("stop w", Wanted::Names(vec![Kind::Running])),
            ("stop -t 5 a ", Wanted::Names(vec![Kind::Running])),
            ("start ", Wanted::Names(vec![Kind::Stopped])),
            ("container rm -f ", Wanted::Names(vec![Kind::Containers])),
            ("logs -f ", Wanted::Names(vec![Kind::Containers])),
            ("logs a ", Wanted::Nothing),
            ("run -it --name x ", Wanted::Names(vec![Kind::Images])),
            ("run busybox ", Wanted::Files),
            ("run busybox sh -", Wanted::Files),
            ("exec -e A=b ", Wanted::Names(vec![Kind::Running])),
            ("exec web ", Wanted::Files),
            ("image rm ", Wanted::Names(vec![Kind::Images])),
            ("inspect ", Wanted::Names(vec![Kind::Containers, Kind::Images, Kind::Networks, Kind::Volumes])),
            ("volume rm a ", Wanted::Names(vec![Kind::Volumes])),
            ("volume rename a ", Wanted::Nothing),
            ("volume snapshot a ", Wanted::Nothing),
            ("rename a ", Wanted::Nothing),
            ("flarp ", Wanted::Nothing),
        ] {
            assert_eq!(at(line).wanted, wanted, "{line}");
        }
        assert_eq!(at("stop one two t").there, ["one", "two"]);
    }

    #[test]
    fn the_scripts_call_the_program() {
        for (shell, script) in SCRIPTS {
            assert!(script.contains(FACE) && script.contains(FILES) && script.contains(NO_SPACE), "{shell}");
        }
    }
}
