//! Reading a line of the file.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use crate::log::{Entry, Record, Stream};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    time: Timestamp,
}

/// Parses a line without its newline; `None` if no writer of this format wrote it.
pub(super) fn parse(bytes: &[u8]) -> Option<Record> {
    let line: Line<'_> = serde_json::from_slice(bytes).ok()?;
    let stream = match &*line.stream {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let mut payload = line.log.into_owned().into_bytes();
    let partial = payload.pop_if(|byte| *byte == b'\n').is_none();
    // The format has no sequence numbers.
    Some(Record { sequence: 0, time: line.time, entry: Entry::Output { stream, partial, payload } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn docker_s_own_lines_are_read() {
        let record = parse(br#"{"log":"a \u003cb\u003e\n","stream":"stderr","attrs":{"k":"v"},"time":"2024-01-02T03:04:05.6Z"}"#);
        let record = record.unwrap();
        let entry = Entry::Output { stream: Stream::Stderr, partial: false, payload: b"a <b>".to_vec() };
        assert_eq!((record.entry, record.time.to_string()), (entry, "2024-01-02T03:04:05.6Z".into()));
        let piece = parse(br#"{"log":"a","stream":"stdout","time":"2024-01-02T03:04:05Z"}"#).unwrap();
        assert!(matches!(piece.entry, Entry::Output { partial: true, .. }));
        assert!(parse(br#"{"log":"a"#).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,80}", partial: bool, stderr: bool, nanos in 0i64..i64::MAX) {
            // A piece of a line that ends in a newline does not come out of the splitter.
            prop_assume!(!partial || !text.ends_with('\n'));
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let time = Timestamp::from_nanosecond(nanos.into()).unwrap();
            let (mut out, mut suffix) = (Vec::new(), super::super::encode::Suffix::default());
            suffix.set(stream, b"", time);
            super::super::encode::line(&mut out, text.as_bytes(), partial, &suffix);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            let expected = Record { sequence: 0, time, entry: Entry::Output { stream, partial, payload: text.into_bytes() } };
            prop_assert_eq!(parse(&out), Some(expected));
        }
    }
}
