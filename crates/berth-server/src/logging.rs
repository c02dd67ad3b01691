//! The daemon's own messages: their level, which can change while it runs, and their form.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// Docker's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// More than anyone wants.
    Trace,
    /// What developers want.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What failed.
    Error,
    /// What ends the daemon.
    Fatal,
}

impl LogLevel {
    /// Reads a level's name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "fatal" | "panic" => Self::Fatal,
            _ => return None,
        })
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error | Self::Fatal => LevelFilter::ERROR,
        }
    }
}

/// Form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people to read.
    Plain,
    /// Docker's: `time="…" level=info msg="…" name=value`.
    Text,
    /// One JSON object in each line, with Docker's names.
    Json,
}

impl LogFormat {
    /// Reads Docker's name of a form.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "text" | "" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Changes the level of messages.
#[derive(Debug, Clone)]
pub struct Verbosity(Option<reload::Handle<LevelFilter, Registry>>);

impl Verbosity {
    /// From now on, messages of this level and more important ones are written.
    pub fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.0
            && let Err(error) = handle.reload(level.filter())
        {
            tracing::warn!(%error, "the level of messages stays as it is");
        }
    }
}

/// Starts writing messages to standard error. Without colour if `raw`, or if that is no terminal.
pub fn start(level: LogLevel, format: LogFormat, raw: bool) -> Verbosity {
    let (filter, handle) = reload::Layer::new(level.filter());
    let registry = tracing_subscriber::registry().with(filter);
    let colour = !raw && io::stderr().is_terminal();
    let layer = Layer::default().with_target(false).with_ansi(colour).with_writer(io::stderr);
    let started = match format {
        LogFormat::Plain => registry.with(layer).try_init(),
        LogFormat::Text if colour => registry.with(layer.event_format(Lines(coloured_line))).try_init(),
        LogFormat::Text => registry.with(layer.event_format(Lines(text_line))).try_init(),
        LogFormat::Json => registry.with(layer.event_format(Lines(json_line))).try_init(),
    };
    match started {
        Ok(()) => Verbosity(Some(handle)),
        Err(_) => {
            tracing::debug!("logging was set up before");
            Verbosity(None)
        }
    }
}

/// The parts of a message.
#[derive(Debug, Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Parts {
    fn of(event: &Event<'_>) -> Self {
        let mut parts = Self::default();
        event.record(&mut parts);
        parts
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// Writes an event as one line, which the function makes of its moment, level and parts.
struct Lines(fn(Timestamp, &str, &Parts) -> String);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(&(self.0)(
            Timestamp::now(),
            level_name(*event.metadata().level()),
            &Parts::of(event),
        ))
    }
}

fn text_line(now: Timestamp, level: &str, parts: &Parts) -> String {
    let mut line = format!("time={:?} level={level} msg={}", now.to_string(), quoted(&parts.message));
    for (name, value) in &parts.fields {
        // Writing to a string cannot fail.
        let _ = write!(line, " {name}={}", quoted(value));
    }
    line.push('\n');
    line
}

/// For a terminal: the level stands out, and nothing of the message can steer the terminal.
fn coloured_line(now: Timestamp, level: &str, parts: &Parts) -> String {
    let (colour, word) = match level {
        "error" => (31, "ERRO"),
        "warning" => (33, "WARN"),
        "info" => (36, "INFO"),
        "debug" => (37, "DEBU"),
        _ => (37, "TRAC"),
    };
    let message: String = parts.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = format!("\x1b[{colour}m{word}\x1b[0m[{now}] {message}");
    for (name, value) in &parts.fields {
        // Writing to a string cannot fail.
        let _ = write!(line, " \x1b[{colour}m{name}\x1b[0m={}", quoted(value));
    }
    line.push('\n');
    line
}

/// A value, in quotes if it holds more than a word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

fn json_line(now: Timestamp, level: &str, parts: &Parts) -> String {
    let mut object = serde_json::Map::new();
    for (name, value) in &parts.fields {
        object.insert((*name).to_owned(), value.clone().into());
    }
    object.insert("level".into(), level.into());
    object.insert("msg".into(), parts.message.clone().into());
    object.insert("time".into(), now.to_string().into());
    let mut line = serde_json::Value::Object(object).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            message: "a \"b\"\nc".into(),
            fields: vec![("path", "/x/y".into()), ("error", "no such".into())],
        }
    }

    #[test]
    fn lines_are_dockers_and_stay_one_line() {
        let line = text_line(Timestamp::UNIX_EPOCH, "info", &parts());
        assert_eq!(
            line,
            "time=\"1970-01-01T00:00:00Z\" level=info msg=\"a \\\"b\\\"\\nc\" path=/x/y error=\"no such\"\n"
        );
    }

    #[test]
    fn coloured_lines_hold_no_other_controls() {
        let line = coloured_line(Timestamp::UNIX_EPOCH, "info", &parts());
        assert_eq!(
            line,
            "\x1b[36mINFO\x1b[0m[1970-01-01T00:00:00Z] a \"b\" c \x1b[36mpath\x1b[0m=/x/y \x1b[36merror\x1b[0m=\"no such\"\n"
        );
        let hostile = Parts { message: "\x1b[2J".into(), fields: Vec::new() };
        assert!(!coloured_line(Timestamp::UNIX_EPOCH, "error", &hostile).contains("\x1b[2J"));
    }

    #[test]
    fn json_lines_can_be_read_back() {
        let line = json_line(Timestamp::UNIX_EPOCH, "warning", &parts());
        assert_eq!(line.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["msg"], "a \"b\"\nc");
        assert_eq!((&object["level"], &object["path"]), (&"warning".into(), &"/x/y".into()));
    }

    #[test]
    fn levels_are_dockers() {
        assert_eq!(LogLevel::parse("WARN"), Some(LogLevel::Warn));
        assert_eq!(LogLevel::parse("loud"), None);
        assert_eq!(LogFormat::parse("json"), Some(LogFormat::Json));
        assert_eq!(LogFormat::parse("xml"), None);
    }
}
