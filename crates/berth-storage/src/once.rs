//! A file that is written from its beginning to its end, and seldom read.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek as _, SeekFrom};

use rustix::io::{Errno, ReadWriteFlags};

/// Bytes that are written at once: what comes from a network comes in small parts.
const GATHERED: usize = 256 << 10;
/// Fewest bytes that go to the disk at once.
const AT_ONCE_LEAST: usize = 64 << 10;
/// `RWF_DONTCACHE` (Linux 6.14, `include/uapi/linux/fs.h`), which rustix does not name.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Reads from a file at an offset, as much as `buffer` has room for or there is; nothing at its end. Where the kernel can,
/// what it had to read for this leaves no pages in memory.
///
/// # Errors
/// File errors.
pub fn read_once(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut flags = DONT_CACHE;
    loop {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) if !flags.is_empty() => {
                flags = ReadWriteFlags::empty();
            }
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// Appends to a file. What was gathered is written when it is dropped, too.
///
/// Where the kernel can, the file goes to the disk at once and leaves no pages in memory, which what is read soon needs
/// more; and whoever syncs the file system does not find it unwritten.
#[derive(Debug)]
pub(crate) struct WrittenOnce {
    file: File,
    end: u64,
    gathered: Vec<u8>,
    flags: ReadWriteFlags,
}

impl WrittenOnce {
    /// Goes on at the end of `file`, which is `end` bytes long.
    pub(crate) fn new(file: File, end: u64) -> Self {
        Self { file, end, gathered: Vec::new(), flags: DONT_CACHE }
    }

    /// Appends, now or later.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.flush()?;
        }
        if bytes.len() >= GATHERED {
            return self.write(bytes);
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(if bytes.len() < GATHERED / 16 { bytes.len() } else { GATHERED });
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what was gathered. After a failure it is lost.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let written = self.write(&gathered);
        gathered.clear();
        self.gathered = gathered;
        written
    }

    /// Begins anew with an empty file.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.gathered.clear();
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.end = 0;
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        // The disk is not bothered with little things.
        let small = bytes.len() < AT_ONCE_LEAST;
        while !bytes.is_empty() {
            let flags = if small { ReadWriteFlags::empty() } else { self.flags };
            match rustix::io::pwritev2(&self.file, &[IoSlice::new(bytes)], self.end, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.end += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::INTR) => {}
                // An older kernel, or a file system without it.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) if !flags.is_empty() => {
                    self.flags = ReadWriteFlags::empty();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for WrittenOnce {
    fn drop(&mut self) {
        // What is missing then comes again.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn content(file: &File) -> Vec<u8> {
        let mut all = Vec::new();
        let mut file = file;
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn parts_of_all_sizes_stand_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let mut expected = Vec::new();
        let mut once = WrittenOnce::new(open(), 0);
        for (number, length) in [1, GATHERED - 1, 1, GATHERED, 3, GATHERED + 7, 0, 5].into_iter().enumerate()
        {
            let part = vec![number as u8; length];
            once.append(&part).unwrap();
            expected.extend(part);
        }
        drop(once);
        assert!(content(&open()) == expected);
        let mut once = WrittenOnce::new(open(), expected.len() as u64);
        once.append(b"more").unwrap();
        expected.extend(b"more");
        once.flush().unwrap();
        assert!(content(&open()) == expected);
        once.clear().unwrap();
        once.append(b"new").unwrap();
        once.flush().unwrap();
        assert_eq!(content(&open()), b"new");
        let mut buffer = [0; 2];
        assert_eq!(read_once(&open(), &mut buffer, 1).unwrap(), 2);
        assert_eq!(&buffer, b"ew");
        assert_eq!(read_once(&open(), &mut buffer, 3).unwrap(), 0);
    }
}
