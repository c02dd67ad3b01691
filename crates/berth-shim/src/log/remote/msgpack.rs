//! The few forms of MessagePack that the forward protocol needs.

/// Appends the head of an array; the items follow. At most 15.
pub(super) fn array(out: &mut Vec<u8>, items: u8) {
    out.push(0x90 | items & 0x0f);
}

/// Appends the head of a map; keys and values follow in turn.
pub(super) fn map(out: &mut Vec<u8>, pairs: usize) {
    match pairs {
        0..16 => out.push(0x80 | pairs as u8),
        // No container has more labels.
        _ => {
            out.push(0xde);
            out.extend_from_slice(&u16::try_from(pairs).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// Appends a string. As in Docker it may be no UTF-8.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    // The casts are exact in their ranges.
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 256..65_536 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Appends a time in whole seconds.
pub(super) fn seconds(out: &mut Vec<u8>, seconds: i64) {
    out.push(0xd3);
    out.extend_from_slice(&seconds.to_be_bytes());
}

/// Appends a time with nanoseconds, in Fluentd's extension.
pub(super) fn event_time(out: &mut Vec<u8>, time: jiff::Timestamp) {
    out.extend_from_slice(&[0xd7, 0x00]);
    // The extension has 32 bits for both, as long as it lasts.
    out.extend_from_slice(&(time.as_second() as u32).to_be_bytes());
    out.extend_from_slice(&(time.subsec_nanosecond() as u32).to_be_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader of these forms sees.
    #[derive(Debug, PartialEq)]
    pub enum Value {
        Text(Vec<u8>),
        Array(Vec<Value>),
        Map(Vec<(Value, Value)>),
        Seconds(i64),
        Time(u32, u32),
    }

    pub fn read(bytes: &mut &[u8]) -> Value {
        fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
            let (head, rest) = bytes.split_at(N);
            *bytes = rest;
            head.try_into().unwrap()
        }
        let [kind] = take(bytes);
        let text = |length: usize, bytes: &mut &[u8]| {
            let (head, rest) = bytes.split_at(length);
            *bytes = rest;
            Value::Text(head.to_vec())
        };
        let pairs = |count: usize, bytes: &mut &[u8]| {
            Value::Map((0..count).map(|_| (read(bytes), read(bytes))).collect())
        };
        match kind {
            0x80..=0x8f => pairs(usize::from(kind & 15), bytes),
            0x90..=0x9f => Value::Array((0..kind & 15).map(|_| read(bytes)).collect()),
            0xa0..=0xbf => text(usize::from(kind & 31), bytes),
            0xd9 => text(usize::from(take::<1>(bytes)[0]), bytes),
            0xda => text(usize::from(u16::from_be_bytes(take(bytes))), bytes),
            0xdb => text(u32::from_be_bytes(take(bytes)) as usize, bytes),
            0xde => pairs(usize::from(u16::from_be_bytes(take(bytes))), bytes),
            0xd3 => Value::Seconds(i64::from_be_bytes(take(bytes))),
            0xd7 => {
                assert_eq!(take(bytes), [0]);
                Value::Time(u32::from_be_bytes(take(bytes)), u32::from_be_bytes(take(bytes)))
            }
            other => panic!("{other:#x}"),
        }
    }

    proptest! {
        #[test]
        fn strings_and_maps_of_any_size_are_read_back(
            lengths in prop::collection::vec(prop_oneof![0usize..40, 250usize..260, 65_530usize..65_540], 0..20), second: i64
        ) {
            let mut bytes = Vec::new();
            array(&mut bytes, 2);
            map(&mut bytes, lengths.len());
            for length in &lengths {
                string(&mut bytes, &vec![b'k'; *length]);
                seconds(&mut bytes, second);
            }
            string(&mut bytes, b"");
            let pairs = lengths.iter().map(|length| (Value::Text(vec![b'k'; *length]), Value::Seconds(second))).collect();
            let mut rest = &bytes[..];
            prop_assert_eq!(read(&mut rest), Value::Array(vec![Value::Map(pairs), Value::Text(vec![])]));
            prop_assert!(rest.is_empty());
        }
    }
}
