//! Entries as a tar stream tells them: headers with their extensions applied.

use super::header::{self, BLOCK, Block, Header};
use super::input::{Input, Source};
use super::pax::{self, Time};
use super::sparse::{Map, PaxSparse, SEGMENTS_MAX};
use crate::extract::Limits;
use crate::meta::Recorder;
use crate::{Error, Result};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Directory,
    Fifo,
}

/// One entry; its data, if any, is still in the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As the archive has it.
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of file content in the stream.
    pub(crate) stored: u64,
    pub(crate) sparse: Option<Map>,
}

impl Entry {
    /// Bytes of the file, holes counted.
    pub(crate) fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |map| map.real_size)
    }

    /// Where the content in the stream belongs, as offsets and lengths.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, u64)> {
        let whole = self.sparse.is_none().then_some((0, self.stored));
        let parts = self.sparse.iter().flat_map(|map| map.segments.iter().copied());
        whole.into_iter().chain(parts)
    }
}

/// The stream, read entry by entry. Every byte that is not file content goes to the recorder as it passes.
pub(crate) struct Entries<R> {
    pub(crate) input: Input<R>,
    pub(crate) recorder: Recorder,
    limits: Limits,
    /// Bytes of the current entry's data not yet consumed, and the padding after them.
    remaining: u64,
    padding: u64,
}

/// Extended records that apply to the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<PaxSparse>,
}

impl<R: Source> Entries<R> {
    pub(crate) fn new(input: Input<R>, recorder: Recorder, limits: Limits) -> Self {
        Self { input, recorder, limits, remaining: 0, padding: 0 }
    }

