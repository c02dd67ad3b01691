//! Signals by name or number.

use super::error::{Error, Result};

/// Reads `TERM`, `SIGTERM`, `sigterm`, `RTMIN+3` or `15`.
pub(super) fn parse(text: &str) -> Result<i32> {
    berth_sys::signal::parse(text).ok_or_else(|| Error::Invalid(format!("unknown signal {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sigusr1", 10), ("9", 9), ("RTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIGNONE", "RTMIN+99", "RTMAXx", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
