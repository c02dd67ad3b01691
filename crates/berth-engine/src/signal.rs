//! Signals by name and number, as Docker reads them.

use crate::Error;

/// SIGKILL (signal(7)).
pub const KILL: i32 = 9;
/// SIGTERM (signal(7)).
pub const TERM: i32 = 15;

/// The number of a signal as [`berth_sys::signal::parse`] reads it.
pub fn parse(text: &str) -> Result<i32, Error> {
    berth_sys::signal::parse(text).ok_or_else(|| Error::InvalidParameter(format!("invalid signal: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        assert_eq!(parse("sigterm").unwrap(), TERM);
        assert_eq!(parse("FOO").unwrap_err().to_string(), "invalid signal: FOO");
    }
}