    /// The next entry, or `None` after the last; then the stream has been read to its end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        let mut extended = false;
        let mut pax_bytes = 0u64;
        loop {
            let mut block = [0; BLOCK];
            if !self.input.exact_or_end(&mut block, "a header")? {
                if extended {
                    return Err(Error::Truncated { within: "extended headers".into() });
                }
                return Ok(None);
            }
            self.recorder.raw(&block)?;
            if block == [0; BLOCK] {
                self.end()?;
                return Ok(None);
            }
            let header = self.well_formed(header::parse(&block))?;
            match header.kind {
                b'x' => {
                    // One entry's extended headers are bounded together: their attributes add up in memory.
                    pax_bytes = pax_bytes.saturating_add(header.size);
                    if pax_bytes > self.limits.extension_bytes {
                        return Err(self.extension_limit());
                    }
                    self.pax(&header, &mut extensions)?;
                }
                b'g' => {
                    // As in Go's reader, and so in Docker: global records are checked, but change no entry.
                    let body = self.body(&header)?;
                    self.well_formed(pax::records(&body).map(drop))?;
                }
                b'L' => extensions.long_path = Some(self.long_name(&header)?),
                b'K' => extensions.long_link = Some(self.long_name(&header)?),
                _ => return self.entry(&block, header, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// The next bytes of the entry's data, to be written at once; empty at its end. Not recorded.
    pub(crate) fn data(&mut self, most: u64, name: &[u8]) -> Result<&[u8]> {
        let most = most.min(self.remaining);
        if most == 0 {
            return Ok(&[]);
        }
        let chunk = self.input.chunk(most)?;
        if chunk.is_empty() {
            return Err(Error::Truncated { within: format!("the data of {:?}", crate::error::lossy(name)) });
        }
        self.remaining -= chunk.len() as u64;
        Ok(chunk)
    }

    /// Passes over what is left of the current entry; it goes to the recorder.
    fn skip_rest(&mut self) -> Result<()> {
        let padding = self.padding;
        let mut rest = self.remaining.saturating_add(padding);
        (self.remaining, self.padding) = (0, 0);
        while rest > 0 {
            let chunk = self.input.chunk(rest)?;
            if chunk.is_empty() && rest == padding {
                // Docker's client ends a context right after the last byte of a Dockerfile that it adds.
                return Ok(());
            }
            if chunk.is_empty() {
                return Err(Error::Truncated { within: "an entry's data".into() });
            }
            rest -= chunk.len() as u64;
            self.recorder.raw(chunk)?;
        }
        Ok(())
    }

    /// After the first zero block: a second one, then whatever a writer's block size has added.
    fn end(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        if !self.input.exact_or_end(&mut block, "the trailer")? {
            return Ok(());
        }
        self.recorder.raw(&block)?;
        if block != [0; BLOCK] {
            return self.well_formed(Err("a header follows a zero block".into()));
        }
        loop {
            let chunk = self.input.chunk(u64::MAX)?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.recorder.raw(chunk)?;
        }
    }

    /// The body of an extension header, within the cap.
    fn body(&mut self, header: &Header) -> Result<Vec<u8>> {
        if header.size > self.limits.extension_bytes {
            return Err(self.extension_limit());
        }
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        let mut body = vec![0; size.next_multiple_of(BLOCK)];
        self.input.exact(&mut body, "an extended header")?;
        self.recorder.raw(&body)?;
        body.truncate(size);
        Ok(body)
    }

    fn extension_limit(&self) -> Error {
        Error::Limit { what: "the size of an entry's extended headers", limit: self.limits.extension_bytes }
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.body(header)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn pax(&mut self, header: &Header, extensions: &mut Extensions) -> Result<()> {
        let body = self.body(header)?;
        let result = pax::records(&body).and_then(|records| {
            for (keyword, value) in records {
                extensions.record(keyword, value)?;
            }
            Ok(())
        });
        self.well_formed(result)
    }

    fn entry(&mut self, block: &Block, header: Header, extensions: Extensions) -> Result<Entry> {
        let sparse_name = extensions.sparse.as_ref().and_then(|sparse| sparse.name.clone());
        let name = extensions.long_path.or(sparse_name).or(extensions.path).unwrap_or(header.path);
        let link = extensions.long_link.or(extensions.link).unwrap_or(header.link);
        let kind = match header.kind {
            b'0' | b'7' | b'S' => Kind::File,
            // Before the type flag existed, a directory was a name that ends in a slash.
            0 if name.ends_with(b"/") => Kind::Directory,
            0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice(header.device.0, header.device.1),
            b'4' => Kind::BlockDevice(header.device.0, header.device.1),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(Error::refused(&name, format!("its type {:?} is not known", char::from(other))));
            }
        };
        let owner = |number: u64| u32::try_from(number).ok().filter(|&number| number != u32::MAX);
        let uid = owner(extensions.uid.unwrap_or(header.uid));
        let gid = owner(extensions.gid.unwrap_or(header.gid));
        let (Some(uid), Some(gid)) = (uid, gid) else {
            return Err(Error::refused(&name, "its owner is out of range"));
        };
        let mut entry = Entry {
            kind,
            name,
            link,
            mode: header.mode,
            uid,
            gid,
            mtime: extensions.mtime.unwrap_or(header.mtime),
            xattrs: extensions.xattrs,
            stored: 0,
            sparse: None,
        };
        if kind == Kind::File {
            self.file(block, &mut entry, extensions.size.unwrap_or(header.size), extensions.sparse)?;
        }
        // Other kinds carry no data, whatever their size field says.
        Ok(entry)
    }

    /// Finds how much data follows and, for a sparse file, where it belongs.
    fn file(&mut self, block: &Block, entry: &mut Entry, size: u64, sparse: Option<PaxSparse>) -> Result<()> {
        if i64::try_from(size).is_err() {
            return self.well_formed(Err("an entry's size is out of range".into()));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        if block[156] == b'S' {
            let (segments, real_size) = self.gnu_sparse_map(block)?;
            entry.sparse = Some(self.well_formed(Map::new(segments, real_size, size))?);
        } else if let Some(sparse) = sparse.filter(|sparse| sparse.major == 1 || sparse.map.is_some()) {
            let segments = match sparse.map {
                Some(segments) => segments,
                None => self.leading_sparse_map()?,
            };
            let real_size =
                self.well_formed(sparse.real_size.ok_or_else(|| "a sparse file has no size".into()))?;
            entry.sparse = Some(self.well_formed(Map::new(segments, real_size, self.remaining))?);
        }
        entry.stored = self.remaining;
        Ok(())
    }

    fn gnu_sparse_map(&mut self, block: &Block) -> Result<(Vec<(u64, u64)>, u64)> {
        let (mut segments, mut more, real_size) = self.well_formed(header::gnu_sparse(block))?;
        while more {
            let mut block = [0; BLOCK];
            self.input.exact(&mut block, "a sparse map")?;
            self.recorder.raw(&block)?;
            let (further, again) = self.well_formed(header::gnu_sparse_extension(&block))?;
            more = again;
            segments.extend(further);
            if segments.len() > SEGMENTS_MAX {
                return Err(Error::Limit {
                    what: "the count of a sparse file's segments",
                    limit: SEGMENTS_MAX as u64,
                });
            }
        }
        Ok((segments, real_size))
    }

    /// The map of GNU tar's sparse format 1.0: decimal numbers, one on a line, at the start of the data.
    fn leading_sparse_map(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut numbers = Vec::new();
        let mut want = 1;
        let mut line = Vec::new();
        while numbers.len() < want {
            let mut block = [0; BLOCK];
            if self.remaining < BLOCK as u64 {
                return self.well_formed(Err("a sparse map passes its entry's end".into()));
            }
            self.input.exact(&mut block, "a sparse map")?;
            self.recorder.raw(&block)?;
            self.remaining -= BLOCK as u64;
            for byte in block {
                if numbers.len() == want {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number =
                    self.well_formed(pax::decimal(&line).ok_or_else(|| "a sparse map is malformed".into()))?;
                line.clear();
                if numbers.is_empty() {
                    if number > SEGMENTS_MAX as u64 {
                        return Err(Error::Limit {
                            what: "the count of a sparse file's segments",
                            limit: SEGMENTS_MAX as u64,
                        });
                    }
                    want = usize::try_from(number).unwrap_or(SEGMENTS_MAX) * 2 + 1;
                }
                numbers.push(number);
            }
            if line.len() > 32 {
                return self.well_formed(Err("a sparse map is malformed".into()));
            }
        }
        Ok(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn well_formed<T>(&self, result: Result<T, String>) -> Result<T> {
        result.map_err(|problem| Error::Malformed { offset: self.input.offset(), problem })
    }
}

impl Extensions {
    fn record(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || {
            pax::decimal(value)
                .ok_or_else(|| format!("the PAX record {:?} is not a number", crate::error::lossy(keyword)))
        };
        match keyword {
            // An empty value takes the record back.
            b"path" => self.path = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"linkpath" => self.link = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(number()?),
            b"uid" if value.is_empty() => self.uid = None,
            b"uid" => self.uid = Some(number()?),
            b"gid" if value.is_empty() => self.gid = None,
            b"gid" => self.gid = Some(number()?),
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(pax::time(value).ok_or("the PAX record \"mtime\" is not a time")?),
            _ => {
                if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err("an extended attribute's name is malformed".into());
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = keyword.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().record(name, value)?;
                }
            }
        }
        Ok(())
    }
}
