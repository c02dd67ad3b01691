//! Packets, as what they mean.

use bytes::Bytes;
use prost::Message as _;

use crate::protocol::fsutil::types::Packet;
use crate::protocol::fsutil::types::packet::PacketType;
use crate::{Entry, Error};

/// The largest packet that is taken, in bytes, as with BuildKit.
pub const LARGEST: usize = 16 << 20;
/// The longest error that is shown.
const LONGEST_ERROR: usize = 4 << 10;

/// What one end tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// There is such a file. Its number is how many came before it.
    Entry(Box<Entry>),
    /// There are no more.
    End,
    /// The content of this file is wanted.
    Request(u32),
    /// A part of a file's content; empty after the last one.
    Data(u32, Bytes),
    /// All that was wanted has come.
    Finished,
    /// It failed.
    Failed(String),
}

impl Message {
    /// What a packet means.
    ///
    /// # Errors
    /// [`Error::Refused`] for what means nothing.
    pub fn of(packet: Packet) -> Result<Message, Error> {
        Ok(match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => Message::Entry(Box::new(Entry::from_stat(stat)?)),
                None => Message::End,
            },
            Ok(PacketType::PacketReq) => Message::Request(packet.id),
            Ok(PacketType::PacketData) => Message::Data(packet.id, packet.data),
            Ok(PacketType::PacketFin) => Message::Finished,
            Ok(PacketType::PacketErr) => {
                let text = &packet.data[..packet.data.len().min(LONGEST_ERROR)];
                Message::Failed(String::from_utf8_lossy(text).into_owned())
            }
            Err(_) => return Err(Error::refused(format!("unknown packet {}", packet.r#type))),
        })
    }

    /// The packet that means this.
    pub fn packet(self) -> Packet {
        let of = |kind: PacketType| Packet { r#type: kind.into(), ..Packet::default() };
        match self {
            Message::Entry(entry) => Packet { stat: Some(entry.to_stat()), ..of(PacketType::PacketStat) },
            Message::End => of(PacketType::PacketStat),
            Message::Request(id) => Packet { id, ..of(PacketType::PacketReq) },
            Message::Data(id, data) => Packet { id, data, ..of(PacketType::PacketData) },
            Message::Finished => of(PacketType::PacketFin),
            Message::Failed(text) => Packet { data: text.into(), ..of(PacketType::PacketErr) },
        }
    }
}

/// Entries as bytes, to be kept.
pub fn to_bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        // Room is made as it is needed: this cannot fail.
        let _ = entry.to_stat().encode_length_delimited(&mut bytes);
    }
    bytes
}

/// Entries that were kept.
///
/// # Errors
/// They were not made by [`to_bytes`], or not all of them are there.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let stat = crate::protocol::fsutil::types::Stat::decode_length_delimited(&mut rest);
        entries.push(Entry::from_stat(stat.map_err(|_| Error::Damaged)?)?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Kind;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File,
            permissions: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            modified: 4,
            link: Vec::new(),
            device: (0, 0),
            capability: b"c".to_vec(),
        }
    }

    #[test]
    fn packets_are_those_of_other_programs() {
        // Field 1 is the type, 3 the number, 4 the data; a stat is field 2, and a type of zero is not written.
        assert_eq!(Message::Request(7).packet().encode_to_vec(), [8, 1, 24, 7]);
        assert_eq!(
            Message::Data(1, Bytes::from_static(b"ab")).packet().encode_to_vec(),
            [8, 2, 24, 1, 34, 2, b'a', b'b']
        );
        assert_eq!(Message::Finished.packet().encode_to_vec(), [8, 3]);
        assert!(Message::End.packet().encode_to_vec().is_empty());
        let stat = [18, 6, 10, 1, b'x', 16, 0xa4, 0x03];
        let Message::Entry(read) = Message::of(Packet::decode(&stat[..]).unwrap()).unwrap() else { panic!() };
        assert_eq!((read.path.as_slice(), read.permissions), (&b"x"[..], 0o644));
    }

    #[test]
    fn entries_are_kept_as_they_are() {
        let entries = vec![entry("a"), entry("b/c")];
        let bytes = to_bytes(&entries);
        assert_eq!(from_bytes(&bytes).unwrap(), entries);
        assert!(from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(from_bytes(&to_bytes(&[entry("..")])).is_err());
        assert_eq!(from_bytes(b"").unwrap(), []);
    }

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            "[a-z]{1,9}(/[a-z]{1,9}){0,3}".prop_map(|path| Message::Entry(Box::new(entry(&path)))),
            Just(Message::End),
            any::<u32>().prop_map(Message::Request),
            (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..99))
                .prop_map(|(id, data)| Message::Data(id, data.into())),
            Just(Message::Finished),
            ".{0,30}".prop_map(Message::Failed),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(message in any_message()) {
            let bytes = message.clone().packet().encode_to_vec();
            prop_assert_eq!(Message::of(Packet::decode(bytes.as_slice()).unwrap()).unwrap(), message);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packet) = Packet::decode(bytes.as_slice()) {
                let _ = Message::of(packet);
            }
            let _ = from_bytes(&bytes);
        }
    }
}
