//! What a pull or load tells while it works.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};

use berth_api::progress::{JsonMessage, ProgressDetail};
use berth_client::ResponseBody;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::format::human;
use crate::session::terminal;

/// Columns of a terminal that does not tell.
const COLUMNS: u16 = 80;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error, as with `run`.
    Stderr,
    /// Nowhere: only failures count.
    Nowhere,
}

/// Shows a stream of messages to its end. A failure that the stream tells is this function's.
pub async fn show(body: ResponseBody, to: To) -> Outcome {
    show_result(body, to).await.map(drop)
}

/// As [`show`]; gives the last result for programs.
pub async fn show_result(body: ResponseBody, to: To) -> Outcome<Option<Value>> {
    let mut screen = Screen::new(to);
    let mut lines = body.lines();
    let mut result = None;
    while let Some(line) = lines.next().await? {
        result = take(&mut screen, &line)?.or(result);
    }
    screen.end();
    Ok(result)
}

fn take(screen: &mut Screen, line: &[u8]) -> Outcome<Option<Value>> {
    let message: JsonMessage = serde_json::from_slice(line)
        .map_err(|error| Failure::new(format!("the daemon's progress makes no sense: {error}")))?;
    if !message.error.is_empty() {
        screen.end();
        return Err(Failure::new(message.error));
    }
    screen.message(&message);
    if let Some(aux) = &message.aux {
        screen.result(aux);
    }
    Ok(message.aux)
}

/// Lines, and on a terminal bars below them.
pub struct Screen {
    to: To,
    bars: Option<MultiProgress>,
    layers: HashMap<String, ProgressBar>,
}

impl Screen {
    /// An empty one.
    pub fn new(to: To) -> Self {
        let bars = match to {
            To::Stdout if std::io::stdout().is_terminal() => {
                Some(MultiProgress::with_draw_target(ProgressDrawTarget::stdout()))
            }
            To::Stderr if std::io::stderr().is_terminal() => {
                Some(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
            }
            _ => None,
        };
        Self { to, bars, layers: HashMap::new() }
    }

    /// One whose lines come one by one, on a terminal too.
    pub fn without_bars(to: To) -> Self {
        Self { to, bars: None, layers: HashMap::new() }
    }

    /// Shows a text as it is, below what has been shown.
    pub fn text(&mut self, text: &str) {
        if !self.layers.is_empty() {
            self.end();
            *self = Self::new(self.to);
        }
        // A closed output is no failure.
        let _ = match self.to {
            To::Stdout => write!(std::io::stdout(), "{text}").and_then(|()| std::io::stdout().flush()),
            To::Stderr => write!(std::io::stderr(), "{text}"),
            To::Nowhere => Ok(()),
        };
    }

    /// Shows a message.
    pub fn message(&mut self, message: &JsonMessage) {
        if !message.stream.is_empty() {
            return self.line(message.stream.trim_end_matches('\n'));
        }
        let counted = message.progress_detail.filter(|detail| detail.current > 0 || detail.total > 0);
        // What has no name is a bar only where it counts.
        let is_bar = counted.is_some() || !message.id.is_empty() && message.progress_detail.is_some();
        if is_bar && self.bars.is_some() {
            let columns = terminal::size().map_or(COLUMNS, |(_, columns)| columns);
            let count = counted.map_or_else(String::new, |detail| count(detail, columns));
            return self.bar(&message.id, format!("{}{count}", message.status));
        }
        // Counts are for bars; a log file gets each change once.
        if counted.is_none() {
            match message.id.as_str() {
                // A result for programs has no text.
                "" if message.status.is_empty() => {}
                "" => self.line(&message.status),
                id => self.line(&format!("{id}: {}", message.status)),
            }
        }
    }

    /// A result for programs. Of one people are told too.
    fn result(&mut self, aux: &Value) {
        if aux["manifestPushedInsteadOfIndex"] != true {
            return;
        }
        let digest = |name: &str| aux[name]["digest"].as_str().unwrap_or_default().to_owned();
        self.line("Info -> Not all multiplatform-content is present and only the available single-platform image was pushed");
        self.line(&format!("        {} -> {}", digest("originalIndex"), digest("selectedManifest")));
    }

    fn bar(&mut self, id: &str, text: String) {
        let Some(bars) = &self.bars else { return };
        let bar = self.layers.entry(id.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            let template = if id.is_empty() { "{msg}" } else { "{prefix}: {msg}" };
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(id.to_owned());
            bar
        });
        bar.set_message(text);
    }

    fn line(&mut self, text: &str) {
        match (&self.bars, self.to) {
            // A closed output is no failure of the pull.
            (Some(bars), _) => drop(bars.println(text)),
            (None, To::Stdout) => drop(writeln!(std::io::stdout(), "{text}")),
            (None, To::Stderr) => drop(writeln!(std::io::stderr(), "{text}")),
            (None, To::Nowhere) => {}
        }
    }

    /// Leaves the bars as they are.
    pub fn end(&mut self) {
        for bar in self.layers.values() {
            bar.abandon();
        }
    }
}

/// How far something is: with a bar in Docker's form where there is room for one.
fn count(ProgressDetail { current, total }: ProgressDetail, columns: u16) -> String {
    if total <= 0 {
        return format!("  {}", human::size(current));
    }
    let figures = format!("{}/{}", human::size(current), human::size(total));
    let width: usize = match columns {
        110.. => 50,
        76.. => 20,
        _ => return format!("  {figures}"),
    };
    let share = current.clamp(0, total) as f64 / total as f64;
    let done = ((width as f64 * share) as usize).min(width);
    let head = if done < width { ">" } else { "" };
    format!(" [{:<width$}] {figures}", "=".repeat(done) + head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_there_is_room() {
        let shown = |current, total, columns| count(ProgressDetail { current, total }, columns);
        assert_eq!(shown(0, 100, 80), " [>                   ] 0B/100B");
        assert_eq!(shown(50, 100, 80), " [==========>         ] 50B/100B");
        assert_eq!(shown(100, 100, 80), " [====================] 100B/100B");
        assert_eq!(shown(250, 100, 80), " [====================] 250B/100B", "a liar");
        assert_eq!(shown(50, 100, 75), "  50B/100B");
        assert_eq!(shown(50, 0, 200), "  50B");
        assert_eq!(shown(1, 2, 200).matches('=').count(), 25);
        assert!(shown(-5, 10, 110).starts_with(" [> "));
    }
}
