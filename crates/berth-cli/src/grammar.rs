//! What a command line means to the tree of commands: which command, and what it takes.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction, Command};

/// Name of what follows a container or image: a command to run in it.
pub const COMMAND: &str = "command";

/// A command of the tree, with its flags, and how it was reached.
#[derive(Debug, Clone)]
pub struct Found {
    /// The command.
    pub command: Command,
    /// Its name with those before it: `berth container run`.
    pub path: String,
    /// The words after it.
    pub rest: Vec<OsString>,
}

/// The name that the program was started under.
pub fn program(arguments: &[OsString]) -> &'static str {
    let name = arguments.first().and_then(|name| Path::new(name).file_name());
    if name.is_some_and(|name| name == "docker") { "docker" } else { "berth" }
}

/// Finds the command that words, without the program's name, ask for.
pub fn find(program: &str, root: Command, words: &[OsString]) -> Found {
    let mut found = Found { command: root, path: program.to_owned(), rest: Vec::new() };
    make(&mut found.command);
    let mut left = words.iter();
    while let Some(word) = left.as_slice().first() {
        let text = word.to_str().unwrap_or_default();
        if text.starts_with('-') && text != "-" {
            if found.command.get_name() != "berth" || text == "--" {
                break;
            }
            left.next();
            if takes_next(&found.command, text) {
                left.next();
            }
            continue;
        }
        let Some(next) = found.command.find_subcommand(text).cloned() else { break };
        found.path = format!("{} {text}", found.path);
        found.command = next;
        make(&mut found.command);
        left.next();
    }
    found.rest = left.as_slice().to_vec();
    found
}

/// Makes the flags of a command, which it has only when it is built.
fn make(command: &mut Command) {
    command.build();
}

/// The words of a whole command line, program first, with `--` before a command for a container: what follows an image or a
/// container belongs to that command, whatever it looks like.
pub fn set_apart(root: &Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let Some(at) = command_start(root, &arguments) {
        arguments.insert(at, "--".into());
    }
    arguments
}

/// Where a command for a container begins, if it may be taken for flags.
fn command_start(root: &Command, arguments: &[OsString]) -> Option<usize> {
    let is_flag = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let mut command = root.clone();
    let (mut at, mut operands) = (1, 0);
    // Making a command's flags takes time: only for who has flags behind something else.
    while arguments.get(at..)?.iter().any(is_flag) {
        let text = arguments[at].to_str().unwrap_or_default();
        let trailing = command.get_positionals().position(|arg| arg.get_id() == COMMAND);
        if text == "--" {
            return None;
        } else if text.len() > 1 && text.starts_with('-') {
            at += usize::from(takes_next(&command, text));
        } else if let Some(next) = command.find_subcommand(text).cloned() {
            // Building the root would say so, and make the flags of all.
            command = next.disable_help_flag(true);
            make(&mut command);
        } else {
            operands += 1;
            if operands == trailing? {
                return Some(at + 1).filter(|at| arguments[*at..].iter().any(is_flag));
            }
        }
        at += 1;
    }
    None
}

/// Whether a flag takes the next word as its value.
pub fn takes_next(command: &Command, word: &str) -> bool {
    value_flag(command, word).is_some()
}

/// The flag whose value the next word is.
pub fn value_flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    if let Some(name) = word.strip_prefix("--") {
        return long(command, name).filter(|arg| takes_value(arg));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    while let Some(letter) = letters.next() {
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
        if takes_value(arg) {
            return Some(arg).filter(|_| letters.as_str().is_empty());
        }
    }
    None
}

/// The flag of this name.
pub fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
    })
}

/// Whether a flag needs a value, unlike a switch.
pub fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
        && arg.get_num_args().is_none_or(|count| count.min_values() > 0)
}

/// How few and how many words a command takes.
pub fn arity(command: &Command) -> (usize, Option<usize>) {
    let mut least = 0;
    let mut most = Some(0);
    for arg in command.get_positionals() {
        let count = arg.get_num_args().map_or((1, 1), |count| (count.min_values(), count.max_values()));
        if arg.is_required_set() {
            least += count.0.max(1);
        }
        most = most.filter(|_| count.1 < usize::MAX).map(|most: usize| most + count.1);
    }
    (least, most)
}

