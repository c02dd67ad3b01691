//! PAX extended header records (POSIX.1-2017, pax, "pax Extended Header").

/// A point in time as a PAX record or a header gives it: seconds since the epoch and nanoseconds above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// One record; keyword and value are bytes, the value may hold any byte.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the body of an extended header into its records.
pub(crate) fn records(mut body: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let space = body.iter().take(20).position(|&b| b == b' ').ok_or("a PAX record has no length")?;
        let length = decimal(&body[..space]).ok_or("a PAX record's length is not a number")?;
        let length = usize::try_from(length).map_err(|_| "a PAX record is too long")?;
        if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
            return Err("a PAX record's length is wrong".into());
        }
        let record = &body[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or("a PAX record has no '='")?;
        records.push((&record[..equals], &record[equals + 1..]));
        body = &body[length..];
    }
    Ok(records)
}

/// Parses unsigned decimal digits, nothing else.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses a PAX time: `[-]seconds[.fraction]`. Digits beyond nanoseconds are cut off towards the past.
pub(crate) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0u32;
    for position in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(position).map_or(0, |digit| u32::from(digit - b'0'));
    }
    if !negative {
        return Some(Time { seconds, nanoseconds });
    }
    if nanoseconds == 0 {
        return Some(Time { seconds: -seconds, nanoseconds });
    }
    Some(Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;

    /// Writes one record; the length counts itself.
    fn append(body: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
        let rest = keyword.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(length.to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(keyword);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }

    /// A time as a PAX value.
    fn format_time(time: Time) -> String {
        if time.nanoseconds == 0 {
            return time.seconds.to_string();
        }
        if time.seconds >= 0 {
            return format!("{}.{:09}", time.seconds, time.nanoseconds);
        }
        let whole = Duration::new(time.seconds.unsigned_abs(), 0) - Duration::new(0, time.nanoseconds);
        format!("-{}.{:09}", whole.as_secs(), whole.subsec_nanos())
    }

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let mut body = Vec::new();
        append(&mut body, b"SCHILY.xattr.security.capability", b"\x01\n\0=\n");
        append(&mut body, b"path", b"a");
        let records = records(&body).unwrap();
        assert_eq!(records[0], (&b"SCHILY.xattr.security.capability"[..], &b"\x01\n\0=\n"[..]));
        assert_eq!(records[1], (&b"path"[..], &b"a"[..]));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for bad in
            [&b"5 a=b"[..], b"6 a=b\n7", b"99 a=b\n", b"2 \n", b"-6 a=b\n", b"x a=b\n", b"6 a-b\n", b"0 \n"]
        {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_below_the_epoch_count_upwards() {
        assert_eq!(time(b"12.5"), Some(Time { seconds: 12, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-1.25"), Some(Time { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(time(b"-3"), Some(Time { seconds: -3, nanoseconds: 0 }));
        assert_eq!(time(b"1.0000000019"), Some(Time { seconds: 1, nanoseconds: 1 }));
        for bad in [&b""[..], b"-", b"1.x", b"+1", b"1e3", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(pairs in proptest::collection::vec(("[a-zA-Z.]{1,30}", proptest::collection::vec(any::<u8>(), 0..200)), 0..8)) {
            let mut body = Vec::new();
            for (keyword, value) in &pairs {
                append(&mut body, keyword.as_bytes(), value);
            }
            let read = records(&body).unwrap();
            prop_assert_eq!(read.len(), pairs.len());
            for ((keyword, value), (want_keyword, want_value)) in read.iter().zip(&pairs) {
                prop_assert_eq!(*keyword, want_keyword.as_bytes());
                prop_assert_eq!(*value, &want_value[..]);
            }
        }

        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = records(&bytes);
            let _ = time(&bytes);
        }

        #[test]
        fn times_round_trip(seconds in -10_000_000_000i64..10_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let value = Time { seconds, nanoseconds };
            prop_assert_eq!(time(format_time(value).as_bytes()), Some(value));
        }
    }
}
