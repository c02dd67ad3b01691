//! Values of flags, as Docker reads them. Parsing has no effects; messages are Docker's.

pub mod csv;
pub mod filter;
pub mod keys;
pub mod size;

pub use berth_api::duration;

/// Reads a boolean as Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Reads a whole number as Go's `strconv.ParseInt`, in base 10.
pub fn integer(text: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let reason = if matches!(error.kind(), PosOverflow | NegOverflow) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        format!("strconv.ParseInt: parsing {text:?}: {reason}")
    })
}

/// Reads an IP address, of either version.
pub fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text.is_empty() => Ok(String::new()),
        Err(_) => Err(format!("failed to parse IP: {text:?}")),
    }
}

/// Reads a number of CPUs, and gives billionths of one.
pub fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let billionths: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(billionths)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_gos() {
        assert_eq!(boolean("T"), Ok(true));
        assert_eq!(boolean("0"), Ok(false));
        assert_eq!(boolean("foo").unwrap_err(), "strconv.ParseBool: parsing \"foo\": invalid syntax");
    }

    #[test]
    fn cpus_are_decimal() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        assert_eq!(cpus("1.000000001"), Ok(1_000_000_001));
        assert_eq!(cpus("1.50000000000"), Ok(1_500_000_000));
        assert_eq!(cpus("0.0000000001").unwrap_err(), "value is too precise");
        for bad in ["many", "", ".", "-1", "1e3", "99999999999999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert_eq!(cpus("many").unwrap_err(), "failed to parse many as a rational number");
    }

    #[test]
    fn integers_name_their_fault() {
        assert_eq!(integer("-3"), Ok(-3));
        assert_eq!(integer("x").unwrap_err(), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(
            integer("99999999999999999999").unwrap_err(),
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
    }
}
