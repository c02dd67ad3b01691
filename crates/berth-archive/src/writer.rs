//! Tar out: files that are made while they are written, such as the parts of an image archive.
//!
//! The bytes depend on names and contents alone: owners are root, times are the beginning of 1970.

use std::io::{self, Write};

use tar::EntryType;

use crate::format::header::BLOCK;
use crate::pack::record;

/// The largest size that a header's octal field holds.
const SIZE_MAX: u64 = (1 << 33) - 1;
/// The longest name that a header holds.
const NAME_MAX: usize = 100;

/// Writes a tar of plain files. The content of a file is written to the writer itself, after [`Writer::begin`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes that the file begun last still wants.
    left: u64,
    /// Zeros that follow it.
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// A tar that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Adds a directory; its name ends with a slash and has at most 100 bytes.
    ///
    /// # Errors
    /// A failed write; a name that is too long; a file before it that was not written whole.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.end()?;
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    /// Begins a file of `size` bytes, which are to be written next. Its name has at most 100 bytes.
    ///
    /// # Errors
    /// As [`Writer::directory`].
    pub fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.end()?;
        if size > SIZE_MAX {
            let mut records = Vec::new();
            record(&mut records, b"size", size.to_string().as_bytes());
            self.header("PaxHeaders/entry", EntryType::XHeader, 0o644, records.len() as u64)?;
            self.out.write_all(&records)?;
            self.out.write_all(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        self.header(name, EntryType::Regular, 0o644, size)?;
        (self.left, self.padding) = (size, padding(size));
        Ok(())
    }

    /// Adds a file that is in memory.
    ///
    /// # Errors
    /// As [`Writer::directory`].
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.begin(name, content.len() as u64)?;
        self.write_all(content)
    }

    /// Ends the tar, and gives back what it was written to.
    ///
    /// # Errors
    /// A failed write; a last file that was not written whole.
    pub fn finish(mut self) -> io::Result<W> {
        self.end()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end(&mut self) -> io::Result<()> {
        if self.left > 0 {
            let missing = format!("{} bytes of a file are missing", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, missing));
        }
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
        if name.len() > NAME_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the name {name:?} is too long"),
            ));
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size.min(SIZE_MAX));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }
}

impl<W: Write> Write for Writer<W> {
    /// Content of the file begun last; more than its size is an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > self.left {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a file is longer than announced"));
        }
        let written = self.out.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Zeros that fill the last block of `size` bytes.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let mut writer = Writer::new(Vec::new());
        writer.directory("blobs/").unwrap();
        writer.begin("blobs/a", 700).unwrap();
        writer.write_all(&[b'a'; 300]).unwrap();
        writer.write_all(&[b'b'; 400]).unwrap();
        writer.file("empty", b"").unwrap();
        writer.file("last", &[b'c'; 512]).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len(), 512 * (1 + 3 + 1 + 2 + 2));
        let mut found = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            found.push((entry.path().unwrap().display().to_string(), content.len()));
        }
        let expected = [("blobs/", 0), ("blobs/a", 700), ("empty", 0), ("last", 512)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_file_is_as_long_as_announced() {
        let mut writer = Writer::new(Vec::new());
        writer.begin("a", 2).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(writer.file("b", b"").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(writer.write_all(b"yz").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        writer.write_all(b"y").unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn a_size_beyond_eight_gibibytes_stands_in_a_record() {
        let mut writer = Writer::new(Vec::new());
        let size = 9 << 30;
        writer.begin("huge", size).unwrap();
        let bytes = writer.out;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.path().unwrap().display().to_string(), entry.size()), ("huge".to_owned(), size));
    }
}
