//! Decompression in this process, chosen by the stream's first bytes.

mod bzip2;

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::{Error, Result};

/// The largest zstd window accepted, as a power of two: 128 MiB, what `zstd` itself accepts by default. It bounds
/// what one stream can make the decoder allocate.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What an xz stream may make the decoder allocate, in KiB: enough for `xz -9`, whose dictionary has 64 MiB.
const XZ_MEMORY: u32 = 160 << 10;

/// Bytes of compressed input read at a time.
const INPUT_BUFFER: usize = 128 * 1024;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one or several members.
    Gzip,
    /// RFC 8878, one or several frames, skippable ones included.
    Zstd,
    /// One or several streams, as `xz` writes them.
    Xz,
    /// One or several streams.
    Bzip2,
}

impl Compression {
    /// Recognises a stream by its first bytes (four are enough; fewer mean [`Compression::None`]).
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// An uncompressed view of a stream. End of file means that the compressed stream was complete and its checksums right.
pub struct Reader<R: Read> {
    compression: Compression,
    inner: Inner<R>,
}

/// The input with the bytes that detection has taken put back in front.
type Input<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

enum Inner<R: Read> {
    None(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
    Xz(Box<XzReader<Input<R>>>),
    Bzip2(Box<bzip2::Decoder<Input<R>>>),
}

impl<R: Read> Reader<R> {
    /// What was detected.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(input) => input.read(buf),
            Inner::Gzip(decoder) => decoder.read(buf),
            Inner::Zstd(decoder) => decoder.read(buf),
            Inner::Xz(decoder) => decoder.read(buf),
            Inner::Bzip2(decoder) => decoder.read(buf),
        }
    }
}

/// Detects the compression and returns the uncompressed stream. Blocks until the first bytes have come.
///
/// # Errors
/// The first bytes cannot be read.
pub fn reader<R: Read>(mut input: R) -> Result<Reader<R>> {
    let mut start = vec![0; 6];
    let mut filled = 0;
    while filled < start.len() {
        match input.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
    start.truncate(filled);
    let compression = Compression::detect(&start);
    let mut input = BufReader::with_capacity(INPUT_BUFFER, io::Cursor::new(start).chain(input));
    let inner = match compression {
        Compression::None => Inner::None(input),
        Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(input))),
        Compression::Zstd => {
            input.fill_buf().map_err(Error::Read)?;
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(Error::Read)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Error::Read)?;
            Inner::Zstd(Box::new(decoder))
        }
        Compression::Xz => Inner::Xz(Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY))),
        Compression::Bzip2 => Inner::Bzip2(Box::new(bzip2::Decoder::new(input))),
    };
    Ok(Reader { compression, inner })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader(data).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn gzip_members_are_read_to_the_last() {
        let mut data = gzip(b"first ");
        data.extend(gzip(b"second"));
        assert_eq!(unpack(&data).unwrap(), b"first second");
    }

    #[test]
    fn zstd_frames_are_read_to_the_last_and_skippable_ones_skipped() {
        let mut data = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        data.extend(zstd::encode_all(&b"first "[..], 1).unwrap());
        data.extend([0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
        data.extend(zstd::encode_all(&b"second"[..], 1).unwrap());
        assert_eq!(unpack(&data).unwrap(), b"first second");
    }

    #[test]
    fn what_is_not_compressed_passes_unchanged() {
        for data in [&b""[..], b"x", b"plain text, longer than the magic"] {
            assert_eq!(unpack(data).unwrap(), data);
        }
    }

    #[test]
    fn truncated_streams_are_errors() {
        let text: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            for cut in [7, whole.len() / 2, whole.len() - 1] {
                assert!(unpack(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
            }
        }
    }

    #[test]
    fn flipped_bits_are_errors_in_gzip() {
        let text = vec![7; 100_000];
        let whole = gzip(&text);
        for at in 10..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            // A bit that no symbol uses may change nothing.
            assert!(unpack(&bad).map_or(true, |data| data == text), "flip at {at}");
        }
    }

    #[test]
    fn a_zstd_window_over_the_bound_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(&vec![1; 1 << 20]).unwrap();
        let data = encoder.finish().unwrap();
        assert!(unpack(&data).is_err());
    }

    fn xz(arguments: &[&str], data: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut command = Command::new("xz");
        let mut child = command
            .args(["-c"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let data = data.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&data).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    }

    #[test]
    fn xz_streams_are_read_to_the_last() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for arguments in
            [&["-9e"][..], &["-0", "--check=crc32"], &["--x86", "--lzma2=preset=6", "--check=sha256"]]
        {
            let whole = xz(arguments, &text);
            assert!(unpack(&whole).unwrap() == text, "{arguments:?}");
            for cut in [7, whole.len() / 2, whole.len() - 1] {
                assert!(unpack(&whole[..cut]).is_err(), "{arguments:?} cut at {cut}");
            }
        }
        let two = [xz(&[], b"first "), xz(&[], b"second")].concat();
        assert_eq!(unpack(&two).unwrap(), b"first second");
        let mut bad = xz(&[], &[7; 1000]);
        let middle = bad.len() / 2;
        bad[middle] ^= 0x10;
        assert!(unpack(&bad).is_err());
    }

    #[test]
    fn an_xz_dictionary_over_the_bound_is_refused() {
        let data = xz(&["--lzma2=dict=512MiB"], b"little");
        assert!(unpack(&data).is_err());
    }
}
