//! A count of what a command writes.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format::human;

/// A count of bytes of which nobody knows how many there will be.
pub struct Counter {
    bar: ProgressBar,
    text: String,
    bytes: u64,
}

impl Counter {
    /// Counts from zero, after `text`; on standard error, and nowhere if that is no terminal.
    pub fn new(text: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, text, bytes: 0 }
    }

    /// Counts more.
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.bar.set_message(self.shown());
    }

    /// Leaves the last count as it is.
    pub fn end(self) {
        self.bar.abandon_with_message(self.shown());
    }

    fn shown(&self) -> String {
        format!("{}  {}", self.text, human::size(i64::try_from(self.bytes).unwrap_or(i64::MAX)))
    }
}
