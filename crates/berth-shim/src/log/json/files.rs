//! The files of one log, from the one that is written to the oldest.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::GzBuilder;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// No log has more files.
const MOST: u32 = 10_000;
/// No writer makes longer lines than this, in bytes.
pub(super) const LONGEST: u64 = 16 << 20;
const COMMENT: &str = "berth inode ";

/// The rotated file with this number; 0 is the file that is written.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { with_suffix(path, &format!(".{number}")) }
}

/// The same, compressed.
pub(super) fn compressed(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}.gz"))
}

/// Where the compressed file comes to be.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, ".gz.tmp")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Begins the compressed form of a file.
pub(super) fn encoder(inode: u64, out: File) -> GzEncoder<File> {
    GzBuilder::new().comment(format!("{COMMENT}{inode}")).write(out, flate2::Compression::fast())
}

/// One of the files, open.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The inode number of the file as it was written.
    inode: u64,
    compressed: bool,
}

impl LogFile {
    /// Bytes of lines that it holds now; a compressed file does not tell, and does not grow either.
    pub(super) fn length(&self) -> io::Result<u64> {
        if self.compressed { Ok(u64::MAX) } else { Ok(self.file.metadata()?.len()) }
    }

    /// Opens the file with this number in whichever form it has; `None` if there is neither.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Option<Self>> {
        let plain = rotated(path, number);
        if let Some(file) = present(File::open(&plain))? {
            let inode = file.metadata()?.ino();
            return Ok(Some(Self { path: plain, file, inode, compressed: false }));
        }
        if number == 0 {
            return Ok(None);
        }
        let path = compressed(path, number);
        let Some(file) = present(File::open(&path))? else { return Ok(None) };
        // A file that somebody else has compressed has its own number.
        let inode = comment(&file).map_or_else(|| file.metadata().map(|data| data.ino()), Ok)?;
        Ok(Some(Self { path, file, inode, compressed: true }))
    }

    /// The same content in a file that can be read at any place: a compressed one is unpacked into a file without a name.
    pub(super) fn unpacked(&self) -> io::Result<File> {
        if !self.compressed {
            return self.file.try_clone();
        }
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let mut out = File::from(rustix::fs::open(directory, flags, rustix::fs::Mode::from_raw_mode(0o600))?);
        io::copy(&mut GzDecoder::new(BufReader::new(Positioned::new(&self.file))), &mut out)?;
        Ok(out)
    }

    /// True if `other` is the same file, perhaps in the other form.
    ///
    /// An open file's number belongs to no other. That of a compressed one may have been given to a new file since;
    /// then their first lines differ, which have times.
    fn is(&self, other: &Self) -> bool {
        let held = !self.compressed && !other.compressed;
        self.inode == other.inode && (held || self.first_line() == other.first_line())
    }

    fn first_line(&self) -> Vec<u8> {
        let file = Positioned::new(&self.file);
        let mut line = Vec::new();
        // What cannot be read differs from everything that can.
        let _ = match self.compressed {
            true => BufReader::new(GzDecoder::new(file)).take(LONGEST).read_until(b'\n', &mut line),
            false => BufReader::new(file).take(LONGEST).read_until(b'\n', &mut line),
        };
        line
    }
}

/// Reads a file from its beginning, whatever others do with its position.
struct Positioned<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> Positioned<'a> {
    fn new(file: &'a File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Opens all files, the newest first. Files only ever move towards the oldest, so that none is passed over; one that is
/// met twice is dropped.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    let mut gap = false;
    for number in 0..MOST {
        match LogFile::open(path, number)? {
            Some(file) if files.iter().any(|other| other.is(&file)) => gap = false,
            Some(file) => {
                gap = false;
                files.push(file);
            }
            None if gap && number > 1 => break,
            // In the middle of a rotation, one number may have no file.
            None => gap = true,
        }
    }
    Ok(files)
}

/// What comes after a file that was read to its end.
#[derive(Debug)]
pub(super) enum Next {
    /// It is the one that is written, or a rotation is under way.
    NotYet,
    /// This one.
    File(LogFile),
}

