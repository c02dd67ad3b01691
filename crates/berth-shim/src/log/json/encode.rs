//! Making a line of the file.

use std::io::Write;

use jiff::Timestamp;

use crate::log::Stream;

/// What follows the text of every line of one chunk: the same stream, attributes and time.
#[derive(Debug, Default)]
pub(super) struct Suffix(Vec<u8>);

impl Suffix {
    /// `attributes` is a JSON object, or empty for none.
    pub(super) fn set(&mut self, stream: Stream, attributes: &[u8], time: Timestamp) {
        self.0.clear();
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        // Writing to a vector does not fail.
        let _ = write!(self.0, "\",\"stream\":\"{stream}\",");
        if !attributes.is_empty() {
            self.0.extend_from_slice(b"\"attrs\":");
            self.0.extend_from_slice(attributes);
            self.0.push(b',');
        }
        let _ = writeln!(self.0, "\"time\":\"{time}\"}}");
    }
}

/// Appends a line of the file. A `partial` text has no newline.
pub(super) fn line(out: &mut Vec<u8>, text: &[u8], partial: bool, suffix: &Suffix) {
    out.reserve(text.len() + suffix.0.len() + 16);
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    if !partial {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(&suffix.0);
}

/// Bytes that stand for themselves: ASCII without controls, quotes, backslashes, and what HTML gives a meaning.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

/// Appends `text` as the inside of a JSON string, as Docker writes it: what is no UTF-8 becomes the replacement character.
pub(super) fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&byte) = rest.first() else { return };
        if byte < 0x80 {
            escape_ascii(out, byte);
            rest = &rest[1..];
        } else {
            let end = rest.iter().position(|byte| *byte < 0x80).unwrap_or(rest.len());
            for chunk in rest[..end].utf8_chunks() {
                escape_unicode(out, chunk.valid());
                for _ in chunk.invalid() {
                    out.extend_from_slice(b"\\ufffd");
                }
            }
            rest = &rest[end..];
        }
    }
}

/// Eight at a time: most text has nothing to escape.
fn plain_prefix(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(block) = text.get(at..at + 8) {
        if !block.iter().fold(true, |plain, byte| plain & PLAIN[usize::from(*byte)]) {
            break;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| PLAIN[usize::from(**byte)]).count()
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        0x7f => out.push(byte),
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

/// The two line separators end a string in JavaScript.
fn escape_unicode(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '\u{2028}' => out.extend_from_slice(b"\\u2028"),
            '\u{2029}' => out.extend_from_slice(b"\\u2029"),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn special_characters_are_written_as_docker_writes_them() {
        assert_eq!(
            escaped(b"a\"\\\n\r\t<>&\x01\x7f"),
            "a\\\"\\\\\\n\\r\\u0009\\u003c\\u003e\\u0026\\u0001\x7f"
        );
        assert_eq!(escaped("\u{2028}ü".as_bytes()), "\\u2028ü");
        assert_eq!(escaped(b"ab\xff\xc3c"), "ab\\ufffd\\ufffdc");
    }

    #[test]
    fn a_line_has_docker_s_fields_in_docker_s_order() {
        let (mut out, mut suffix) = (Vec::new(), Suffix::default());
        let time = Timestamp::from_nanosecond(1_500_000_000).unwrap();
        suffix.set(Stream::Stderr, br#"{"a":"b"}"#, time);
        line(&mut out, b"hi", false, &suffix);
        let expected = "{\"log\":\"hi\\n\",\"stream\":\"stderr\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:01.5Z\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn a_json_reader_gets_the_text_back(text in ".{0,60}") {
            let decoded: String = serde_json::from_str(&format!("\"{}\"", escaped(text.as_bytes()))).unwrap();
            prop_assert_eq!(decoded, text);
        }

        #[test]
        fn any_bytes_make_valid_json(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let decoded: String = serde_json::from_str(&format!("\"{}\"", escaped(&bytes))).unwrap();
            prop_assert_eq!(decoded.replace('\u{fffd}', ""), String::from_utf8_lossy(&bytes).replace('\u{fffd}', ""));
        }
    }
}
