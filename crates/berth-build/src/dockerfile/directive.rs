//! The comments at the very top that speak to the parser: `# escape=`, `# syntax=`, `# check=`.

use crate::error::{Lines, Result, wrong};

/// What the directives say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// What takes a character's meaning and continues a line: a backslash or a backtick.
    pub escape: char,
    /// The image of the frontend that is to read the file, and its place.
    pub syntax: Option<(String, Lines)>,
    /// Which warnings are wanted, and its place.
    pub check: Option<(String, Lines)>,
}

impl Default for Directives {
    fn default() -> Directives {
        Directives { escape: '\\', syntax: None, check: None }
    }
}

/// Reads directives until something else comes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) found: Directives,
    seen: Vec<String>,
    done: bool,
}

impl Reader {
    /// Whether the line, which is trimmed at its beginning, is a directive.
    pub(super) fn take(&mut self, line: &str, number: usize) -> Result<bool> {
        if self.done || (number == 1 && line.starts_with("#!")) {
            return Ok(false);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(name_and_value) else {
            self.done = true;
            return Ok(false);
        };
        if !matches!(name.as_str(), "escape" | "syntax" | "check") {
            self.done = true;
            return Ok(false);
        }
        let place = Lines::one(number);
        if self.seen.contains(&name) {
            return wrong(format!("only one {name} parser directive can be used"))
                .map_err(|error: crate::Error| error.at(place));
        }
        match name.as_str() {
            "syntax" => self.found.syntax = Some((first_word(value).to_owned(), place)),
            "check" => self.found.check = Some((first_word(value).to_owned(), place)),
            _ => match value {
                "`" => self.found.escape = '`',
                "\\" => self.found.escape = '\\',
                _ => {
                    let text = format!("invalid escape token '{value}' does not match ` or \\");
                    return wrong(text).map_err(|error: crate::Error| error.at(place));
                }
            },
        }
        self.seen.push(name);
        Ok(true)
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// `name = value`, the name in lower case.
pub(crate) fn name_and_value(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (word && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}
