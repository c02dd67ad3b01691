//! The binary form of one record.
//!
//! ```text
//! u32 body length | u64 sequence | i64 unix nanoseconds | u8 stream | u8 flags | payload | u32 body length
//! ```
//!
//! Integers are little-endian. The body is everything between the two lengths.

use jiff::Timestamp;

/// Bytes of a body before its payload: sequence, time, stream, flags.
const BODY_HEADER: usize = 8 + 8 + 1 + 1;
/// Bytes that a record takes beyond its payload.
pub(super) const OVERHEAD: usize = 4 + BODY_HEADER + 4;
/// Bytes of the leading header: length and body header.
pub(super) const HEADER: usize = 4 + BODY_HEADER;
/// No payload is longer than this; longer lines are written as several partial records.
pub(super) const MAX_PAYLOAD: usize = 16 * 1024;

const STREAM_STDOUT: u8 = 1;
const STREAM_STDERR: u8 = 2;
const STREAM_LOST: u8 = 3;
const FLAG_PARTIAL: u8 = 1;
const LOST_PAYLOAD: usize = 16;

/// Which of the container's streams a payload came from. A terminal has only `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A line that the container wrote, or a piece of one.
    Output {
        /// Where it was written.
        stream: Stream,
        /// The line goes on in the next record of the same stream, or the stream ended without a newline: no newline
        /// follows this payload.
        partial: bool,
        /// The bytes, without the newline.
        payload: Vec<u8>,
    },
    /// Here the log could not be written for a while, and this much is missing.
    Lost {
        /// Missing records.
        records: u64,
        /// Their payload bytes.
        bytes: u64,
    },
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the container's log, from 0, without gaps but for lost records.
    pub sequence: u64,
    /// When the shim read it.
    pub time: Timestamp,
    /// What it says.
    pub entry: Entry,
}

/// What lies at the front (or the back) of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<T> {
    /// A whole record, and how many bytes it takes.
    Whole(T, usize),
    /// The bytes end before the record does.
    Incomplete,
    /// No writer wrote this.
    Damaged,
}

/// Appends the record of a line (or of a piece of one) to `out`.
pub(super) fn encode_output(
    out: &mut Vec<u8>,
    sequence: u64,
    nanos: i64,
    stream: Stream,
    partial: bool,
    payload: &[u8],
) {
    let stream = match stream {
        Stream::Stdout => STREAM_STDOUT,
        Stream::Stderr => STREAM_STDERR,
    };
    encode(out, sequence, nanos, stream, if partial { FLAG_PARTIAL } else { 0 }, payload);
}

/// Appends the record that says how much is missing.
pub(super) fn encode_lost(out: &mut Vec<u8>, sequence: u64, nanos: i64, records: u64, bytes: u64) {
    let mut payload = [0; LOST_PAYLOAD];
    payload[..8].copy_from_slice(&records.to_le_bytes());
    payload[8..].copy_from_slice(&bytes.to_le_bytes());
    encode(out, sequence, nanos, STREAM_LOST, 0, &payload);
}

fn encode(out: &mut Vec<u8>, sequence: u64, nanos: i64, stream: u8, flags: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD, "payloads are split before they come here");
    // The cast is exact: a payload has at most MAX_PAYLOAD bytes.
    let length = ((BODY_HEADER + payload.len()) as u32).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&nanos.to_le_bytes());
    out.extend_from_slice(&[stream, flags]);
    out.extend_from_slice(payload);
    out.extend_from_slice(&length);
}

/// The size of the whole record that a length field announces, if any writer could have written it.
fn record_size(length: [u8; 4]) -> Option<usize> {
    let body = u32::from_le_bytes(length) as usize;
    (BODY_HEADER..=BODY_HEADER + MAX_PAYLOAD).contains(&body).then_some(body + 8)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The size of the record that ends at the end of `bytes`.
pub(super) fn size_from_back(bytes: &[u8]) -> Parsed<()> {
    let Some(length) = bytes.len().checked_sub(4).and_then(|at| array::<4>(bytes, at)) else {
        return Parsed::Incomplete;
    };
    match record_size(length) {
        Some(size) => Parsed::Whole((), size),
        None => Parsed::Damaged,
    }
}

/// Parses the record at the front of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed<Record> {
    let Some(length) = array::<4>(bytes, 0) else { return Parsed::Incomplete };
    let Some(size) = record_size(length) else { return Parsed::Damaged };
    let Some(record) = bytes.get(..size) else { return Parsed::Incomplete };
    if record[size - 4..] != length {
        return Parsed::Damaged;
    }
    match decode(record) {
        Some(record) => Parsed::Whole(record, size),
        None => Parsed::Damaged,
    }
}

fn decode(record: &[u8]) -> Option<Record> {
    let sequence = u64::from_le_bytes(array(record, 4)?);
    let nanos = i64::from_le_bytes(array(record, 12)?);
    let time = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
    let (stream, flags) = (record[20], record[21]);
    let payload = &record[HEADER..record.len() - 4];
    let entry = match stream {
        STREAM_STDOUT | STREAM_STDERR => {
            let stream = if stream == STREAM_STDOUT { Stream::Stdout } else { Stream::Stderr };
            Entry::Output { stream, partial: flags & FLAG_PARTIAL != 0, payload: payload.to_vec() }
        }
        STREAM_LOST if payload.len() == LOST_PAYLOAD => Entry::Lost {
            records: u64::from_le_bytes(array(payload, 0)?),
            bytes: u64::from_le_bytes(array(payload, 8)?),
        },
        _ => return None,
    };
    Some(Record { sequence, time, entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_from_both_ends(
            sequence: u64, nanos: i64, stderr: bool, partial: bool,
            payload in prop::collection::vec(any::<u8>(), 0..2000), tail in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let mut bytes = Vec::new();
            encode_output(&mut bytes, sequence, nanos, stream, partial, &payload);
            prop_assert_eq!(bytes.len(), OVERHEAD + payload.len());
            prop_assert_eq!(size_from_back(&bytes), Parsed::Whole((), bytes.len()));
            for cut in [0, 3, 4, bytes.len() - 1] {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
            let size = bytes.len();
            bytes.extend_from_slice(&tail);
            let expected = Record {
                sequence,
                time: Timestamp::from_nanosecond(i128::from(nanos)).unwrap(),
                entry: Entry::Output { stream, partial, payload },
            };
            prop_assert_eq!(parse(&bytes), Parsed::Whole(expected, size));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = size_from_back(&bytes);
        }

        #[test]
        fn a_plausible_length_over_random_bytes_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 30..200)) {
            let length = ((bytes.len() - 8) as u32).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
            let end = bytes.len() - 4;
            bytes[end..].copy_from_slice(&length);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn lost_records_round_trip() {
        let mut bytes = Vec::new();
        encode_lost(&mut bytes, 7, 1, 3, 400);
        let Parsed::Whole(record, _) = parse(&bytes) else { panic!("not whole") };
        assert_eq!(record.entry, Entry::Lost { records: 3, bytes: 400 });
    }
}
