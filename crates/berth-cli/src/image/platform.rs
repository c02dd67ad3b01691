//! Platforms of images, as users write them and as the API takes them.

use berth_oci::Platform;
use clap::ArgMatches;

use crate::failure::{Failure, Outcome};
use crate::flags;

/// A platform as the API takes it.
///
/// # Errors
/// The text is no platform.
pub fn json(text: &str) -> Outcome<String> {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(format!("invalid platform: {error}"));
    let platform: Platform = text.parse().map_err(|error| invalid(&error))?;
    serde_json::to_string(&platform).map_err(|error| invalid(&error))
}

/// What `--platform` gives, which may be repeated and may list several behind commas.
///
/// # Errors
/// As [`json`].
pub fn all(matches: &ArgMatches) -> Outcome<Vec<String>> {
    let given = flags::list(matches, "platform");
    given.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()).map(json).collect()
}

/// What `--platform` gives where there can be one only.
///
/// # Errors
/// As [`json`].
pub fn one(matches: &ArgMatches) -> Outcome<Option<String>> {
    flags::text(matches, "platform").filter(|text| !text.is_empty()).map(json).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_sent_as_an_object() {
        assert_eq!(
            json("linux/arm64/v8").unwrap(),
            r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
        );
        assert!(json("linux/").unwrap_err().message.starts_with("invalid platform: "));
    }
}
