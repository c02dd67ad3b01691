//! What is said about a command line that makes no sense, in Docker's words.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Docker's exit code for a command line that it does not understand.
const USAGE: u8 = 125;

/// Prints help, version or an error.
pub fn report(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // A closed output is no failure.
        let _ = error.print();
        if error.kind() == ErrorKind::DisplayHelp && command_path(arguments) == "berth" {
            out!("{}", crate::plugins::help(arguments));
        }
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::FAILURE;
    }
    let path = command_path(arguments);
    let (message, code) = message(error, &path);
    let _ = writeln!(std::io::stderr(), "{message}\n\nRun '{path} --help' for more information");
    ExitCode::from(code)
}

fn message(error: &clap::Error, path: &str) -> (String, u8) {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let flag = || context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if flag().starts_with("--") => {
            let flag = flag();
            (format!("unknown flag: {}", flag.split(['=', ' ']).next().unwrap_or_default()), USAGE)
        }
        ErrorKind::UnknownArgument if flag().starts_with('-') => {
            let letter = flag().chars().nth(1).unwrap_or_default();
            (format!("unknown shorthand flag: '{letter}' in {}", flag()), USAGE)
        }
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues => {
            (format!("{path}: unexpected argument {:?}", flag()), 1)
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            (unknown_command(path, &name), 1)
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if !value.is_empty() => {
            let reason =
                std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
            (format!("invalid argument {value:?} for {:?} flag{reason}", shown(&flag())), USAGE)
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals => {
            (format!("flag needs an argument: {}", shown(&flag())), USAGE)
        }
        ErrorKind::MissingRequiredArgument => {
            (format!("'{path}' requires at least 1 argument\n\nUsage:  {path} {}", missing(error)), 1)
        }
        _ => (error.to_string(), USAGE),
    }
}

/// What is said about a command that nobody knows.
pub fn unknown_command(path: &str, name: &str) -> String {
    format!("{path}: '{name}' is not a berth command")
}

/// `-m, --memory` for what clap calls `--memory <BYTES>`.
fn shown(flag: &str) -> String {
    flag.split([' ', '=', '[']).next().unwrap_or_default().to_owned()
}

fn missing(error: &clap::Error) -> String {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(names)) => names.join(" "),
        Some(ContextValue::String(name)) => name.clone(),
        _ => String::new(),
    }
}

/// The command that was meant, as far as it can be told: `berth container run`.
pub fn command_path(arguments: &[OsString]) -> String {
    let mut path = "berth".to_owned();
    let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word {
            "-H" | "--host" | "-l" | "--log-level" | "--config" | "-c" | "--context" => {
                words.next();
            }
            _ if word.starts_with('-') => {}
            "container" | "context" | "image" | "system" if path == "berth" => {
                path.push(' ');
                path.push_str(word);
            }
            _ => {
                path.push(' ');
                path.push_str(word);
                break;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> (String, u8) {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = crate::command_line().try_get_matches_from(&arguments).unwrap_err();
        message(&error, &command_path(&arguments))
    }

    #[test]
    fn mistakes_are_told_as_docker_does() {
        assert_eq!(told("berth run --no-such-flag x"), ("unknown flag: --no-such-flag".to_owned(), 125));
        assert_eq!(told("berth ps -Z"), ("unknown shorthand flag: 'Z' in -Z".to_owned(), 125));
        assert_eq!(told("berth system flarp").0, "berth system flarp: 'flarp' is not a berth command");
        let (text, code) = told("berth run --memory 12q x");
        assert!(text.contains("invalid size: '12q'") && text.contains("--memory"), "{text}");
        assert_eq!(code, 125);
        let (text, code) = told("berth container stop");
        assert!(text.starts_with("'berth container stop' requires at least 1 argument"), "{text}");
        assert_eq!(code, 1);
        assert!(told("berth run --name").0.starts_with("flag needs an argument: --name"));
    }
}
