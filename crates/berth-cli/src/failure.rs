//! How a command ends when it does not end well.

use std::fmt;
use std::io;

/// What is printed and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For standard error; empty: nothing is printed.
    pub message: String,
    /// The process's exit code.
    pub code: u8,
}

impl Failure {
    /// An ordinary failure: exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// A failure with this exit code.
    pub fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), code }
    }

    /// Ends with a code, which is a container's, and prints nothing.
    pub fn silent(code: u8) -> Self {
        Self { message: String::new(), code }
    }

    /// A failure of the system, with what was tried.
    pub fn io(operation: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{operation}: {}", plain(error)))
    }
}

/// The system's words without Rust's `(os error n)`, as Go and C print them.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match (letters.next(), error.raw_os_error()) {
        (Some(first), Some(_)) => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

/// An error with its causes, in the system's words.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let words = error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), plain);
        // An error that only wraps another says the same.
        if !text.ends_with(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
        next = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<berth_client::Error> for Failure {
    fn from(error: berth_client::Error) -> Self {
        if let berth_client::Error::Connect { host, source } = &error {
            if matches!(host, berth_client::Host::Ssh(_)) {
                return Self::new(format!("error during connect: {}", plain(source)));
            }
            let reason = match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => String::new(),
                _ => format!(" ({})", plain(source)),
            };
            return Self::new(format!(
                "Cannot connect to the Berth daemon at {host}. Is the berth daemon running?{reason}"
            ));
        }
        Self::new(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(plain(&error))
    }
}

/// What a command gives: nothing, or how it failed.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Goes on after failures, and ends with all of them.
#[derive(Debug, Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Remembers a failure.
    pub fn push(&mut self, failure: impl Into<Failure>) {
        self.0.push(failure.into().message);
    }

    /// Success, or all failures as one.
    pub fn finish(self) -> Outcome {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::new(self.0.join("\n"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_together() {
        let mut failures = Failures::default();
        failures.push(Failure::new("one"));
        failures.push(Failure::with_code(5, "two"));
        assert_eq!(failures.finish(), Err(Failure::new("one\ntwo")));
        assert_eq!(Failures::default().finish(), Ok(()));
    }

    #[test]
    fn system_errors_read_as_elsewhere() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(Failure::io("open /x", &error).message, "open /x: no such file or directory");
    }
}
