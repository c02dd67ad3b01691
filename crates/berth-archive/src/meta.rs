//! What a directory cannot give back of a layer's tar: its headers, padding and trailer, byte for byte. Together with the
//! directory they make the exact stream again ([`rebuild`]), so that a layer keeps its digest though no tar is kept.
//!
//! The record is a zstd stream of records, each a tag and fields (integers are 8 bytes, little endian):
//!
//! - `R` length, bytes: to be written as they are.
//! - `C` path length, path, offset, length: a range of a file's content.
//! - `O` path length, path, length, bytes: the content that the file of this path had so far; a later entry replaces it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"berthM1\n";
/// Raw bytes gathered before they become a record.
const RAW_BUFFER: usize = 64 * 1024;
/// Bytes of files that are copied at once.
const COPY_BUFFER: usize = 256 * 1024;
/// The longest path in a record.
const PATH_MAX: u64 = 4096;

/// Writes the record of one layer, or nothing if none is wanted.
pub(crate) struct Recorder {
    out: Option<zstd::stream::write::Encoder<'static, BufWriter<File>>>,
    raw: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(file: Option<File>) -> Result<Self> {
        let out = file
            .map(|file| {
                let mut out = zstd::stream::write::Encoder::new(BufWriter::new(file), 1)?;
                out.write_all(MAGIC)?;
                Ok(out)
            })
            .transpose()
            .map_err(write_failed)?;
        Ok(Self { out, raw: Vec::new() })
    }

    /// Whether anything is recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.out.is_some()
    }

    /// Bytes that [`rebuild`] writes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= RAW_BUFFER {
            self.flush_raw()?;
        }
        Ok(())
    }

    /// A range of a file's content that passed here.
    pub(crate) fn content(&mut self, path: &[u8], offset: u64, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.flush_raw()?;
        self.write(&[b"C", &size(path), path, &offset.to_le_bytes(), &length.to_le_bytes()])
    }

    /// The content of a file that is about to be replaced.
    pub(crate) fn orphan(&mut self, path: &[u8], mut file: File) -> Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let length = file.metadata().map_err(|error| Error::file("reading", path, error))?.len();
        if !self.raw.is_empty() {
            let raw = std::mem::take(&mut self.raw);
            for part in [&b"R"[..], &size(&raw), &raw] {
                out.write_all(part).map_err(write_failed)?;
            }
        }
        for part in [&b"O"[..], &size(path), path, &length.to_le_bytes()] {
            out.write_all(part).map_err(write_failed)?;
        }
        let copied = io::copy(&mut file, out).map_err(write_failed)?;
        if copied != length {
            return Err(Error::file("reading", path, io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        Ok(())
    }

    /// Ends the record. It is not synced.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush_raw()?;
        if let Some(out) = self.out {
            let mut buffer = out.finish().map_err(write_failed)?;
            buffer.flush().map_err(write_failed)?;
        }
        Ok(())
    }

    fn flush_raw(&mut self) -> Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let mut raw = std::mem::take(&mut self.raw);
        self.write(&[b"R", &size(&raw), &raw])?;
        raw.clear();
        self.raw = raw;
        Ok(())
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        parts.iter().try_for_each(|part| out.write_all(part)).map_err(write_failed)
    }
}

fn size(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

fn write_failed(error: io::Error) -> Error {
    Error::file("writing", b"the tar's record", error)
}

/// Writes the exact tar stream that was extracted: `meta` is the record made then, `dir` the directory filled then, in
/// which nothing of the layer's own files may have changed since. Contents that later entries replaced wait in an unnamed
/// file in the folder `spill`, if there are any. Blocks.
///
/// # Errors
/// A record that is malformed, a file that is missing or too short, a failed write.
pub fn rebuild(meta: &mut File, dir: BorrowedFd<'_>, spill: &Path, out: &mut impl Write) -> Result<()> {
    let mut orphans = Orphans::collect(meta, spill)?;
    let mut records = Records::new(meta)?;
    let mut number = 0;
    let mut open: Option<(Vec<u8>, File)> = None;
    let mut buffer = Vec::new();
    while let Some(record) = records.next()? {
        number += 1;
        match record {
            Record::Raw(length) => records.copy(length, out)?,
            Record::Orphan(_, length) => records.copy(length, &mut io::sink())?,
            Record::Content(path, offset, length) => {
                if let Some(orphan) = orphans.of(&path, number) {
                    orphans.copy(orphan, offset, length, &mut buffer, out)?;
                    continue;
                }
                if open.as_ref().is_none_or(|(last, _)| *last != path) {
                    let file = File::from(open_file(dir, &path)?);
                    open = Some((path.clone(), file));
                }
                if let Some((_, file)) = &open {
                    copy_range(file, &path, (offset, length), &mut buffer, out)?;
                }
            }
        }
    }
    Ok(())
}

/// The length in bytes of the stream that [`rebuild`] writes, from the record alone. Blocks.
///
/// # Errors
/// A record that is malformed.
pub fn length(meta: &mut File) -> Result<u64> {
    let mut records = Records::new(meta)?;
    let mut total = 0u64;
    while let Some(record) = records.next()? {
        let (counted, skipped) = match record {
            Record::Raw(length) => (length, length),
            Record::Content(_, _, length) => (length, 0),
            Record::Orphan(_, length) => (0, length),
        };
        total = total.checked_add(counted).ok_or_else(|| malformed("its lengths are too large"))?;
        records.copy(skipped, &mut io::sink())?;
    }
    Ok(total)
}

fn open_file(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
        .map_err(|error| Error::file("opening", path, error))
}

/// Copies a part of a file. The buffer is kept for the next: there are many files, and the allocator would give it back
/// to the kernel after each.
fn copy_range(
    file: &File,
    path: &[u8],
    (offset, length): (u64, u64),
    buffer: &mut Vec<u8>,
    out: &mut impl Write,
) -> Result<()> {
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(COPY_BUFFER);
    if buffer.len() < wanted {
        buffer.resize(wanted, 0);
    }
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..want], offset + done)
            .map_err(|error| Error::file("reading", path, error))?;
        out.write_all(&buffer[..want]).map_err(|error| Error::file("writing", b"the tar", error))?;
        done += want as u64;
    }
    Ok(())
}

