//! Reading small zip archives from memory.

use std::io::Read as _;

use flate2::bufread::DeflateDecoder;

/// Most entries that are read.
const MOST: usize = 4096;
/// Signatures and lengths of the records.
const END: (u32, usize) = (0x0605_4b50, 22);
const CENTRAL: (u32, usize) = (0x0201_4b50, 46);
const LOCAL: (u32, usize) = (0x0403_4b50, 30);
/// Longest comment at an archive's end.
const LONGEST_COMMENT: usize = 0xffff;

/// A file of an archive, not unpacked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name as the archive has it.
    pub name: String,
    /// A file, and neither a directory nor a link.
    pub regular: bool,
    method: u16,
    checksum: u32,
    data: &'a [u8],
}

/// Whether this begins as a zip archive does.
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// The entries of an archive, as its directory lists them.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    const WRONG: &str = "zip: not a valid zip file";
    let earliest = bytes.len().saturating_sub(END.1 + LONGEST_COMMENT);
    let end = (earliest..=bytes.len().saturating_sub(END.1))
        .rev()
        .find_map(|start| record(bytes, start, END))
        .ok_or(WRONG)?;
    let count = usize::from(short(end, 10));
    if count > MOST {
        return Err("zip: too many entries");
    }
    let mut start = long(end, 16) as usize;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let head = record(bytes, start, CENTRAL).ok_or(WRONG)?;
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(short(head, at)));
        let name_start = start + CENTRAL.1;
        let raw = bytes.get(name_start..name_start + name).ok_or(WRONG)?;
        let name_text = std::str::from_utf8(raw).map_err(|_| "zip: a name is not UTF-8")?;
        let local_start = long(head, 42) as usize;
        let local = record(bytes, local_start, LOCAL).ok_or(WRONG)?;
        let data_start =
            local_start + LOCAL.1 + usize::from(short(local, 26)) + usize::from(short(local, 28));
        let data =
            bytes.get(data_start..).and_then(|rest| rest.get(..long(head, 20) as usize)).ok_or(WRONG)?;
        // Made on Unix: the upper half of the attributes is the mode, of which 0 says nothing.
        let kind = if head[5] == 3 { long(head, 38) >> 28 } else { 0 };
        all.push(Entry {
            name: name_text.to_owned(),
            regular: !name_text.ends_with('/') && matches!(kind, 0 | 8),
            method: short(head, 10),
            checksum: long(head, 16),
            data,
        });
        start = name_start + name + extra + comment;
    }
    Ok(all)
}

impl Entry<'_> {
    /// Unpacks the file; more than `limit` bytes are an error, whatever the archive says of its length.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let outcome = match self.method {
            0 => self.data.take(limit + 1).read_to_end(&mut bytes),
            8 => DeflateDecoder::new(self.data).take(limit + 1).read_to_end(&mut bytes),
            _ => return Err("zip: unsupported compression algorithm".to_owned()),
        };
        outcome.map_err(|error| format!("zip: {error}"))?;
        if bytes.len() as u64 > limit {
            return Err("read exceeds the defined limit".to_owned());
        }
        let mut sum = flate2::Crc::new();
        sum.update(&bytes);
        if sum.sum() != self.checksum {
            return Err("zip: checksum error".to_owned());
        }
        Ok(bytes)
    }
}

/// A record at a place, if its signature is there and it is whole.
fn record(bytes: &[u8], start: usize, (signature, length): (u32, usize)) -> Option<&[u8]> {
    let record = bytes.get(start..)?.get(..length)?;
    (long(record, 0) == signature).then_some(record)
}

/// A number of two bytes; the place must be inside the record.
fn short(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([record[at], record[at + 1]])
}

/// A number of four bytes; the place must be inside the record.
fn long(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

#[cfg(test)]
pub mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// An archive of files that are deflated, or stored if `stored`.
    pub fn archive(files: &[(&str, &[u8])], stored: bool) -> Vec<u8> {
        let (mut body, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let packed = match stored {
                true => data.to_vec(),
                false => {
                    let mut encoder =
                        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
                    encoder.write_all(data).unwrap();
                    encoder.finish().unwrap()
                }
            };
            let mut sum = flate2::Crc::new();
            sum.update(data);
            let mut common = vec![20, 0, 0, 0, if stored { 0 } else { 8 }, 0, 0, 0, 0, 0];
            common.extend(sum.sum().to_le_bytes());
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((data.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            let offset = body.len() as u32;
            body.extend(LOCAL.0.to_le_bytes());
            body.extend(&common);
            body.extend(name.as_bytes());
            body.extend(packed);
            directory.extend(CENTRAL.0.to_le_bytes());
            directory.extend([20, 3]);
            directory.extend(&common);
            directory.extend([0; 6]);
            directory.extend((0o100_600_u32 << 16).to_le_bytes());
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let (start, length) = (body.len() as u32, directory.len() as u32);
        body.extend(directory);
        body.extend(END.0.to_le_bytes());
        body.extend([0; 4]);
        body.extend((files.len() as u16).to_le_bytes());
        body.extend((files.len() as u16).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(start.to_le_bytes());
        body.extend([0; 2]);
        body
    }

    #[test]
    fn archives_are_read() {
        for stored in [true, false] {
            let made = archive(&[("meta.json", b"{}"), ("tls/docker/ca.pem", b"certificate")], stored);
            assert!(is_zip(&made));
            let found = entries(&made).unwrap();
            assert_eq!(found[1].name, "tls/docker/ca.pem");
            assert!(found[1].regular);
            assert_eq!(found[1].read(100).unwrap(), b"certificate");
            assert_eq!(found[1].read(10).unwrap_err(), "read exceeds the defined limit");
        }
    }

    #[test]
    fn bombs_are_bounded() {
        let made = archive(&[("meta.json", &vec![0; 32 << 20])], false);
        assert!(made.len() < 100_000);
        assert!(entries(&made).unwrap()[0].read(10 << 20).is_err());
    }

    proptest! {
        #[test]
        fn damage_does_no_harm(at in 0_usize..150, byte: u8, cut in 0_usize..200) {
            let mut made = archive(&[("meta.json", b"{\"a\": 1}"), ("tls/a/b", b"x")], false);
            if let Some(place) = made.get_mut(at) {
                *place = byte;
            }
            made.truncate(made.len() - cut.min(made.len()));
            for entry in entries(&made).unwrap_or_default() {
                if let Ok(bytes) = entry.read(1000) {
                    prop_assert!(bytes.len() <= 1000);
                }
            }
        }
    }
}
