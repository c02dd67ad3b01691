//! A question before something is lost.

use std::io::{BufRead as _, Write as _};

use crate::failure::Outcome;

/// Asks whether to go on, on standard output as Docker does; everything but `y` is no.
///
/// # Errors
/// Standard input cannot be read.
pub fn confirm(warning: &str) -> Outcome<bool> {
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
