//! What a copy shows while it goes on, and what it says at its end, as Docker's client does.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::format::human;

/// Between two looks.
const TICK: Duration = Duration::from_millis(75);

/// The progress of one copy, on standard error.
pub struct Progress {
    quiet: bool,
    moved: Arc<AtomicI64>,
    shown: Mutex<Option<JoinHandle<()>>>,
}

impl Progress {
    /// Begins to show, if there is a terminal; `header` stands before the count of bytes.
    pub fn start(header: &'static str, quiet: bool) -> Self {
        let moved = Arc::new(AtomicI64::new(0));
        let shown = (!quiet && std::io::stderr().is_terminal())
            .then(|| tokio::spawn(show(header, Arc::clone(&moved))));
        Self { quiet, moved, shown: Mutex::new(shown) }
    }

    /// Counts the bytes that were moved.
    pub fn counter(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.moved)
    }

    /// Takes the progress away; tells how many bytes were moved.
    pub fn end(&self) -> i64 {
        if let Some(task) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
            write("\x1b[?25h\x1b[u\x1b[2K");
        }
        self.moved.load(Ordering::Relaxed)
    }

    /// Says what was copied: bytes of files, and those that were moved for them, if that is more or less.
    pub fn summary(&self, content: i64, place: &str) {
        if !self.quiet {
            errln!("{}", summary(content, self.moved.load(Ordering::Relaxed), place));
        }
    }
}

async fn show(header: &'static str, moved: Arc<AtomicI64>) {
    write(&format!("\x1b[s\x1b[?25l{header}{}", human::size(0)));
    let mut last = 0;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = moved.load(Ordering::Relaxed);
        if now != last {
            write(&format!("\x1b[{}G\x1b[0K{}", header.len() + 1, human::size(now)));
            last = now;
        }
    }
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    // Whoever does not see it does not miss it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn summary(content: i64, moved: i64, place: &str) -> String {
    if content == moved {
        format!("Successfully copied {} to {place}", human::size(content))
    } else {
        format!(
            "Successfully copied {} (transferred {}) to {place}",
            human::size(content),
            human::size(moved)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_dockers() {
        assert_eq!(summary(5, 2048, "c:/x"), "Successfully copied 5B (transferred 2.05kB) to c:/x");
        assert_eq!(summary(0, 0, "/y"), "Successfully copied 0B to /y");
    }
}
