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
