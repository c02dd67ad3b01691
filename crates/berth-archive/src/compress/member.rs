//! Members of a gzip stream (RFC 1952). What zeros and noise become is clear beforehand and written as such; the rest is
//! compressed.

use std::io;

use libdeflater::{CompressionLvl, Compressor, crc32};

use super::kinds::{Kind, runs};

/// How hard is compressed: files of programs become a hundredth larger than with zlib at its default level, which Docker uses,
/// in a third of its time.
const LEVEL: i32 = 4;
/// No name, no time, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Bytes of one stored block at most.
const STORED: usize = 0xffff;
/// Bytes that one match repeats at most.
const MATCH: usize = 258;

/// What a block is compressed with.
pub(super) struct Members(Compressor);

impl Members {
    pub fn new() -> Self {
        Self(Compressor::new(CompressionLvl::new(LEVEL).unwrap_or_default()))
    }

    /// Appends a block as members, one at least. What is compressed ends one: only a whole stream can be had.
    pub fn compress(&mut self, block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut begun = None;
        for run in runs(block) {
            let start = *begun.get_or_insert_with(|| {
                out.extend_from_slice(&HEADER);
                run.range.start
            });
            let bytes = &block[run.range.clone()];
            match run.kind {
                Kind::Zeros => zeros(bytes.len(), out),
                Kind::Noise => bytes.chunks(STORED).for_each(|part| stored(false, part, out)),
                Kind::Plain => {
                    self.plain(bytes, out)?;
                    end(&block[start..run.range.end], out);
                    begun = None;
                }
            }
        }
        if block.is_empty() {
            out.extend_from_slice(&HEADER);
            begun = Some(0);
        }
        if let Some(start) = begun {
            stored(true, &[], out);
            end(&block[start..], out);
        }
        Ok(())
    }

    /// Appends a whole deflate stream.
    fn plain(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        out.resize(before + self.0.deflate_compress_bound(bytes.len()), 0);
        let length = self.0.deflate_compress(bytes, &mut out[before..]);
        let length = length.map_err(|error| io::Error::other(format!("{error:?}")))?;
        out.truncate(before + length);
        Ok(())
    }
}

/// Ends a member that holds `bytes`.
fn end(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    // Modulo 2^32, as the format wants it.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
}

/// Appends bytes as they are (RFC 1951, 3.2.4), where a byte begins.
fn stored(is_last: bool, part: &[u8], out: &mut Vec<u8>) {
    let length = part.len() as u16;
    out.push(u8::from(is_last));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(part);
}

/// Appends so many zeros, one at least, from where a byte begins to where one does (RFC 1951, 3.2.7). There are three codes: a
/// zero, a match of the greatest length, and the end; and one distance, which is one.
fn zeros(count: usize, out: &mut Vec<u8>) {
    /// Codes that have one bit less than the others come first; the first bit of a code is the lowest here.
    const GREATEST: (u32, u32) = (0b0, 1);
    const ZERO: (u32, u32) = (0b01, 2);
    const END: (u32, u32) = (0b11, 2);
    const DISTANCE: (u32, u32) = (0b0, 1);
    let mut bits = Bits { out, waiting: 0, count: 0 };
    // Not the last block; codes of its own: 286 of literals and lengths, 1 of distances, 18 of lengths of codes.
    for (value, count) in [(0, 1), (2, 2), (286 - 257, 5), (0, 5), (18 - 4, 4)] {
        bits.push(value, count);
    }
    // Lengths of the codes of lengths, in the format's order: of 18, 2 and 1.
    for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
        bits.push(
            match symbol {
                18 => 1,
                1 | 2 => 2,
                _ => 0,
            },
            3,
        );
    }
    const NONE: (u32, u32) = (0b0, 1);
    const ONE_BIT: (u32, u32) = (0b01, 2);
    const TWO_BITS: (u32, u32) = (0b11, 2);
    let none = |count: u32| [NONE, (count - 11, 7)];
    let lengths =
        [&[TWO_BITS][..], &none(138), &none(255 - 138), &[TWO_BITS], &none(28), &[ONE_BIT, ONE_BIT]];
    for (value, count) in lengths.concat() {
        bits.push(value, count);
    }
    bits.push(ZERO.0, ZERO.1);
    for _ in 0..(count - 1) / MATCH {
        bits.push(GREATEST.0, GREATEST.1);
        bits.push(DISTANCE.0, DISTANCE.1);
    }
    for _ in 0..(count - 1) % MATCH {
        bits.push(ZERO.0, ZERO.1);
    }
    bits.push(END.0, END.1);
    // An empty stored block ends with a byte.
    bits.push(0, 3);
    bits.align();
    out.extend_from_slice(&[0, 0, 0xff, 0xff]);
}

/// Appends bits, the lowest first.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    waiting: u32,
    count: u32,
}

impl Bits<'_> {
    /// Appends the lowest `count` bits, 8 at most.
    fn push(&mut self, value: u32, count: u32) {
        self.waiting |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.waiting as u8);
            self.waiting >>= 8;
            self.count -= 8;
        }
    }

    /// Fills up the last byte.
    fn align(&mut self) {
        if self.count > 0 {
            self.push(0, 8 - self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::bufread::MultiGzDecoder;
    use proptest::prelude::*;

    use super::super::kinds::tests::noise;
    use super::*;

    fn compressed(block: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Members::new().compress(block, &mut out).unwrap();
        let mut back = Vec::new();
        MultiGzDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
        assert!(back == block, "{} bytes", block.len());
        out
    }

    #[test]
    fn zeros_are_few_bytes_whatever_their_number() {
        for count in
            [1024, 1025, 4096, 16_500, 65_535, 65_536, 262_143, 262_144].into_iter().chain(2000..2300)
        {
            let length = compressed(&vec![0; count]).len();
            assert!(length < 130 + count / 1000, "{count} became {length}");
        }
    }

    #[test]
    fn noise_grows_by_little() {
        for count in [0, 1, 700, 8192, 65_535, 65_536, 262_144] {
            let length = compressed(&noise(count, 5)).len();
            assert!(length <= count + 64, "{count} became {length}");
        }
    }

    proptest! {
        #[test]
        fn any_mixture_comes_back(parts in proptest::collection::vec((0..4_usize, 0..30_000_usize, any::<u64>()), 0..8)) {
            let part = |(kind, length, seed): (usize, usize, u64)| match kind {
                0 => vec![0; length],
                1 => noise(length, seed),
                2 => vec![seed as u8; length],
                _ => noise(length, seed).iter().map(|byte| b"etaoin shrdlu\n\0\0"[usize::from(*byte & 15)]).collect(),
            };
            let block: Vec<u8> = parts.into_iter().flat_map(part).collect();
            let length = compressed(&block).len();
            prop_assert!(length <= block.len() + block.len() / 200 + 64);
        }
    }
}
