//! A question before something is lost, and what the commands that ask it have in common.

use std::io::{BufRead as _, Write as _};

use clap::{Arg, ArgMatches};

use crate::failure::Outcome;
use crate::flags::{many, on, switch};
use crate::format::human::long_size;
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

/// What a `prune` command says at its end: what is gone, a line for each under `title`, and the bytes that are free by it.
pub fn removed(title: &str, gone: impl IntoIterator<Item = String>, bytes: u64) -> String {
    let lines: String = gone.into_iter().map(|line| line + "\n").collect();
    let list = if lines.is_empty() { String::new() } else { format!("{title}:\n{lines}\n") };
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    list + &format!("Total reclaimed space: {}\n", long_size(bytes))
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
