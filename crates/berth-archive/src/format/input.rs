//! The uncompressed stream as it is consumed: buffered, counted and hashed.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Bytes per read; also the largest slice that [`Input::chunk`] returns.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Where an [`Input`] has its bytes from.
pub(crate) trait Source {
    /// Puts the next bytes into `buffer`, or gives another one with them, and tells how many they are: as many as there is
    /// room for, fewer at the end of the stream.
    fn fill(&mut self, buffer: &mut Box<[u8]>) -> Result<usize>;
}

impl<R: Read> Source for R {
    fn fill(&mut self, buffer: &mut Box<[u8]>) -> Result<usize> {
        let mut end = 0;
        // A pipe or a decompressor may return little at a time; larger writes are cheaper than early ones.
        while end < buffer.len() {
            match self.read(&mut buffer[end..]) {
                Ok(0) => break,
                Ok(n) => end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Error::Truncated { within: "the compressed stream".into() });
                }
                Err(error) => return Err(Error::Read(error)),
            }
        }
        Ok(end)
    }
}

/// A reader that hands out its own buffer, so that file contents go from it to the file with no further copy.
pub(crate) struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hash: Option<Sha256>,
    consumed: u64,
}

impl<R: Source> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { hash: Some(Sha256::new()), ..Self::unhashed(reader) }
    }

    /// A stream whose hash nobody will ask for.
    pub(crate) fn unhashed(reader: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { reader, buffer, start: 0, end: 0, hash: None, consumed: 0 }
    }

    /// Bytes handed out so far.
    pub(crate) fn offset(&self) -> u64 {
        self.consumed
    }

    /// The next bytes, at most `most`; empty at the end of the stream.
    pub(crate) fn chunk(&mut self, most: u64) -> Result<&[u8]> {
        if self.start == self.end && most > 0 {
            self.fill()?;
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.end - self.start);
        let chunk = &self.buffer[self.start..self.start + length];
        self.start += length;
        self.consumed += length as u64;
        Ok(chunk)
    }

    /// Fills `out`; `false` if the stream ends exactly here.
    pub(crate) fn exact_or_end(&mut self, out: &mut [u8], within: &str) -> Result<bool> {
        let mut filled = 0;
        while filled < out.len() {
            let chunk = self.chunk((out.len() - filled) as u64)?;
            if chunk.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(Error::Truncated { within: within.into() });
            }
            out[filled..filled + chunk.len()].copy_from_slice(chunk);
            filled += chunk.len();
        }
        Ok(true)
    }

    /// Fills `out` or fails.
    pub(crate) fn exact(&mut self, out: &mut [u8], within: &str) -> Result<()> {
        if out.is_empty() || self.exact_or_end(out, within)? {
            return Ok(());
        }
        Err(Error::Truncated { within: within.into() })
    }

    /// The SHA-256 of everything read and the count of bytes. To be called at the end of the stream.
    pub(crate) fn finish(self) -> ([u8; 32], u64) {
        (self.hash.unwrap_or_default().finalize().into(), self.consumed)
    }

    fn fill(&mut self) -> Result<()> {
        (self.start, self.end) = (0, 0);
        self.end = self.reader.fill(&mut self.buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&self.buffer[..self.end]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_and_counted() {
        let mut input = Input::new(&b"hello world"[..]);
        assert_eq!(input.chunk(5).unwrap(), b"hello");
        let mut rest = [0; 6];
        input.exact(&mut rest, "test").unwrap();
        assert_eq!(&rest, b" world");
        assert!(input.chunk(1).unwrap().is_empty());
        let (hash, count) = input.finish();
        assert_eq!(count, 11);
        assert_eq!(hash[..4], [0xb9, 0x4d, 0x27, 0xb9]);
    }

    #[test]
    fn an_end_within_a_block_is_told_from_an_end_between_blocks() {
        let mut block = [0; 4];
        let mut input = Input::new(&b"abcdef"[..]);
        assert!(input.exact_or_end(&mut block, "a block").unwrap());
        assert!(matches!(input.exact_or_end(&mut block, "a block"), Err(Error::Truncated { .. })));
        assert!(!Input::new(&b""[..]).exact_or_end(&mut block, "a block").unwrap());
    }
}