/// Contents that later entries have replaced, kept in an unnamed file while a stream is rebuilt.
struct Orphans {
    spill: Option<File>,
    by_path: HashMap<Vec<u8>, Vec<Orphan>>,
}

#[derive(Clone, Copy)]
struct Orphan {
    record: u64,
    start: u64,
    length: u64,
}

impl Orphans {
    fn collect(meta: &mut File, folder: &Path) -> Result<Self> {
        let mut orphans = Self { spill: None, by_path: HashMap::new() };
        let mut records = Records::new(meta)?;
        let mut number = 0;
        let mut end = 0;
        while let Some(record) = records.next()? {
            number += 1;
            match record {
                Record::Raw(length) => records.copy(length, &mut io::sink())?,
                Record::Content(..) => {}
                Record::Orphan(path, length) => {
                    let spill = match &mut orphans.spill {
                        Some(spill) => spill,
                        empty => empty.insert(unnamed_file(folder)?),
                    };
                    records.copy(length, spill)?;
                    orphans.by_path.entry(path).or_default().push(Orphan {
                        record: number,
                        start: end,
                        length,
                    });
                    end += length;
                }
            }
        }
        Ok(orphans)
    }

    /// Where the content of `path` is that passed as record `number`: with the first orphan of this path after it.
    fn of(&self, path: &[u8], number: u64) -> Option<Orphan> {
        self.by_path.get(path)?.iter().copied().find(|orphan| orphan.record > number)
    }

    fn copy(
        &mut self,
        orphan: Orphan,
        offset: u64,
        length: u64,
        buffer: &mut Vec<u8>,
        out: &mut impl Write,
    ) -> Result<()> {
        let Some(spill) = self.spill.as_ref().filter(|_| offset.saturating_add(length) <= orphan.length)
        else {
            return Err(malformed("a replaced file is shorter than its entry"));
        };
        copy_range(spill, b"a replaced file", (orphan.start + offset, length), buffer, out)
    }
}

fn unnamed_file(folder: &Path) -> Result<File> {
    rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|error| Error::file("creating a temporary file in", folder.as_os_str().as_bytes(), error))
}

enum Record {
    Raw(u64),
    Content(Vec<u8>, u64, u64),
    Orphan(Vec<u8>, u64),
}

/// Reads a record from its start.
struct Records<'a> {
    input: zstd::stream::read::Decoder<'a, BufReader<&'a mut File>>,
}

impl<'a> Records<'a> {
    fn new(meta: &'a mut File) -> Result<Self> {
        meta.seek(SeekFrom::Start(0)).map_err(read_failed)?;
        let mut input =
            zstd::stream::read::Decoder::with_buffer(BufReader::new(meta)).map_err(read_failed)?;
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(read_failed)?;
        if magic != *MAGIC {
            return Err(malformed("its version is not known"));
        }
        Ok(Self { input })
    }

    fn next(&mut self) -> Result<Option<Record>> {
        let mut tag = [0];
        if self.input.read(&mut tag).map_err(read_failed)? == 0 {
            return Ok(None);
        }
        Ok(Some(match tag[0] {
            b'R' => Record::Raw(self.integer()?),
            b'C' => Record::Content(self.path()?, self.integer()?, self.integer()?),
            b'O' => Record::Orphan(self.path()?, self.integer()?),
            _ => return Err(malformed("a tag is not known")),
        }))
    }

    fn integer(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes).map_err(read_failed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn path(&mut self) -> Result<Vec<u8>> {
        let length = self.integer()?;
        if length > PATH_MAX {
            return Err(malformed("a path is too long"));
        }
        let mut path = vec![0; usize::try_from(length).unwrap_or(0)];
        self.input.read_exact(&mut path).map_err(read_failed)?;
        Ok(path)
    }

    fn copy(&mut self, length: u64, out: &mut impl Write) -> Result<()> {
        let copied = io::copy(&mut (&mut self.input).take(length), out)
            .map_err(|error| Error::file("writing", b"the tar", error))?;
        if copied != length {
            return Err(malformed("it is truncated"));
        }
        Ok(())
    }
}

fn read_failed(error: io::Error) -> Error {
    Error::file("reading", b"the tar's record", error)
}

fn malformed(problem: &str) -> Error {
    Error::Malformed { offset: 0, problem: format!("the tar's record: {problem}") }
}
