//! What is said about a command line that makes no sense, in Docker's words.

use std::error::Error as _;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::grammar::{self, Found};
use crate::help;

/// Docker's exit code for flags that it does not understand.
const FLAGS: u8 = 125;
/// Its exit code for anything else that it does not understand.
const WORDS: u8 = 1;

/// Prints help, version or an error.
pub fn report(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let words = arguments.get(1..).unwrap_or_default();
    let program = grammar::program(arguments);
    match error.kind() {
        ErrorKind::DisplayVersion => {
            outln!(
                "{} version {}",
                if program == "docker" { "Docker" } else { "berth" },
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand => {
            let found = grammar::find(program, crate::command_line(), words);
            out!("{}", help::text(&found));
            if found.path == program {
                out!("{}", crate::plugins::help(arguments));
            }
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let found = grammar::find(program, crate::command_line(), words);
    let (message, code) = message(error, &found, words);
    // A closed stderr does not matter.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}

/// The whole message, and the exit code.
fn message(error: &clap::Error, found: &Found, words: &[OsString]) -> (String, u8) {
    let path = &found.path;
    if let Some(told) = flag_error(error, found, words) {
        let usage = grammar::usage(found);
        let more = if path.contains(' ') { "" } else { " [ARG...]" };
        return (
            format!("{told}\n\nUsage:  {usage}{more}\n\nRun '{path} --help' for more information"),
            FLAGS,
        );
    }
    let program = path.split(' ').next().unwrap_or_default();
    if error.kind() == ErrorKind::InvalidSubcommand {
        let name = found.rest.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        return (unknown_command(path, &name), WORDS);
    }
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let (takes, see) = match grammar::arity(&found.command) {
        (0, Some(0)) => ("accepts no arguments".to_owned(), "Run"),
        (least, Some(most)) if least == most => (format!("requires {most} {}", plural(most)), "Run"),
        (0, Some(most)) => (format!("requires at most {most} {}", plural(most)), "Run"),
        (least, Some(most)) => {
            (format!("requires at least {least} and at most {most} {}", plural(most)), "Run")
        }
        (least, None) => (format!("requires at least {least} {}", plural(least)), "See"),
    };
    let usage = grammar::usage(found);
    (
        format!(
            "{program}: '{path}' {takes}\n\nUsage:  {usage}\n\n{see} '{path} --help' for more information"
        ),
        WORDS,
    )
}

/// What is said about a command that nobody knows, below the one at `path`.
pub fn unknown_command(path: &str, name: &str) -> String {
    let program = path.split(' ').next().unwrap_or_default();
    let usage = if path == program { String::new() } else { format!("\n\nUsage:  {path}") };
    format!("{program}: unknown command: {path} {name}{usage}\n\nRun '{path} --help' for more information")
}

/// What is wrong with a flag, if it is one.
fn flag_error(error: &clap::Error, found: &Found, words: &[OsString]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let named = context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if named.starts_with("--") => {
            Some(format!("unknown flag: {}", named.split(['=', ' ']).next().unwrap_or_default()))
        }
        ErrorKind::UnknownArgument if named.starts_with('-') => {
            let letter = named.chars().nth(1).unwrap_or_default();
            Some(format!("unknown shorthand flag: '{letter}' in {named}"))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if !value.is_empty() => {
            let reason = error.source().map_or_else(String::new, |source| format!(": {source}"));
            Some(format!("invalid argument {value:?} for {:?} flag{reason}", both_names(found, &named)))
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::ValueValidation => {
            let last = words.last().and_then(|word| word.to_str()).unwrap_or_default();
            Some(match last.strip_prefix('-').filter(|letters| !letters.starts_with('-')) {
                Some(letters) => {
                    let letter = letters.chars().last().unwrap_or_default();
                    format!("flag needs an argument: '{letter}' in -{letters}")
                }
                None => format!("flag needs an argument: {}", plain(&named)),
            })
        }
        ErrorKind::TooManyValues
        | ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::TooFewValues
        | ErrorKind::InvalidSubcommand => None,
        _ => Some(error.to_string()),
    }
}

/// `--memory` for what clap calls `--memory <BYTES>`.
fn plain(flag: &str) -> &str {
    flag.split([' ', '=', '[']).next().unwrap_or_default()
}

/// `-m, --memory`.
fn both_names(found: &Found, flag: &str) -> String {
    let flag = plain(flag);
    let arg = flag.strip_prefix("--").and_then(|name| grammar::long(&found.command, name));
    match arg.and_then(clap::Arg::get_short) {
        Some(letter) => format!("-{letter}, {flag}"),
        None => flag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> (String, u8) {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = crate::command_line().try_get_matches_from(&arguments).unwrap_err();
        let words = &arguments[1..];
        message(&error, &grammar::find("berth", crate::command_line(), words), words)
    }

    #[test]
    fn mistakes_are_told_as_docker_does() {
        let run = "\n\nUsage:  berth run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'berth run --help' for more information";
        for (line, message, code) in [
            ("berth run --no-such-flag x", format!("unknown flag: --no-such-flag{run}"), 125),
            ("berth run -dZ x", format!("unknown shorthand flag: 'Z' in -Z{run}"), 125),
            ("berth run --name", format!("flag needs an argument: --name{run}"), 125),
            ("berth run -e", format!("flag needs an argument: 'e' in -e{run}"), 125),
            (
                "berth run --memory 12q x",
                format!("invalid argument \"12q\" for \"-m, --memory\" flag: invalid suffix: 'q'{run}"),
                125,
            ),
            (
                "berth container flarp",
                "berth: unknown command: berth container flarp\n\nUsage:  berth container\n\n\
                 Run 'berth container --help' for more information"
                    .to_owned(),
                1,
            ),
            (
                "berth container stop",
                "berth: 'berth container stop' requires at least 1 argument\n\n\
                 Usage:  berth container stop [OPTIONS] CONTAINER [CONTAINER...]\n\n\
                 See 'berth container stop --help' for more information"
                    .to_owned(),
                1,
            ),
            (
                "berth ps x",
                "berth: 'berth ps' accepts no arguments\n\nUsage:  berth ps [OPTIONS]\n\n\
                 Run 'berth ps --help' for more information"
                    .to_owned(),
                1,
            ),
            (
                "berth port a b c",
                "berth: 'berth port' requires at least 1 and at most 2 arguments\n\n\
                 Usage:  berth port CONTAINER [PRIVATE_PORT[/PROTO]]\n\n\
                 Run 'berth port --help' for more information"
                    .to_owned(),
                1,
            ),
        ] {
            assert_eq!(told(line), (message, code), "{line}");
        }
        // The program's own could be plugins.
        let text = "berth: unknown command: berth flarp\n\nRun 'berth --help' for more information";
        assert_eq!(unknown_command("berth", "flarp"), text);
    }
}
