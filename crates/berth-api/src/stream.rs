//! Framing of attached output without a terminal (Docker's `stdcopy`).
//!
//! Each frame is a header of eight bytes, the stream's number, three zero bytes, the payload's length in big
//! endian, followed by the payload. With a terminal there is one raw stream and no framing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Length of a frame's header.
pub const HEADER: usize = 8;

/// Content type of a raw stream (with a terminal, and of any stream before API 1.42).
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Content type of a framed stream.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    /// Standard input; a reader treats it as standard output.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The daemon failed, and says how; ends the stream.
    SystemError = 3,
}

impl TryFrom<u8> for Stream {
    type Error = FrameError;

    fn try_from(number: u8) -> Result<Self, FrameError> {
        match number {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            3 => Ok(Self::SystemError),
            number => Err(FrameError::UnknownStream(number)),
        }
    }
}

/// The bytes are not frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A header names a stream that does not exist.
    #[error("unrecognized stream: {0}")]
    UnknownStream(u8),
}

/// The header of a frame with `length` bytes.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// Appends `payload` to `out` as frames: one, unless it is larger than a frame can be.
pub fn encode(stream: Stream, payload: &[u8], out: &mut BytesMut) {
    for part in payload.chunks(u32::MAX as usize) {
        out.reserve(HEADER + part.len());
        out.put_slice(&header(stream, part.len() as u32));
        out.put_slice(part);
    }
}

/// A piece of a frame's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it belongs.
    pub stream: Stream,
    /// The bytes; never empty.
    pub data: Bytes,
}

/// Takes frames apart, whatever the pieces in which they arrive.
///
/// A payload is handed out as it comes and never gathered, so a frame's declared length costs no memory.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    filled: usize,
    current: Option<(Stream, u32)>,
}

impl Decoder {
    /// A decoder at a frame's start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk from the front of `input`; `None` when more input is needed (all of it is taken then).
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Chunk>, FrameError> {
        loop {
            if let Some((stream, left)) = self.current {
                if input.is_empty() {
                    return Ok(None);
                }
                let length = input.len().min(left as usize);
                let data = input.split_to(length);
                let left = left - length as u32;
                self.current = (left > 0).then_some((stream, left));
                return Ok(Some(Chunk { stream, data }));
            }
            let length = input.len().min(HEADER - self.filled);
            input.copy_to_slice(&mut self.header[self.filled..self.filled + length]);
            self.filled += length;
            if self.filled < HEADER {
                return Ok(None);
            }
            self.filled = 0;
            let [number, _, _, _, a, b, c, d] = self.header;
            let stream = Stream::try_from(number)?;
            let length = u32::from_be_bytes([a, b, c, d]);
            self.current = (length > 0).then_some((stream, length));
        }
    }

    /// True between two frames: the stream may end here.
    pub fn is_complete(&self) -> bool {
        self.current.is_none() && self.filled == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_stream() -> impl Strategy<Value = Stream> {
        prop_oneof![
            Just(Stream::Stdin),
            Just(Stream::Stdout),
            Just(Stream::Stderr),
            Just(Stream::SystemError)
        ]
    }

    /// Joins neighbouring chunks of one stream.
    fn join(chunks: impl IntoIterator<Item = (Stream, Vec<u8>)>) -> Vec<(Stream, Vec<u8>)> {
        let mut joined: Vec<(Stream, Vec<u8>)> = Vec::new();
        for (stream, data) in chunks.into_iter().filter(|(_, data)| !data.is_empty()) {
            match joined.last_mut() {
                Some((last, gathered)) if *last == stream => gathered.extend(data),
                _ => joined.push((stream, data)),
            }
        }
        joined
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_whatever_the_pieces(
            frames in prop::collection::vec((any_stream(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            piece in 1_usize..50,
        ) {
            let mut encoded = BytesMut::new();
            for (stream, payload) in &frames {
                encode(*stream, payload, &mut encoded);
            }
            let mut decoder = Decoder::new();
            let mut chunks = Vec::new();
            for bytes in encoded.chunks(piece) {
                let mut input = Bytes::copy_from_slice(bytes);
                while let Some(chunk) = decoder.next(&mut input).unwrap() {
                    prop_assert!(!chunk.data.is_empty());
                    chunks.push((chunk.stream, chunk.data.to_vec()));
                }
                prop_assert!(input.is_empty());
            }
            prop_assert!(decoder.is_complete());
            prop_assert_eq!(join(chunks), join(frames));
        }

        #[test]
        fn no_input_makes_the_decoder_panic_or_invent_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            let mut input = Bytes::copy_from_slice(&bytes);
            let mut given = 0;
            while let Ok(Some(chunk)) = decoder.next(&mut input) {
                given += chunk.data.len();
            }
            prop_assert!(given <= bytes.len());
        }
    }

    #[test]
    fn headers_are_dockers() {
        assert_eq!(header(Stream::Stderr, 0x0102), [2, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_huge_frame_is_handed_out_as_it_comes() {
        let mut decoder = Decoder::new();
        let mut input = Bytes::from_static(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'x']);
        let chunk = decoder.next(&mut input).unwrap().unwrap();
        assert_eq!((chunk.stream, &chunk.data[..]), (Stream::Stdout, &b"x"[..]));
        assert_eq!(decoder.next(&mut input).unwrap(), None);
        assert!(!decoder.is_complete());
    }

    #[test]
    fn unknown_streams_are_refused() {
        let mut input = Bytes::from_static(&[9, 0, 0, 0, 0, 0, 0, 1, b'x']);
        assert_eq!(Decoder::new().next(&mut input), Err(FrameError::UnknownStream(9)));
    }
}
