//! Flags in the forms that Docker's have, and what was given for them.

use clap::{Arg, ArgAction, ArgMatches};
use jiff::Timestamp;

use crate::failure::{Failure, Outcome};
use crate::grammar::COMMAND;
use crate::values;

/// `--name`, which also takes `--name=false`.
pub fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(values::boolean)
        .action(ArgAction::Set)
}

/// `--name VALUE`; the last one counts.
pub fn one(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .action(ArgAction::Set)
        .overrides_with(name)
        .allow_hyphen_values(true)
}

/// `--name VALUE`, any number of times.
pub fn many(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).allow_hyphen_values(true)
}

/// What a command is about: exactly one.
pub fn operand(name: &'static str) -> Arg {
    Arg::new(name).required(true)
}

/// What a command is about: at least one.
pub fn operands(name: &'static str) -> Arg {
    Arg::new(name).required(true).num_args(1..)
}

/// A command for a container with its arguments: everything that follows.
pub fn command(required: bool) -> Arg {
    Arg::new(COMMAND)
        .value_name("COMMAND")
        .num_args(0..)
        .required(required)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
}

/// Whether a switch is on.
pub fn on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or_default()
}

/// Whether the user gave a switch or flag at all.
pub fn given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
}

/// The text of a flag or operand.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// The platform that `--platform` or else `DOCKER_DEFAULT_PLATFORM` names.
pub fn platform(matches: &ArgMatches) -> Option<String> {
    let usual = || std::env::var("DOCKER_DEFAULT_PLATFORM").ok();
    text(matches, "platform").map(str::to_owned).or_else(usual).filter(|platform| !platform.is_empty())
}

/// The template that `--format` gives, or else the user's settings, whose template is `configured`.
pub fn format<'a>(matches: &'a ArgMatches, configured: &'a str) -> Option<&'a str> {
    // Settings do not change what `-q` shows.
    let quiet = matches.try_get_one::<bool>("quiet").ok().flatten().is_some_and(|quiet| *quiet);
    let configured = Some(configured).filter(|format| !quiet && !format.is_empty());
    text(matches, "format").filter(|format| !format.is_empty()).or(configured)
}

/// The moment that a flag gives, as the API takes it.
pub fn moment(matches: &ArgMatches, name: &str) -> Outcome<Option<String>> {
    text(matches, name)
        .map(|text| values::duration::moment(text, Timestamp::now()))
        .transpose()
        .map_err(Failure::new)
}

/// The text of a flag, empty if it was not given.
pub fn or_empty(matches: &ArgMatches, name: &str) -> String {
    text(matches, name).unwrap_or_default().to_owned()
}

/// All texts of a flag or operand.
pub fn list(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).map(|all| all.cloned().collect()).unwrap_or_default()
}

/// All texts, or nothing if there are none: as the API has it.
pub fn some(matches: &ArgMatches, name: &str) -> Option<Vec<String>> {
    Some(list(matches, name)).filter(|all| !all.is_empty())
}

/// A number; 0 if it was not given.
pub fn number(matches: &ArgMatches, name: &str) -> i64 {
    matches.get_one::<i64>(name).copied().unwrap_or_default()
}