/// Finds the file that follows this one.
pub(super) fn after(path: &Path, read: &LogFile) -> io::Result<Next> {
    // A rotation between two looks is noticed, and the search begins again. One that never ends is left for later.
    for _ in 0..16 {
        let mut place = None;
        let mut oldest = None;
        let mut gap = false;
        for number in 0..MOST {
            match LogFile::open(path, number)? {
                Some(file) if file.is(read) => {
                    place = Some(number);
                    break;
                }
                Some(file) => {
                    gap = false;
                    oldest = Some((number, file));
                }
                // In the middle of a rotation one number has no file, and older files follow.
                None if gap && number > 1 => break,
                None => gap = true,
            }
        }
        match (place, oldest) {
            (Some(0), _) | (None, None) => return Ok(Next::NotYet),
            (Some(number), _) => {
                let Some(next) = LogFile::open(path, number - 1)? else { return Ok(Next::NotYet) };
                // Had a rotation come between, the file that was read would have moved first.
                let there = LogFile::open(path, number)?.is_some_and(|file| file.is(read));
                if there && !next.is(read) {
                    return Ok(Next::File(next));
                }
            }
            // It was rotated away altogether: go on with the oldest that is left.
            (None, Some((number, file))) => {
                if LogFile::open(path, number + 1)?.is_none() && LogFile::open(path, number + 2)?.is_none() {
                    return Ok(Next::File(file));
                }
            }
        }
    }
    Ok(Next::NotYet)
}

fn present(result: io::Result<File>) -> io::Result<Option<File>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn comment(file: &File) -> Option<u64> {
    let mut head = Vec::new();
    Positioned::new(file).take(512).read_to_end(&mut head).ok()?;
    let decoder = GzDecoder::new(&head[..]);
    let comment = std::str::from_utf8(decoder.header()?.comment()?).ok()?;
    comment.strip_prefix(COMMENT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn write(path: &Path, text: &str) -> LogFile {
        std::fs::write(path, text).unwrap();
        let file = File::open(path).unwrap();
        LogFile { path: path.into(), inode: file.metadata().unwrap().ino(), file, compressed: false }
    }

    #[test]
    fn the_successor_is_found_in_either_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let second = write(&rotated(&path, 2), "2");
        let first = write(&rotated(&path, 1), "1");
        let newest = write(&path, "0");
        let next = |file: &LogFile| match after(&path, file).unwrap() {
            Next::File(file) => Some(String::from_utf8(file.first_line()).unwrap()),
            Next::NotYet => None,
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!((next(&second), next(&first), next(&newest)), (some("1"), some("0"), None));
        let mut out = encoder(first.inode, File::create(compressed(&path, 1)).unwrap());
        out.write_all(b"1").unwrap();
        out.finish().unwrap();
        std::fs::remove_file(rotated(&path, 1)).unwrap();
        assert_eq!((next(&second), next(&first)), (some("1"), some("0")));
        // A rotation that has come as far as this leaves a number without a file.
        std::fs::rename(rotated(&path, 2), rotated(&path, 4)).unwrap();
        std::fs::write(rotated(&path, 3), "1.5").unwrap();
        assert_eq!(next(&second), some("1.5"), "older files lie beyond the gap");
        assert_eq!(open_all(&path).unwrap().len(), 4);
        std::fs::remove_file(rotated(&path, 3)).unwrap();
        std::fs::rename(rotated(&path, 4), rotated(&path, 2)).unwrap();
        let gone = LogFile { inode: u64::MAX, ..newest };
        assert_eq!(next(&gone), some("2"), "one that is gone is followed by the oldest");
        // The number of a compressed file belongs to a new one now.
        let reused = LogFile { inode: second.inode, ..LogFile::open(&path, 1).unwrap().unwrap() };
        assert!(!reused.is(&second));
        let all = open_all(&path).unwrap();
        let texts: Vec<_> = all.iter().map(|file| file.first_line()).collect();
        assert_eq!(texts, [b"0", b"1", b"2"]);
        assert_eq!(std::io::read_to_string(Positioned::new(&all[1].unpacked().unwrap())).unwrap(), "1");
    }
}
