//! Files with holes, in GNU tar's PAX format 1.0: the map of what is stored stands before the data.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write};

use rustix::fs::Stat;
use rustix::io::Errno;
use tar::EntryType;

use super::{Attributes, BLOCK, Head, Packer, record};
use crate::{Error, Result};

/// More segments than this are stored as if there were no holes.
const SEGMENTS_MAX: usize = 1 << 16;

/// Shorter holes are stored as zeros, in bytes. Whether a linker's padding is a hole is up to the file system and to when it
/// wrote the file, and the same files shall give the same archive.
const HOLE_MIN: u64 = 1 << 20;

/// What is stored of a file, as offsets and lengths in bytes, if it has holes.
pub(super) fn segments(file: &File, stat: &Stat, path: &[u8]) -> Result<Option<Vec<(u64, u64)>>> {
    let (size, blocks) = (stat.st_size, stat.st_blocks);
    if size <= 0 || blocks.saturating_mul(512) >= size {
        return Ok(None);
    }
    let seek = |from: rustix::fs::SeekFrom| rustix::fs::seek(file, from);
    let failed = |error| Error::file("reading", path, error);
    let size = size.unsigned_abs();
    let (mut found, mut at): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
    while at < size {
        let start = match seek(rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // File systems that know no holes.
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let end = seek(rustix::fs::SeekFrom::Hole(start)).map_err(failed)?.min(size);
        if end <= start {
            break;
        }
        // The end of the one before, and of what is stored as one with it.
        if start - at < HOLE_MIN {
            let (first, _) = found.pop().unwrap_or_default();
            found.push((first, end - first));
        } else {
            found.push((start, end - start));
        }
        if found.len() > SEGMENTS_MAX {
            return Ok(None);
        }
        at = end;
    }
    if size - at < HOLE_MIN {
        let (first, _) = found.pop().unwrap_or_default();
        found.push((first, size - first));
    }
    seek(rustix::fs::SeekFrom::Start(0)).map_err(failed)?;
    Ok((found != [(0, size)]).then_some(found))
}

impl<W: Write> Packer<W> {
    pub(super) fn sparse(
        &mut self,
        mut file: File,
        path: &[u8],
        stat: &Stat,
        segments: &[(u64, u64)],
        attributes: &Attributes,
    ) -> Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let map = map(segments, size);
        let stored: u64 = segments.iter().map(|(_, length)| length).sum();
        let mut records = Vec::new();
        for (name, value) in [("major", "1"), ("minor", "0"), ("realsize", &size.to_string())] {
            record(&mut records, format!("GNU.sparse.{name}").as_bytes(), value.as_bytes());
        }
        record(&mut records, b"GNU.sparse.name", path);
        let head = Head { kind: EntryType::Regular, link: Vec::new(), size: map.len() as u64 + stored };
        self.head_with(stat, &placeholder(path), &head, attributes, records)?;
        self.write(&map)?;
        for &(offset, length) in segments {
            file.seek(SeekFrom::Start(offset)).map_err(|error| Error::file("reading", path, error))?;
            self.content(&mut file, path, length)?;
        }
        self.pad(stored)
    }
}

/// The map as decimal lines, filled up to whole blocks. GNU tar ends it with the file's end.
fn map(segments: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends = segments.last().is_some_and(|(offset, length)| offset + length == size);
    let last = (!ends).then_some((size, 0));
    let all = || segments.iter().copied().chain(last);
    let mut text = format!("{}\n", all().count());
    for (offset, length) in all() {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The name that programs see which do not know the format.
fn placeholder(path: &[u8]) -> Vec<u8> {
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&b""[..], path),
    };
    [directory, b"GNUSparseFile.0/", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_end_with_the_file() {
        let text = |segments: &[(u64, u64)], size| {
            let bytes = map(segments, size);
            assert_eq!(bytes.len() % BLOCK, 0);
            String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned()
        };
        assert_eq!(text(&[(0, 4096), (8192, 100)], 8292), "2\n0\n4096\n8192\n100\n");
        assert_eq!(text(&[(4096, 4096)], 1 << 20), "2\n4096\n4096\n1048576\n0\n");
        assert_eq!(text(&[], 7), "1\n7\n0\n");
    }

    #[test]
    fn short_holes_are_zeros() {
        let found = |size: u64, data: &[u64]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            for at in data {
                std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], *at).unwrap();
            }
            segments(&file, &rustix::fs::fstat(&file).unwrap(), b"f").unwrap()
        };
        assert_eq!(found(64 << 10, &[]), None);
        assert_eq!(found(64 << 10, &[8192, 32768]), None);
        assert_eq!(found(HOLE_MIN, &[]), Some(vec![]));
        let (far, size) = (4 * HOLE_MIN, 8 * HOLE_MIN);
        assert_eq!(found(size, &[8192]), Some(vec![(0, 12288)]));
        let both = vec![(0, 4096), (far, 65536 + 4096)];
        assert_eq!(found(size, &[0, far, far + 65536]), Some(both));
        assert_eq!(found(size, &[far, size - 8192]), Some(vec![(far, 4096), (size - 8192, 8192)]));
    }

    #[test]
    fn others_see_another_name() {
        assert_eq!(placeholder(b"a/b/c"), b"a/b/GNUSparseFile.0/c");
        assert_eq!(placeholder(b"c"), b"GNUSparseFile.0/c");
    }
}
