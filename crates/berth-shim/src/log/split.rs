//! Lines out of chunks.

use super::record::{MAX_PAYLOAD, Stream};

/// Splits the chunks of one stream into payloads of at most 16 KiB that end at a newline where there is one.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: Stream,
    /// The beginning of a line whose newline has not come; shorter than `MAX_PAYLOAD`.
    rest: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Calls `emit(stream, partial, payload)` for everything that is complete.
    pub(crate) fn push(&mut self, chunk: &[u8], mut emit: impl FnMut(Stream, bool, &[u8])) {
        let mut chunk = chunk;
        while !chunk.is_empty() {
            let room = MAX_PAYLOAD - self.rest.len();
            let window = &chunk[..chunk.len().min(room + 1)];
            match memchr::memchr(b'\n', window) {
                Some(end) if end <= room => {
                    self.emit(&chunk[..end], false, &mut emit);
                    chunk = &chunk[end + 1..];
                }
                _ if chunk.len() > room => {
                    self.emit(&chunk[..room], true, &mut emit);
                    chunk = &chunk[room..];
                }
                _ => {
                    self.rest.extend_from_slice(chunk);
                    return;
                }
            }
        }
    }

    /// The stream has ended: what is left had no newline.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Stream, bool, &[u8])) {
        if !self.rest.is_empty() {
            emit(self.stream, true, &std::mem::take(&mut self.rest));
        }
    }

    fn emit(&mut self, piece: &[u8], partial: bool, emit: &mut impl FnMut(Stream, bool, &[u8])) {
        if self.rest.is_empty() {
            emit(self.stream, partial, piece);
        } else {
            self.rest.extend_from_slice(piece);
            emit(self.stream, partial, &self.rest);
            // An idle shim keeps no line buffer.
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut splitter, mut out) = (Splitter::new(Stream::Stdout), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |_, partial, payload| out.push((partial, payload.to_vec())));
        }
        splitter.finish(|_, partial, payload| out.push((partial, payload.to_vec())));
        out
    }

    #[test]
    fn lines_end_at_newlines_across_chunks() {
        let lines = split(&[b"a\nb", b"c\n", b"\n", b"end"]);
        assert_eq!(
            lines,
            [(false, b"a".to_vec()), (false, b"bc".to_vec()), (false, vec![]), (true, b"end".to_vec())]
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let mut line = vec![b'x'; MAX_PAYLOAD];
        line.push(b'\n');
        assert_eq!(split(&[&line]), [(false, vec![b'x'; MAX_PAYLOAD])]);
    }

    proptest! {
        #[test]
        fn joined_payloads_are_the_input(
            runs in prop::collection::vec((1usize..20_000, any::<bool>()), 0..12), at in prop::collection::vec(any::<u16>(), 0..8)
        ) {
            let mut input = Vec::new();
            for (length, newline) in runs {
                input.extend(std::iter::repeat_n(b'x', length));
                if newline { input.push(b'\n'); }
            }
            let mut cuts: Vec<usize> = at.iter().map(|at| *at as usize % (input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            let mut joined = Vec::new();
            for (partial, payload) in split(&chunks) {
                prop_assert!(payload.len() <= MAX_PAYLOAD);
                joined.extend_from_slice(&payload);
                if !partial { joined.push(b'\n'); }
            }
            prop_assert_eq!(joined, input);
        }
    }
}
