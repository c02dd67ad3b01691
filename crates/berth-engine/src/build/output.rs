//! What a build tells, in the words of Docker's classic builder.

use std::sync::{Arc, Mutex, PoisonError};

use berth_api::progress::{ErrorDetail, JsonMessage};
use berth_build::solve::Event;
use berth_oci::Digest;
use tokio::sync::mpsc::Sender;

use crate::Error;

/// Most that is kept of what a quiet build would have told, in bytes: it is told if the build fails.
const KEPT: usize = 1 << 20;

/// Longest line of a stage that is kept back until its end, in bytes.
const LINE: usize = 16 << 10;

/// Lines that each begin with a label.
fn labelled(label: &str, text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| format!("{label}{line}"));
    lines.collect::<Vec<_>>().concat()
}

/// Where messages go.
pub(super) struct Output {
    messages: Sender<JsonMessage>,
    quiet: bool,
    aux: bool,
    kept: Arc<Mutex<Kept>>,
    /// The stage that tells, if others tell at the same time, and the line that it has begun.
    label: Option<(String, String)>,
}

/// What a quiet build would have told.
#[derive(Default)]
struct Kept {
    messages: Vec<JsonMessage>,
    size: usize,
}

fn gone() -> Error {
    Error::Unavailable("Build cancelled".into())
}

/// Output of programs and of the builder as it is shown; what goes to the error output is red.
pub(super) fn red(text: &str) -> String {
    format!("\u{1b}[91m{text}\u{1b}[0m")
}

impl Output {
    pub fn new(messages: Sender<JsonMessage>, quiet: bool, aux: bool) -> Output {
        Output { messages, quiet, aux, kept: Arc::default(), label: None }
    }

    /// Sends a message. Fails if the client is gone.
    pub fn send(&mut self, message: JsonMessage) -> Result<(), Error> {
        if !self.quiet {
            return self.messages.blocking_send(message).map_err(|_| gone());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.size = kept.size.saturating_add(message.stream.len() + 64);
        if kept.size <= KEPT {
            kept.messages.push(message);
        }
        Ok(())
    }

    /// Another one, for a stage beside others: each of its lines begins with its name.
    pub fn fork(&self, label: Option<&str>) -> Output {
        Output {
            messages: self.messages.clone(),
            quiet: self.quiet,
            aux: self.aux,
            kept: Arc::clone(&self.kept),
            label: label.map(|label| (format!("[{label}] "), String::new())),
        }
    }

    /// Sends text; whole lines if others tell at the same time.
    pub fn say(&mut self, text: &str) -> Result<(), Error> {
        let Some((label, begun)) = &mut self.label else { return self.send(JsonMessage::stream(text)) };
        begun.push_str(text);
        // A line without end is told in pieces, rather than kept.
        let end = begun.rfind('\n').map_or(0, |last| last + 1);
        let end = if end == 0 && begun.len() > LINE { begun.len() } else { end };
        if end == 0 {
            return Ok(());
        }
        let whole = labelled(label, &begun[..end]);
        begun.drain(..end);
        self.send(JsonMessage::stream(whole))
    }

    /// Tells the line that is begun.
    fn finish(&mut self) {
        if self.label.as_ref().is_some_and(|(_, begun)| !begun.is_empty()) {
            // A client that is gone is told by the next step.
            let _ = self.say("\n");
        }
    }

    /// Tells what the solver does.
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event {
            Event::Step { number, total, text } => self.say(&format!("Step {number}/{total} : {text}\n")),
            Event::Triggers(1) => self.say("# Executing 1 build trigger\n"),
            Event::Triggers(count) => self.say(&format!("# Executing {count} build triggers\n")),
            Event::Cached => self.say(" ---> Using cache\n"),
            Event::Made(id) => self.say(&format!(" ---> {}\n", id.map(Digest::short).unwrap_or_default())),
            Event::Stage(id) if self.aux => {
                let aux = Some(serde_json::json!({ "ID": id.to_string() }));
                self.send(JsonMessage { aux, ..JsonMessage::default() })
            }
            Event::Stage(_) => Ok(()),
            Event::Warning(text) => self.say(&format!("{text}\n")),
        }
    }

    /// Tells something for programs, of a quiet build too.
    pub fn aside(&self, aux: serde_json::Value) -> Result<(), Error> {
        let message = JsonMessage { aux: Some(aux), ..JsonMessage::default() };
        self.messages.blocking_send(message).map_err(|_| gone())
    }

    /// The build is done.
    pub fn built(&mut self, id: &Digest) -> Result<(), Error> {
        self.say(&format!("Successfully built {}\n", id.short()))
    }

    /// All is done: a quiet build tells the image's ID.
    pub fn done(&mut self, id: &Digest) -> Result<(), Error> {
        if !self.quiet {
            return Ok(());
        }
        self.messages.blocking_send(JsonMessage::stream(format!("{id}\n"))).map_err(|_| gone())
    }

    /// The build failed: what a quiet one has kept comes before the reason.
    pub fn failed(&mut self, error: Error) -> Result<(), Error> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        for message in kept.messages {
            self.messages.blocking_send(message).map_err(|_| gone())?;
        }
        let Error::Step { message, code } = error else { return Err(error) };
        let error_detail = Some(ErrorDetail { code, message: message.clone() });
        let last = JsonMessage { error: message, error_detail, ..JsonMessage::default() };
        self.messages.blocking_send(last).map_err(|_| gone())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_tell_whole_lines() {
        let (sender, mut messages) = tokio::sync::mpsc::channel(8);
        let output = Output::new(sender, false, false);
        let mut stage = output.fork(Some("one"));
        stage.say("a").unwrap();
        stage.say("b\nc\nd").unwrap();
        drop(stage);
        let told: Vec<String> =
            std::iter::from_fn(|| messages.try_recv().ok()).map(|one| one.stream).collect();
        assert_eq!(told, ["[one] ab\n[one] c\n", "[one] d\n"]);
    }
}
