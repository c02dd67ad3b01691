//! Help, laid out as Docker's.

use std::ffi::OsString;

use clap::{Arg, Command};

use crate::failure::{Failure, Outcome};
use crate::grammar::{self, Found};
use crate::session::terminal;

/// Columns of help that goes to no terminal.
const COLUMNS: usize = 80;
/// Fewest columns that a text is wrapped to.
const LEAST: usize = 20;
/// What most people need first.
const COMMON: [&str; 8] = ["run", "exec", "ps", "pull", "images", "monitor", "version", "info"];

/// Runs `help`.
pub fn run(program: &'static str, topic: &[String]) -> Outcome {
    let words: Vec<OsString> = topic.iter().map(OsString::from).collect();
    let found = grammar::find(program, crate::command_line(), &words);
    if !found.rest.is_empty() {
        let rest: Vec<_> = found.rest.iter().map(|word| word.to_string_lossy()).collect();
        return Err(Failure::new(format!("unknown help topic: {}", rest.join(" "))));
    }
    out!("{}", text(&found));
    Ok(())
}

/// The help of a command.
pub fn text(found: &Found) -> String {
    let columns = terminal::size().map_or(COLUMNS, |(_, columns)| usize::from(columns).clamp(40, 120));
    laid_out(found, columns)
}

fn laid_out(found: &Found, columns: usize) -> String {
    let command = &found.command;
    let mut text = format!("Usage:  {}\n", grammar::usage(found));
    if let Some(about) = command.get_about() {
        text.push_str(&format!("\n{about}\n"));
    }
    let aliases = aliases(found);
    if !aliases.is_empty() {
        text.push_str(&format!("\nAliases:\n  {}\n", aliases.join(", ")));
    }
    for (heading, commands) in sections(command) {
        let entries = commands.iter().map(|command| {
            (
                format!("  {}", command.get_name()),
                command.get_about().map(ToString::to_string).unwrap_or_default(),
            )
        });
        text.push_str(&section(heading, entries.collect(), columns));
    }
    let root = command.get_name() == "berth";
    let entries = grammar::options(command).map(|arg| (flag(arg), described(arg))).collect();
    text.push_str(&section(if root { "Global Options" } else { "Options" }, entries, columns));
    let operands = command
        .get_positionals()
        .filter_map(|arg| Some((format!("  {}", name_of(arg)), arg.get_help()?.to_string())));
    text.push_str(&section("Arguments", operands.collect(), columns));
    if command.has_subcommands() {
        text.push_str(&format!("\nRun '{} COMMAND --help' for more information on a command.\n", found.path));
    }
    text
}

/// The groups of commands that are shown.
fn sections(command: &Command) -> Vec<(&'static str, Vec<&Command>)> {
    let mut shown: Vec<&Command> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    if command.get_name() != "berth" {
        shown.sort_by_key(|command| command.get_name().to_owned());
        return vec![("Commands", shown)];
    }
    let named = |name: &&str| shown.iter().find(|command| command.get_name() == *name).copied();
    let common: Vec<&Command> = COMMON.iter().filter_map(named).collect();
    let mut rest: Vec<&Command> =
        shown.iter().filter(|command| !COMMON.contains(&command.get_name())).copied().collect();
    rest.sort_by_key(|command| command.get_name().to_owned());
    let (groups, others) = rest.into_iter().partition(|command| command.is_subcommand_required_set());
    vec![("Common Commands", common), ("Management Commands", groups), ("Commands", others)]
}

/// All names of a command, if it has several.
fn aliases(found: &Found) -> Vec<String> {
    let (parent, name) = found.path.rsplit_once(' ').unwrap_or(("", &found.path));
    let mut names: Vec<&str> = vec![found.command.get_name()];
    names.extend(found.command.get_all_aliases());
    if names.len() < 2 || parent.is_empty() {
        return Vec::new();
    }
    names.sort_by_key(|other| *other != name);
    names.iter().map(|name| format!("{parent} {name}")).collect()
}

fn name_of(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => arg.get_id().as_str().to_uppercase(),
    }
}

/// `  -m, --memory BYTES`.
pub fn flag(arg: &Arg) -> String {
    let letter = arg.get_short().map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
    let value = if grammar::takes_value(arg) { format!(" {}", name_of(arg)) } else { String::new() };
    format!("  {letter}--{}{value}", arg.get_long().unwrap_or_default())
}

/// The help of a flag, and its default.
pub fn described(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match arg.get_default_values().first().and_then(|value| value.to_str()) {
        None | Some("" | "false" | "0") => help,
        Some(default)
            if grammar::takes_value(arg)
                && arg.get_value_parser().type_id() == std::any::TypeId::of::<String>() =>
        {
            format!("{help} (default {default:?})")
        }
        Some(default) => format!("{help} (default {default})"),
    }
}

/// Entries in two columns under a heading, the second wrapped.
fn section(heading: &str, entries: Vec<(String, String)>, columns: usize) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let first = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default() + 2;
    let mut text = format!("\n{heading}:\n");
    for (name, about) in entries {
        let mut lines = wrap(&about, columns.saturating_sub(first).max(LEAST)).into_iter();
        text.push_str(format!("{name:first$}{}", lines.next().unwrap_or_default()).trim_end());
        text.push('\n');
        for line in lines {
            text.push_str(&format!("{:first$}{line}\n", ""));
        }
    }
    text
}

fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_laid_out_as_dockers() {
        let found = grammar::find("berth", crate::command_line(), &["container".into(), "ls".into()]);
        let text = laid_out(&found, 80);
        assert!(text.starts_with("Usage:  berth container ls [OPTIONS]\n\nLists containers\n"), "{text}");
        assert!(
            text.contains("\nAliases:\n  berth container ls, berth container ps, berth container list\n"),
            "{text}"
        );
        assert!(text.contains("\n  -n, --last NUMBER      "), "{text}");
        assert!(text.contains("-1)"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        fn check(command: &Command, path: &str) {
            for arg in command.get_opts().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{path} --{:?}", arg.get_long());
            }
            for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(command.get_about().is_some(), "{path} {}", command.get_name());
                check(command, &format!("{path} {}", command.get_name()));
            }
        }
        let mut root = crate::command_line();
        root.build();
        check(&root, "berth");
    }

    #[test]
    fn texts_wrap_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("immeasurable x", 4), ["immeasurable", "x"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
