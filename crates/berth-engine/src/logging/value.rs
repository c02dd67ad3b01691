//! Values of options as Go's libraries read them, which Docker's options are made for.

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go's `strconv.Atoi`.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// A size whose units are powers of 1,000, in bytes: `10m` is ten million.
pub(super) fn decimal_size(text: &str) -> Result<u64, String> {
    size(text, 1_000)
}

/// A size whose units are powers of 1,024, in bytes.
pub(crate) fn binary_size(text: &str) -> Result<u64, String> {
    size(text, 1_024)
}

fn size(text: &str, base: u64) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let factor = base.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(invalid);
    }
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
    // The cast is exact enough for a size that was given as a fraction.
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64).ok_or_else(invalid)
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    berth_api::duration::signed_nanoseconds(text).map_err(|_| format!("time: invalid duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_bases() {
        for (text, bytes) in
            [("10", 10), ("64k", 64_000), ("1.5m", 1_500_000), ("2MB", 2_000_000), ("1 g", 1_000_000_000)]
        {
            assert_eq!(decimal_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(binary_size("1KiB"), Ok(1024));
        for text in ["", "x", "-1", "99999999999p", "1x", "."] {
            assert_eq!(decimal_size(text), Err(format!("invalid size: '{text}'")), "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in
            [("0", 0), ("1.5s", 1_500_000_000), ("1m30s", 90_000_000_000), ("-2ms", -2_000_000)]
        {
            assert_eq!(duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "5", "s", "1x", "1.2.3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
