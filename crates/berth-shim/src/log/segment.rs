//! The files of a log directory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogError;
use super::record::{self, MAX_PAYLOAD, OVERHEAD, Parsed};

const EXTENSION: &str = ".log";
const DIGITS: usize = 20;

/// The file of the segment whose first record has this sequence number. Names sort as their numbers do.
pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}{EXTENSION}"))
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// The first sequence numbers of all segments, in order. A missing directory is an empty log.
pub(super) fn list(directory: &Path) -> Result<Vec<u64>, LogError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io("list", directory, error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| LogError::io("list", directory, error))?;
        segments.extend(entry.file_name().to_str().and_then(parse_name));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Where whole records end in a segment that a crash may have torn, and which sequence number comes next.
///
/// A sound tail is recognised by its last record alone; otherwise the segment is read from its beginning.
pub(super) fn sound_end(file: &File, path: &Path, first: u64) -> Result<(u64, u64), LogError> {
    let read = |error| LogError::io("read", path, error);
    let length = file.metadata().map_err(read)?.len();
    let window = length.min((MAX_PAYLOAD + OVERHEAD) as u64) as usize;
    let mut tail = vec![0; window];
    file.read_exact_at(&mut tail, length - window as u64).map_err(read)?;
    if let Parsed::Whole((), size) = record::size_from_back(&tail)
        && let Some(start) = tail.len().checked_sub(size)
        && let Parsed::Whole(last, parsed) = record::parse(&tail[start..])
        && parsed == size
        && last.sequence >= first
    {
        return Ok((length, last.sequence.saturating_add(1)));
    }
    scan(file, first).map_err(read)
}

/// Walks a segment from its beginning to the last whole record.
fn scan(file: &File, first: u64) -> std::io::Result<(u64, u64)> {
    let (mut end, mut next) = (0, first);
    let mut buffer = vec![0; MAX_PAYLOAD + OVERHEAD];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], end + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        let mut at = 0;
        while let Parsed::Whole(record, size) = record::parse(&buffer[at..filled]) {
            at += size;
            next = record.sequence.saturating_add(1);
        }
        end += at as u64;
        if at == 0 {
            return Ok((end, next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use proptest::prelude::*;

    #[test]
    fn names_are_strict() {
        assert_eq!(parse_name("00000000000000000012.log"), Some(12));
        for name in ["12.log", "0000000000000000001a.log", "00000000000000000012", "+0000000000000000012.log"]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
        assert_eq!(parse_name("99999999999999999999.log"), None, "more than 64 bits");
    }

    proptest! {
        #[test]
        fn a_torn_tail_is_cut_at_the_last_whole_record(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20),
            cut in 0usize..10_000, garbage in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = path(directory.path(), 5);
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for (index, line) in lines.iter().enumerate() {
                record::encode_output(&mut bytes, 5 + index as u64, 1, Stream::Stdout, false, line);
                ends.push(bytes.len());
            }
            let cut = cut % bytes.len();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let mut torn = bytes[..cut].to_vec();
            torn.extend_from_slice(&garbage);
            // Random garbage could complete the record only if it repeats its bytes.
            prop_assume!(!torn.starts_with(&bytes[..ends[whole + 1]]));
            std::fs::write(&path, &torn).unwrap();
            let file = File::open(&path).unwrap();
            let (end, next) = sound_end(&file, &path, 5).unwrap();
            prop_assert_eq!((end, next), (ends[whole] as u64, 5 + whole as u64));
        }
    }
}
