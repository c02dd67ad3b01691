//! What a terminal sends for keys.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// The keys in what was read at once. A terminal sends what one key makes in one piece, so that an escape at the end is
/// that key.
pub fn read(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    let mut keys = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (key, length) = match first {
            '\x1b' => sequence(rest),
            '\r' | '\n' => (Some(Key::Enter), 1),
            '\x7f' | '\x08' => (Some(Key::Backspace), 1),
            '\x03' => (Some(Key::Interrupt), 1),
            '\x10' => (Some(Key::Up), 1),
            '\x0e' => (Some(Key::Down), 1),
            first if first.is_control() => (None, first.len_utf8()),
            first => (Some(Key::Char(first)), first.len_utf8()),
        };
        keys.extend(key);
        rest = &rest[length..];
    }
    keys
}

/// The key of an escape sequence, if it is known, and the sequence's length.
fn sequence(text: &str) -> (Option<Key>, usize) {
    let bytes = text.as_bytes();
    if !matches!(bytes.get(1), Some(b'[' | b'O')) {
        return (Some(Key::Escape), 1);
    }
    let Some(end) = bytes.iter().skip(2).position(|byte| (0x40..=0x7e).contains(byte)) else {
        return (None, bytes.len());
    };
    let key = match &bytes[2..end + 3] {
        b"A" => Some(Key::Up),
        b"B" => Some(Key::Down),
        b"H" | b"1~" | b"7~" => Some(Key::Home),
        b"F" | b"4~" | b"8~" => Some(Key::End),
        b"5~" => Some(Key::PageUp),
        b"6~" => Some(Key::PageDown),
        _ => None,
    };
    (key, end + 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(read(b"jq\r"), [Key::Char('j'), Key::Char('q'), Key::Enter]);
        assert_eq!(read(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"), [Key::Up, Key::Down, Key::PageUp, Key::PageDown]);
        assert_eq!(read(b"\x1b"), [Key::Escape]);
        assert_eq!(read(b"\x1b[1;5Cx\x03\x7f"), [Key::Char('x'), Key::Interrupt, Key::Backspace]);
        assert_eq!(read("é".as_bytes()), [Key::Char('é')]);
    }

    proptest! {
        #[test]
        fn anything_can_be_typed(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            read(&bytes);
        }
    }
}