/// The line that shows what a command takes: `berth stop [OPTIONS] CONTAINER [CONTAINER...]`.
pub fn usage(found: &Found) -> String {
    let command = &found.command;
    let mut line = found.path.clone();
    if command.get_name() == "berth" {
        return line + " [OPTIONS] COMMAND";
    }
    if options(command).next().is_some() {
        line.push_str(" [OPTIONS]");
    }
    if command.has_subcommands() {
        return line + " COMMAND";
    }
    for arg in command.get_positionals() {
        line.push(' ');
        line.push_str(&operand(arg));
    }
    line
}

/// The flags that help shows.
pub fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_opts().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help")
}

fn operand(arg: &Arg) -> String {
    let name = match arg.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => arg.get_id().as_str().to_uppercase(),
    };
    let several = arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    match (arg.is_required_set(), several) {
        (true, _) if arg.get_id() == COMMAND => format!("{name} [ARG...]"),
        (false, _) if name == "COMMAND" => "[COMMAND] [ARG...]".to_owned(),
        (true, false) => name,
        (true, true) => format!("{name} [{name}...]"),
        (false, true) if arg.get_id() != COMMAND => format!("[{name}...]"),
        (false, _) => format!("[{name}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Found {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        find("berth", crate::command_line(), &words)
    }

    #[test]
    fn commands_are_found_behind_flags() {
        for (line, path, rest) in [
            ("-H unix:///x container ls -a", "berth container ls", 1),
            ("--debug run -it busybox sh", "berth run", 3),
            ("--host=x ps", "berth ps", 0),
            ("container flarp", "berth container", 1),
            ("flarp", "berth", 1),
        ] {
            let found = found(line);
            assert_eq!((found.path.as_str(), found.rest.len()), (path, rest), "{line}");
        }
    }

    #[test]
    fn what_follows_an_image_or_a_container_is_its_command() {
        for (line, expected) in [
            ("berth run --name x -it busybox -c ls", "berth run --name x -it busybox -- -c ls"),
            ("berth -H x run -e A=B busybox -- -c", "berth -H x run -e A=B busybox -- -- -c"),
            ("berth container run busybox --name x", "berth container run busybox -- --name x"),
            ("berth exec -u 1 c1 -v", "berth exec -u 1 c1 -- -v"),
            ("berth top c1 -o pid", "berth top c1 -- -o pid"),
            ("berth run --rm busybox true", "berth run --rm busybox true"),
            ("berth run -- busybox -c", "berth run -- busybox -c"),
            ("berth ps -a", "berth ps -a"),
            ("berth stop c1 -t 1", "berth stop c1 -t 1"),
            ("berth run", "berth run"),
        ] {
            let words = line.split(' ').map(OsString::from).collect();
            let words = set_apart(&crate::command_line(), words);
            assert_eq!(words.join(std::ffi::OsStr::new(" ")), expected);
        }
    }

    #[test]
    fn what_a_command_takes_reads_as_dockers() {
        for (line, usage_, arity_) in [
            ("run", "run [OPTIONS] IMAGE [COMMAND] [ARG...]", (1, None)),
            ("exec", "exec [OPTIONS] CONTAINER COMMAND [ARG...]", (2, None)),
            ("stop", "stop [OPTIONS] CONTAINER [CONTAINER...]", (1, None)),
            ("pause", "pause CONTAINER [CONTAINER...]", (1, None)),
            ("rename", "rename CONTAINER NEW_NAME", (2, Some(2))),
            ("port", "port CONTAINER [PRIVATE_PORT[/PROTO]]", (1, Some(2))),
            ("top", "top CONTAINER [ps OPTIONS]", (1, None)),
            ("stats", "stats [OPTIONS] [CONTAINER...]", (0, None)),
            ("ps", "ps [OPTIONS]", (0, Some(0))),
            ("images", "images [OPTIONS] [REPOSITORY[:TAG]]", (0, Some(1))),
            ("inspect", "inspect [OPTIONS] NAME|ID [NAME|ID...]", (1, None)),
            ("tag", "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (2, Some(2))),
        ] {
            let found = found(line);
            assert_eq!(usage(&found), format!("berth {usage_}"));
            assert_eq!(arity(&found.command), arity_, "{line}");
        }
    }
}
