//! Sizes in bytes: `64m`, `1.5GiB`, `100`.

/// Reads a size. Units are binary: `k` is 1024 bytes.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: '{text}'");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |last| last + 1);
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix);
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = if plain {
        number.parse().map_err(|_| wrong())?
    } else {
        return Err(wrong());
    };
    let lower = suffix.to_ascii_lowercase();
    let unit = match lower.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    let bytes = value * f64::from(1024_u16).powi(unit);
    // 2^63 does not fit; below it, the cast is exact enough.
    if bytes >= 9_223_372_036_854_775_808.0 { Err(wrong() + ": too large") } else { Ok(bytes as i64) }
}

/// As [`bytes`], and `-1` for no limit.
pub fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_binary() {
        for (text, size) in [
            ("0", 0),
            ("100", 100),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1gb", 1 << 30),
            ("1GiB", 1 << 30),
            ("1.5k", 1536),
            ("2 kb", 2048),
            ("3b", 3),
            ("1t", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["12q", "10mm", "", "m", "-5", "1..2", "1e5k", "1 000", "9999999p", "mib1", "0x10"] {
            let error = bytes(text).unwrap_err();
            assert!(error.starts_with("invalid "), "{error}");
        }
        assert_eq!(bytes("12q").unwrap_err(), "invalid suffix: 'q'");
    }

    proptest! {
        #[test]
        fn any_text_gives_a_size_or_an_error(text in ".{0,12}") {
            if let Ok(size) = bytes(&text) {
                prop_assert!(size >= 0);
            }
        }

        #[test]
        fn whole_numbers_are_exact(number in 0_i64..1 << 50) {
            prop_assert_eq!(bytes(&number.to_string()), Ok(number));
        }
    }
}
