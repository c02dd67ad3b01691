//! Errors of parsing in the words of Go's standard library, which clients and their tests look for.

/// Why `bytes` are no JSON document, as `encoding/json` says it.
pub fn json(bytes: &[u8], error: &serde_json::Error) -> String {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return "EOF".to_owned();
    }
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let text = error.to_string();
    let place = [
        ("key must be a string", "looking for beginning of object key string"),
        ("expected value", "looking for beginning of value"),
        ("expected ident", "looking for beginning of value"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing comma", "looking for beginning of value"),
    ];
    let place = place.iter().find(|(serde, _)| text.starts_with(serde)).map(|(_, go)| go);
    match (place, character(bytes, error.line(), error.column())) {
        (Some(place), Some(character)) => format!("invalid character '{character}' {place}"),
        _ => text,
    }
}

/// The character at a position that counts lines and bytes of a line from 1.
fn character(bytes: &[u8], line: usize, column: usize) -> Option<char> {
    let line = bytes.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    let rest = line.get(column.checked_sub(1)?..)?;
    let text = rest.utf8_chunks().next()?.valid();
    Some(text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Reads a number of at most `bits` bits as `strconv.ParseUint` does; the error is why it is none.
pub fn unsigned(text: &str, bits: u32) -> Result<u64, &'static str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    // Go calls a minus sign a syntax error; Docker's daemon, a number out of range.
    let number = text.parse::<u64>().ok().filter(|number| bits >= 64 || number >> bits == 0);
    number.ok_or("value out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_errors_are_gos() {
        for (text, words) in [
            ("", "EOF"),
            (" \n", "EOF"),
            ("{invalid json", "invalid character 'i' looking for beginning of object key string"),
            ("{\n  \"a\": é}", "invalid character 'é' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\": ", "unexpected EOF"),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(json(text.as_bytes(), &error), words, "{text}");
        }
    }

    #[test]
    fn number_errors_are_gos() {
        for (text, words) in [
            ("", "invalid syntax"),
            ("x", "invalid syntax"),
            ("-", "invalid syntax"),
            ("+1", "invalid syntax"),
            ("-100", "value out of range"),
            ("4294967296", "value out of range"),
            ("99999999999999999999", "value out of range"),
        ] {
            assert_eq!(unsigned(text, 32), Err(words), "{text}");
        }
        assert_eq!(unsigned("65535", 16), Ok(65535));
        assert_eq!(unsigned("18446744073709551615", 64), Ok(u64::MAX));
    }
}
