//! API versions.

use std::fmt;
use std::str::FromStr;

/// A version of the API, `1.55`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Before the point.
    pub major: u16,
    /// After the point.
    pub minor: u16,
}

impl ApiVersion {
    /// The newest that is spoken here.
    pub const NEWEST: Self = Self::new(1, 55);
    /// The oldest that is spoken here.
    pub const OLDEST: Self = Self::new(1, 24);

    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What a program was made of, as `version` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// The commit of its source.
    pub commit: &'static str,
    /// When it was made, or when its source was committed; RFC 3339.
    pub time: &'static str,
}

impl Build {
    /// Nobody said.
    pub const UNKNOWN: Self = Self { commit: "unknown", time: "unknown" };
}

/// The text is not `major.minor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version: {0:?}")]
pub struct VersionError(pub String);

impl FromStr for ApiVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str| {
            (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(digits(major)?, digits(minor)?)))
            .ok_or_else(|| VersionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_not_text() {
        let version = |text: &str| text.parse::<ApiVersion>();
        assert!(version("1.9").unwrap() < version("1.24").unwrap());
        assert_eq!(version("1.55").unwrap(), ApiVersion::NEWEST);
        assert_eq!(ApiVersion::NEWEST.to_string(), "1.55");
        for bad in ["", "1", "1.", ".1", "1.2.3", "1.x", "+1.2", "1.99999"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
