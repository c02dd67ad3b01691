//! The journal's native protocol: a datagram of fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::log::Stream;

/// What is the same in all messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journald {
    /// Fields by name; names are of capitals, digits and underscores.
    pub fields: BTreeMap<String, String>,
}

impl Journald {
    pub(super) fn encode(&self, message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.text.len() + 512);
        field(&mut out, "MESSAGE", message.text);
        let priority: &[u8] = if message.stream == Stream::Stdout { b"6" } else { b"3" };
        field(&mut out, "PRIORITY", priority);
        for (name, value) in &self.fields {
            field(&mut out, name, value.as_bytes());
        }
        field(&mut out, "SYSLOG_TIMESTAMP", message.time.to_string().as_bytes());
        field(&mut out, "CONTAINER_LOG_ORDINAL", message.ordinal.to_string().as_bytes());
        if let Some(piece) = message.piece {
            field(&mut out, "CONTAINER_PARTIAL_ID", piece.id.as_bytes());
            field(&mut out, "CONTAINER_PARTIAL_ORDINAL", piece.ordinal.to_string().as_bytes());
            field(&mut out, "CONTAINER_PARTIAL_LAST", piece.last.to_string().as_bytes());
            if !piece.last {
                field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
        }
        out
    }
}

/// A value with a newline has its length before it.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Piece;
    use super::*;
    use proptest::prelude::*;

    fn read(mut bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let (skip, length) = match bytes[end] {
                b'=' => (1, bytes[end + 1..].iter().position(|byte| *byte == b'\n').unwrap()),
                _ => (9, u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize),
            };
            let value = &bytes[end + skip..end + skip + length];
            fields.insert(name, value.to_vec());
            assert_eq!(bytes[end + skip + length], b'\n');
            bytes = &bytes[end + skip + length + 1..];
        }
        fields
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(text in prop::collection::vec(any::<u8>(), 0..300), value in "[a-z\n=]{0,20}", last: bool) {
            let journald = Journald { fields: BTreeMap::from([("FOO".to_owned(), value.clone())]) };
            let piece = Some(Piece { id: "x", ordinal: 2, last });
            let fields = read(&journald.encode(&Message { piece, ..super::super::message(&text) }));
            prop_assert_eq!(&fields["MESSAGE"], &text);
            prop_assert_eq!(&fields["FOO"], value.as_bytes());
            prop_assert_eq!(&fields["PRIORITY"], b"6");
            prop_assert_eq!(fields.contains_key("CONTAINER_PARTIAL_MESSAGE"), !last);
        }
    }
}
