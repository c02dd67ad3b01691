//! Durations and moments: `1m30s`, `2023-11-14T22:13:20Z`.

use jiff::Timestamp;

/// Reads a duration as Go's `time.ParseDuration`, without a sign; gives nanoseconds.
///
/// # Errors
/// Go's text for what is wrong with it.
pub fn nanoseconds(text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * scale;
        rest = tail;
    }
    if total < 9_223_372_036_854_775_808.0 { Ok(total as i64) } else { Err(wrong()) }
}

/// As [`nanoseconds`], with a sign.
pub fn signed_nanoseconds(text: &str) -> Result<i64, String> {
    match text.strip_prefix('-') {
        Some(rest) => nanoseconds(rest).map(|time| -time),
        None => nanoseconds(text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Reads a moment as clients write it: a duration before `now`, a date, or seconds since 1970 with an optional fraction.
///
/// # Errors
/// A text, for the user, if it is none of them.
pub fn at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || format!("invalid value for time: {text:?}");
    if let Ok(before) = nanoseconds(text) {
        return now.checked_sub(jiff::SignedDuration::from_nanos(before)).map_err(|_| wrong());
    }
    let number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(number) {
        return seconds(text).ok_or_else(wrong);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // Without a zone, and perhaps without a time: UTC.
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        13 => format!("{text}:00:00Z"),
        16 => format!("{text}:00Z"),
        11 if text.ends_with('Z') => format!("{}T00:00:00Z", &text[..10]),
        _ => format!("{text}Z"),
    };
    full.parse().map_err(|_| wrong())
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanoseconds).ok()
}

/// As [`at`], for `--since` and `--until`. Gives what the API takes: `seconds.nanoseconds`.
///
/// # Errors
/// As [`at`].
pub fn moment(text: &str, now: Timestamp) -> Result<String, String> {
    let time = at(text, now)?;
    let (seconds, nanoseconds) = (time.as_second(), time.subsec_nanosecond());
    Ok(format!("{seconds}.{nanoseconds:09}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(nanoseconds("1m30s"), Ok(90_000_000_000));
        assert_eq!(nanoseconds("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(nanoseconds("10ms"), Ok(10_000_000));
        assert_eq!(nanoseconds("0"), Ok(0));
        for bad in ["", "1", "x", "1x", "1..s", "s", "-1s"] {
            assert!(nanoseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_take_many_forms() {
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        assert_eq!(moment("10s", now).unwrap(), "1699999990.000000000");
        assert_eq!(moment("1600000000", now).unwrap(), "1600000000.000000000");
        assert_eq!(moment("1600000000.5", now).unwrap(), "1600000000.500000000");
        assert_eq!(moment("2023-11-14T22:13:20Z", now).unwrap(), "1700000000.000000000");
        assert_eq!(moment("2023-11-14T22:13:20.5", now).unwrap(), "1700000000.500000000");
        assert_eq!(moment("2023-11-14", now).unwrap(), "1699920000.000000000");
        assert!(moment("yesterday", now).is_err());
        assert!(moment("1.2.3", now).is_err());
        assert!(moment("1.1234567890", now).is_err());
        assert!(moment("é2023-11-1", now).is_err());
    }
}
