//! A question before something is lost, and what the commands that ask it have in common.

use std::io::{BufRead as _, Write as _};

use clap::{Arg, ArgMatches};

use crate::failure::Outcome;
use crate::flags::{many, on, switch};
use crate::values::filter;

/// The flags that all `prune` commands have.
pub fn flags() -> [Arg; 2] {
    let help = "Only some: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]";
    let filter = many("filter", "NAME=VALUE").value_parser(filter::filter).help(help);
    [filter, switch("force").short('f').help("Do not ask")]
}

/// Whether to go on: the user says so, or wants not to be asked. As with Docker, to change one's mind is no failure.
///
/// # Errors
/// Standard input cannot be read.
pub fn is_wanted(matches: &ArgMatches, warning: &str) -> Outcome<bool> {
    Ok(on(matches, "force") || confirm(warning)?)
}

/// Asks whether to go on, on standard output as Docker does; everything but `y` is no.
///
/// # Errors
/// Standard input cannot be read.
fn confirm(warning: &str) -> Outcome<bool> {
    out!("{warning}\nAre you sure you want to continue? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    answer.trim().eq_ignore_ascii_case("y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_is_yes() {
        for (answer, yes) in [("y\n", true), ("Y", true), ("\n", false), ("", false), ("yes\n", false)] {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
