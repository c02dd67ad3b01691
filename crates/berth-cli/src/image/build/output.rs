//! What a build tells while it goes on, and what comes of it.

use std::io::Write as _;

use berth_api::build::{Checked, Failed};
use berth_api::progress::JsonMessage;
use clap::ArgMatches;

use super::send::{Begun, Manner, tell_failed};
use super::warnings;
use crate::failure::{Failure, Outcome};
use crate::flags::{given, on, text};
use crate::image::progress::{Screen, To};
use crate::session::terminal;

/// The variable that says how builds are shown if no flag does.
const VARIABLE: &str = "BUILDKIT_PROGRESS";

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
        let environment = std::env::var(VARIABLE).ok().filter(|_| !given(matches, "progress"));
        let asked = text(matches, "progress").unwrap_or_default();
        Self::chosen(on(matches, "quiet"), asked, environment.as_deref(), terminal::is_output())
    }

    fn chosen(quiet: bool, asked: &str, environment: Option<&str>, terminal: bool) -> Outcome<Self> {
        let how = environment.filter(|how| !how.is_empty()).unwrap_or(asked);
        Ok(match how {
            "rawjson" if quiet => {
                return Err(Failure::new("cannot use both --quiet and --progress=rawjson"));
            }
            _ if quiet => Self::Quiet,
            "quiet" => Self::Quiet,
            "rawjson" => Self::Raw,
            "plain" => Self::Plain,
            "tty" if !terminal => return Err(Failure::new("--progress=tty needs a terminal")),
            "auto" | "tty" if terminal => Self::Live,
            "auto" => Self::Plain,
            how => return Err(Failure::new(format!("invalid progress mode {how:?} of {VARIABLE}"))),
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

/// What a build came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The image's ID; empty if the daemon told none.
    pub id: String,
    /// What is to be said of the Dockerfile, if the daemon was asked.
    pub checked: Option<Checked>,
}

/// Shows a build to its end. `file` is the name of its Dockerfile.
///
/// # Errors
/// The build fails: with the exit code of the command that failed.
pub async fn show(build: Begun, file: &str, manner: Manner) -> Outcome<Built> {
    let style = manner.style;
    let mut output = Output::new(manner);
    let mut lines = build.answer.lines();
    while let Some(line) = lines.next().await? {
        if let Err(failure) = output.take(&line) {
            if style == Style::Quiet {
                build.sent.iter().for_each(|sent| tell_failed(sent));
                let _ = write!(std::io::stderr(), "{}", output.held);
            }
            let warnings = output.built.checked.as_ref().map(warnings::summary).unwrap_or_default();
            let place =
                output.failed.as_ref().map(|failed| warnings::place(failed, file)).unwrap_or_default();
            let _ = write!(std::io::stderr(), "{warnings}{place}");
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
    to: To,
    colour: bool,
    built: Built,
    /// Where in the Dockerfile it has failed, if the daemon tells.
    failed: Option<Failed>,
}

impl Output {
    fn new(Manner { style, to, .. }: Manner) -> Self {
        let screen = match style {
            Style::Live => Screen::new(to),
            Style::Plain => Screen::without_bars(to),
            Style::Raw | Style::Quiet => Screen::without_bars(To::Nowhere),
        };
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { style, screen, held: String::new(), to, colour, built: Built::default(), failed: None }
    }

    fn take(&mut self, line: &[u8]) -> Outcome {
        let message: JsonMessage = serde_json::from_slice(line)
            .map_err(|error| Failure::new(format!("the daemon's progress makes no sense: {error}")))?;
        if self.style == Style::Raw {
            self.print(&format!("{}\n", String::from_utf8_lossy(line.trim_ascii())));
        }
        if let Some(failure) = failed(&message) {
            self.screen.end();
            return Err(failure);
        }
        if let Some(id) = message.aux.as_ref().and_then(|aux| aux["ID"].as_str()) {
            id.clone_into(&mut self.built.id);
        }
        let place = message.aux.clone().and_then(|aux| serde_json::from_value::<Failed>(aux).ok());
        if let Some(place) = place.filter(|place| place.failed.is_some()) {
            self.failed = Some(place);
        }
        let checked = message.aux.clone().and_then(|aux| serde_json::from_value::<Checked>(aux).ok());
        if let Some(checked) = checked.filter(|checked| checked.warnings.is_some()) {
            self.built.checked = Some(checked);
        }
        let stream = if self.colour { message.stream.clone() } else { plain(&message.stream) };
        match (self.style, stream.as_str()) {
            (_, "") => self.screen.message(&message),
            (Style::Quiet, text) => self.held.push_str(text),
            (_, text) => self.screen.text(text),
        }
        Ok(())
    }

    /// Prints what is for programs.
    fn print(&self, text: &str) {
        match self.to {
            To::Stderr => {
                // A closed output is no failure.
                let _ = write!(std::io::stderr(), "{text}");
            }
            _ => out!("{text}"),
        }
    }

    fn end(mut self) -> Built {
        self.screen.end();
        if self.style == Style::Quiet {
            self.print(&self.held);
            // All that a quiet build tells is the ID.
            if self.built.id.is_empty() {
                self.held.trim().clone_into(&mut self.built.id);
            }
        }
        self.built
    }
}

/// A text without what colours it.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = after.find(|letter: char| !letter.is_ascii_digit() && letter != ';');
        rest = match end.map(|end| after.split_at(end)) {
            Some((_, after)) if after.starts_with('m') => &after[1..],
            // It does something else.
            _ => {
                out.push_str("\u{1b}[");
                after
            }
        };
    }
    out + rest
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
        let mut output = Output::new(Manner { compress: false, style: Style::Quiet, to: To::Stdout });
        lines.iter().try_for_each(|line| output.take(line.as_bytes()))?;
        output.screen.end();
        Ok(if output.built.id.is_empty() { output.held } else { output.built.id })
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
    fn what_is_shown_is_chosen_by_flags_and_the_environment() {
        let chosen = |quiet, asked, environment, terminal| Style::chosen(quiet, asked, environment, terminal);
        assert_eq!(chosen(false, "auto", None, true), Ok(Style::Live));
        assert_eq!(chosen(false, "auto", Some(""), false), Ok(Style::Plain));
        assert_eq!(chosen(false, "tty", None, true), Ok(Style::Live));
        assert_eq!(chosen(false, "auto", Some("plain"), true), Ok(Style::Plain));
        assert_eq!(chosen(false, "auto", Some("rawjson"), true), Ok(Style::Raw));
        assert_eq!(chosen(false, "quiet", None, true), Ok(Style::Quiet));
        assert_eq!(chosen(true, "plain", None, true), Ok(Style::Quiet));
        for (quiet, asked, environment) in
            [(true, "rawjson", None), (false, "tty", None), (false, "auto", Some("fancy"))]
        {
            assert!(chosen(quiet, asked, environment, false).is_err(), "{asked}");
        }
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("a\u{1b}[91mb\u{1b}[0m c\u{1b}[1;31md"), "ab cd");
        assert_eq!(plain("\u{1b}[2Kx\u{1b}[9"), "\u{1b}[2Kx\u{1b}[9");
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
