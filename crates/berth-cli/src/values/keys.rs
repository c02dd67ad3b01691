//! Key sequences that detach: `ctrl-p,ctrl-q`.

/// What detaches unless another sequence is chosen: ctrl-p ctrl-q.
pub const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Reads a sequence as the bytes that a terminal sends for it.
pub fn sequence(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(key)
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| "invalid detach keys provided: ".to_owned() + text)
}

fn key(text: &str) -> Option<u8> {
    if let [byte] = text.as_bytes() {
        return Some(*byte);
    }
    let letter = text.strip_prefix("ctrl-")?;
    match letter.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read() {
        assert_eq!(sequence("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(sequence("a,ctrl-@,ctrl-[").unwrap(), [b'a', 0, 27]);
        for bad in ["", "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-é"] {
            assert!(sequence(bad).is_err(), "{bad}");
        }
    }
}
