//! Times as Go writes them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment on the wire: RFC 3339 in UTC with nanoseconds, trailing zeros cut.
///
/// Go's zero time, `0001-01-01T00:00:00Z`, stands for "never", and is the default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Timestamp);

impl Time {
    /// Go's zero time.
    pub const ZERO: Self = Self(Timestamp::constant(-62_135_596_800, 0));

    /// The current moment.
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// True for Go's zero time, which means "never".
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The timestamp, unless this is the zero time.
    pub fn get(self) -> Option<Timestamp> {
        (!self.is_zero()).then_some(self.0)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl From<Option<Timestamp>> for Time {
    fn from(timestamp: Option<Timestamp>) -> Self {
        timestamp.map_or(Self::ZERO, Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Docker writes an empty string in some places where it means "never".
        if text.is_empty() { Ok(Self::ZERO) } else { text.parse().map(Self) }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A length of time in seconds, in Docker's words: `3 hours`.
pub fn words(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let write = |seconds, nanoseconds| Time(Timestamp::new(seconds, nanoseconds).unwrap()).to_string();
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(write(1_700_000_000, 0), "2023-11-14T22:13:20Z");
        assert_eq!(write(1_700_000_000, 500_000_000), "2023-11-14T22:13:20.5Z");
        assert_eq!(write(1_700_000_000, 123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(write(1_700_000_000, 10), "2023-11-14T22:13:20.00000001Z");
    }

    #[test]
    fn times_are_read_with_any_offset() {
        let read = |text: &str| text.parse::<Time>().unwrap();
        assert!(read("0001-01-01T00:00:00Z").is_zero());
        assert!(read("").is_zero());
        assert_eq!(read("2023-11-14T23:13:20.5+01:00"), read("2023-11-14T22:13:20.5Z"));
        assert!("yesterday".parse::<Time>().is_err());
        assert_eq!(serde_json::to_string(&Time::ZERO).unwrap(), "\"0001-01-01T00:00:00Z\"");
    }

    #[test]
    fn lengths_are_in_dockers_words() {
        const HOUR: i64 = 3600;
        for (seconds, text) in [
            (-3, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (150, "2 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (47 * HOUR + 1800, "2 days"),
            (48 * HOUR, "2 days"),
            (3 * 24 * HOUR, "3 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (21 * 24 * HOUR, "3 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (100 * 24 * HOUR, "3 months"),
            (730 * 24 * HOUR, "2 years"),
            (800 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(words(seconds), text, "{seconds}");
        }
    }
}
