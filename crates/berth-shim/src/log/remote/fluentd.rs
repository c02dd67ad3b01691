//! Fluentd's forward protocol: `[tag, time, record]`, and an acknowledgement if that is asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Acknowledgement, Message, Packet, msgpack, random_name};
use crate::log::Stream;

/// Short enough that everybody writes it in the same form.
const CHUNK_NAME: usize = 24;

/// What is the same in all messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fluentd {
    /// The tag.
    pub tag: String,
    /// What every record has.
    pub fields: BTreeMap<String, String>,
    /// Times have nanoseconds.
    pub sub_second: bool,
    /// The other side is to acknowledge each message.
    pub acknowledge: bool,
}

impl Fluentd {
    pub(super) fn encode(&self, message: &Message<'_>) -> Packet {
        let mut bytes = Vec::with_capacity(message.text.len() + 256);
        msgpack::array(&mut bytes, if self.acknowledge { 4 } else { 3 });
        msgpack::string(&mut bytes, self.tag.as_bytes());
        match self.sub_second {
            true => msgpack::event_time(&mut bytes, message.time),
            false => msgpack::seconds(&mut bytes, message.time.as_second()),
        }
        let source: &[u8] = if message.stream == Stream::Stdout { b"stdout" } else { b"stderr" };
        let mut pairs: Vec<(&str, Vec<u8>)> =
            vec![("log", message.text.to_vec()), ("source", source.to_vec())];
        if let Some(piece) = message.piece {
            pairs.push(("partial_message", b"true".to_vec()));
            pairs.push(("partial_id", piece.id.into()));
            pairs.push(("partial_ordinal", piece.ordinal.to_string().into()));
            pairs.push(("partial_last", piece.last.to_string().into()));
        }
        msgpack::map(&mut bytes, pairs.len() + self.fields.len());
        for (name, value) in &self.fields {
            msgpack::string(&mut bytes, name.as_bytes());
            msgpack::string(&mut bytes, value.as_bytes());
        }
        for (name, value) in pairs {
            msgpack::string(&mut bytes, name.as_bytes());
            msgpack::string(&mut bytes, &value);
        }
        if !self.acknowledge {
            return bytes.into();
        }
        let chunk = random_name(CHUNK_NAME);
        pair(&mut bytes, "chunk", &chunk);
        let mut acknowledgement = Vec::new();
        pair(&mut acknowledgement, "ack", &chunk);
        Packet { bytes, acknowledgement: Acknowledgement::Bytes(acknowledgement) }
    }
}

fn pair(out: &mut Vec<u8>, name: &str, value: &str) {
    msgpack::map(out, 1);
    msgpack::string(out, name.as_bytes());
    msgpack::string(out, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::msgpack::tests::{Value, read};
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn a_message_is_tag_time_and_record() {
        let fields = BTreeMap::from([("container_id".to_owned(), "abc".to_owned())]);
        let mut fluentd = Fluentd { tag: "t".into(), fields, sub_second: false, acknowledge: false };
        let message = super::super::message(b"hi");
        let record = Value::Map(vec![
            (text("container_id"), text("abc")),
            (text("log"), text("hi")),
            (text("source"), text("stdout")),
        ]);
        let packet = fluentd.encode(&message);
        let expected = Value::Array(vec![text("t"), Value::Seconds(1_700_000_000), record]);
        assert_eq!(read(&mut &packet.bytes[..]), expected);
        assert_eq!(packet.acknowledgement, Acknowledgement::None);
        (fluentd.sub_second, fluentd.acknowledge) = (true, true);
        let packet = fluentd.encode(&message);
        let Value::Array(items) = read(&mut &packet.bytes[..]) else { panic!() };
        assert_eq!(items[1], Value::Time(1_700_000_000, 123_456_789));
        let Value::Map(options) = &items[3] else { panic!() };
        let Acknowledgement::Bytes(bytes) = packet.acknowledgement else { panic!() };
        let Value::Map(answer) = read(&mut &bytes[..]) else { panic!() };
        assert_eq!((&options[0].0, &answer[0].0), (&text("chunk"), &text("ack")));
        assert_eq!(options[0].1, answer[0].1);
    }
}
