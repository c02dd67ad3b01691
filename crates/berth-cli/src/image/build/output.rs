//! What a build tells while it goes on, and what comes of it.

use std::io::Write as _;

use berth_api::progress::JsonMessage;
use clap::ArgMatches;

use super::send::{Begun, tell_failed};
use crate::failure::{Failure, Outcome};
use crate::flags::{on, text};
use crate::image::progress::{Screen, To};
use crate::session::terminal;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text, with bars that move on a terminal.
    Live,
    /// Text, line by line.
    Plain,
    /// The daemon's messages as they are.
    Raw,
    /// The image's ID alone; everything if the build fails.
    Quiet,
}

impl Style {
    /// What the flags ask for.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn of(matches: &ArgMatches) -> Outcome<Self> {
        Ok(match (on(matches, "quiet"), text(matches, "progress").unwrap_or_default()) {
            (true, "rawjson") => return Err(Failure::new("cannot use both --quiet and --progress=rawjson")),
            (true, _) => Self::Quiet,
            (false, "rawjson") => Self::Raw,
            (false, "plain") => Self::Plain,
            (false, _) if terminal::is_output() => Self::Live,
            (false, _) => Self::Plain,
        })
    }

    /// Whether something may move.
    pub fn is_terminal(self) -> bool {
        self == Self::Live
    }

    /// Whether it is told how much was sent.
    pub fn tells_context(self) -> bool {
        matches!(self, Self::Live | Self::Plain)
    }
}

/// Shows a build to its end, and gives the image's ID; empty if the daemon told none.
///
/// # Errors
/// The build fails: with the exit code of the command that failed.
pub async fn show(build: Begun, style: Style) -> Outcome<String> {
    let mut output = Output::new(style);
    let mut lines = build.answer.lines();
    while let Some(line) = lines.next().await? {
        if let Err(failure) = output.take(&line) {
            if style == Style::Quiet {
                build.sent.iter().for_each(|sent| tell_failed(sent));
                let _ = write!(std::io::stderr(), "{}", output.held);
            }
            return Err(failure);
        }
    }
    Ok(output.end())
}

struct Output {
    style: Style,
    screen: Screen,
    /// The text of a quiet build.
    held: String,
    id: String,
}

impl Output {
    fn new(style: Style) -> Self {
        let screen = match style {
            Style::Live => Screen::new(To::Stdout),
            Style::Plain => Screen::without_bars(To::Stdout),
            Style::Raw | Style::Quiet => Screen::without_bars(To::Nowhere),
        };
        Self { style, screen, held: String::new(), id: String::new() }
    }

    fn take(&mut self, line: &[u8]) -> Outcome {
        let message: JsonMessage = serde_json::from_slice(line)
            .map_err(|error| Failure::new(format!("the daemon's progress makes no sense: {error}")))?;
        if self.style == Style::Raw {
            outln!("{}", String::from_utf8_lossy(line.trim_ascii()));
        }
        if let Some(failure) = failed(&message) {
            self.screen.end();
            return Err(failure);
        }
        if let Some(id) = message.aux.as_ref().and_then(|aux| aux["ID"].as_str()) {
            id.clone_into(&mut self.id);
        }
        match (self.style, message.stream.as_str()) {
            (_, "") => self.screen.message(&message),
            (Style::Quiet, text) => self.held.push_str(text),
            (_, text) => self.screen.text(text),
        }
        Ok(())
    }

    fn end(mut self) -> String {
        self.screen.end();
        if self.style == Style::Quiet {
            out!("{}", self.held);
            // All that a quiet build tells is the ID.
            if self.id.is_empty() {
                self.held.trim().clone_into(&mut self.id);
            }
        }
        self.id
    }
}

/// How the build failed, if that is what the message tells.
fn failed(message: &JsonMessage) -> Option<Failure> {
    let detail = message.error_detail.as_ref();
    let words =
        detail.map(|detail| &detail.message).filter(|words| !words.is_empty()).unwrap_or(&message.error);
    if words.is_empty() {
        return None;
    }
    // As of every process, the lowest eight bits are its code; a failure is never 0.
    let code = detail.map_or(1, |detail| detail.code).to_le_bytes()[0];
    Some(Failure::with_code(code.max(1), words.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &[&str]) -> Outcome<String> {
        let mut output = Output::new(Style::Quiet);
        lines.iter().try_for_each(|line| output.take(line.as_bytes()))?;
        output.screen.end();
        Ok(if output.id.is_empty() { output.held } else { output.id })
    }

    #[test]
    fn the_id_is_told_for_programs() {
        let lines =
            [r#"{"stream":"Step 1/1 : FROM x"}"#, r#"{"stream":"\n"}"#, r#"{"aux":{"ID":"sha256:ab"}}"#];
        assert_eq!(taken(&lines).unwrap(), "sha256:ab");
        assert_eq!(taken(&[r#"{"stream":"sha256:cd\n"}"#]).unwrap(), "sha256:cd\n");
        assert!(taken(&["nonsense"]).is_err());
    }

    #[test]
    fn a_failure_has_the_commands_code() {
        for (line, code, words) in [
            (
                r#"{"errorDetail":{"code":3,"message":"a returned 3"},"error":"a returned 3"}"#,
                3,
                "a returned 3",
            ),
            (r#"{"errorDetail":{"message":"no such stage"},"error":"no such stage"}"#, 1, "no such stage"),
            (r#"{"error":"old"}"#, 1, "old"),
            (r#"{"errorDetail":{"code":256,"message":"m"}}"#, 1, "m"),
            (r#"{"errorDetail":{"code":-1,"message":"m"}}"#, 255, "m"),
        ] {
            assert_eq!(taken(&[line]), Err(Failure::with_code(code, words)), "{line}");
        }
    }
}
