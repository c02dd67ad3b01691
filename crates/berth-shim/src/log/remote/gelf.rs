//! Graylog's protocol: JSON documents, over UDP compressed and in chunks, over TCP with a zero byte after each.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::{GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Message;
use crate::log::Stream;

/// Bytes of the largest datagram, with its head.
const CHUNK: usize = 1420;
const HEAD: usize = 12;
/// The protocol has no numbers for more.
const MOST_CHUNKS: usize = 128;

/// How datagrams are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// With gzip.
    Gzip,
    /// With zlib.
    Zlib,
    /// Not at all.
    None,
}

/// What is the same in all messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gelf {
    /// Name of this host.
    pub host: String,
    /// Further fields, whose names begin with an underscore.
    pub fields: BTreeMap<String, String>,
    /// Of datagrams; `None` for TCP.
    pub datagrams: Option<Compression>,
    /// 0 to 9.
    pub level: u32,
}

impl Gelf {
    /// An empty line, and one that takes too many chunks, has no packets.
    pub(super) fn encode(&self, message: &Message<'_>) -> Vec<Vec<u8>> {
        if message.text.is_empty() {
            return Vec::new();
        }
        let mut document = self.document(message);
        let Some(compression) = self.datagrams else {
            document.push(0);
            return vec![document];
        };
        let body = compress(&document, compression, self.level).unwrap_or(document);
        if body.len() <= CHUNK { vec![body] } else { chunks(&body) }
    }

    fn document(&self, message: &Message<'_>) -> Vec<u8> {
        let mut document: serde_json::Map<_, _> =
            self.fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        document.insert("version".into(), json!("1.1"));
        document.insert("host".into(), json!(self.host));
        document.insert("short_message".into(), json!(String::from_utf8_lossy(message.text)));
        document.insert("timestamp".into(), json!(message.time.as_millisecond() as f64 / 1000.0));
        document.insert("level".into(), json!(if message.stream == Stream::Stdout { 6 } else { 3 }));
        serde_json::Value::Object(document).to_string().into_bytes()
    }
}

fn compress(document: &[u8], compression: Compression, level: u32) -> Option<Vec<u8>> {
    let level = flate2::Compression::new(level.min(9));
    match compression {
        Compression::None => None,
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(document).ok()?;
            encoder.finish().ok()
        }
        Compression::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(document).ok()?;
            encoder.finish().ok()
        }
    }
}

fn chunks(body: &[u8]) -> Vec<Vec<u8>> {
    let count = body.len().div_ceil(CHUNK - HEAD);
    if count > MOST_CHUNKS {
        return Vec::new();
    }
    let mut id = [0u8; 8];
    // Without randomness the parts of two messages may be mixed up.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    let chunk = |(number, part): (usize, &[u8])| {
        // The casts are exact: there are no more than 128.
        [&[0x1e, 0x0f], &id[..], &[number as u8, count as u8], part].concat()
    };
    body.chunks(CHUNK - HEAD).enumerate().map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use proptest::prelude::*;

    fn join(packets: &[Vec<u8>]) -> Vec<u8> {
        match packets {
            [only] if !only.starts_with(&[0x1e, 0x0f]) => only.clone(),
            _ => packets.iter().enumerate().fold(Vec::new(), |mut body, (number, packet)| {
                assert_eq!(packet[..10], [&[0x1e, 0x0f], &packets[0][2..10]].concat());
                assert_eq!(packet[10..12], [number as u8, packets.len() as u8]);
                assert!(packet.len() <= CHUNK);
                body.extend_from_slice(&packet[12..]);
                body
            }),
        }
    }

    proptest! {
        #[test]
        fn documents_come_back_from_datagrams(text in prop::collection::vec(any::<u8>(), 1..16_384), kind in 0..3) {
            let compression = [Compression::Gzip, Compression::Zlib, Compression::None][kind as usize];
            let fields = BTreeMap::from([("_tag".to_owned(), "t".to_owned())]);
            let gelf = Gelf { host: "h".into(), fields, datagrams: Some(compression), level: 1 };
            let body = join(&gelf.encode(&super::super::message(&text)));
            let mut document = Vec::new();
            match compression {
                Compression::Gzip => flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut document).map(drop).unwrap(),
                Compression::Zlib => flate2::read::ZlibDecoder::new(&body[..]).read_to_end(&mut document).map(drop).unwrap(),
                Compression::None => document = body,
            }
            let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
            prop_assert_eq!(&document["short_message"], &json!(String::from_utf8_lossy(&text)));
            prop_assert_eq!((&document["_tag"], &document["level"]), (&json!("t"), &json!(6)));
            prop_assert_eq!(&document["timestamp"], &json!(1_700_000_000.123));
        }
    }

    #[test]
    fn over_tcp_a_zero_byte_ends_each_document() {
        let gelf = Gelf { host: "h".into(), fields: BTreeMap::new(), datagrams: None, level: 1 };
        let packets = gelf.encode(&super::super::message(b"x"));
        assert!(packets.len() == 1 && packets[0].ends_with(b"}\0"));
        assert!(gelf.encode(&super::super::message(b"")).is_empty());
    }
}
