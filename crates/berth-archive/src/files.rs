//! The files of an archive, read one after the other without touching any disk: for archives of images.

use std::io::Read;

use crate::extract::Limits;
use crate::format::entry::{Entries, Kind};
use crate::format::input::Input;
use crate::meta::Recorder;
use crate::{Error, Result};

/// What a name of the archive stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file; its content is read with [`Files::data`].
    File {
        /// Bytes.
        size: u64,
    },
    /// Another name of the archive, as the archive has it.
    Link {
        /// The other name.
        target: Vec<u8>,
        /// Whether it is relative to the link's own directory.
        symbolic: bool,
    },
}

/// An uncompressed tar stream, file by file.
pub struct Files<R> {
    entries: Entries<R>,
    limits: Limits,
    count: u64,
    name: Vec<u8>,
}

impl<R: Read> Files<R> {
    /// Reads `reader` within `limits`.
    ///
    /// # Errors
    /// None that a caller can cause; the signature leaves room for the recorder's.
    pub fn new(reader: R, limits: Limits) -> Result<Self> {
        let entries = Entries::new(Input::unhashed(reader), Recorder::new(None)?, limits);
        Ok(Self { entries, limits, count: 0, name: Vec::new() })
    }

    /// The next file or link, or `None` at the end, when the stream has been read whole. Directories are passed over.
    ///
    /// # Errors
    /// What breaks the format or a limit; devices, FIFOs and sparse files, which no image archive holds.
    pub fn advance(&mut self) -> Result<Option<(Vec<u8>, Item)>> {
        while let Some(entry) = self.entries.next()? {
            self.count += 1;
            if self.count > self.limits.entries {
                return Err(Error::Limit { what: "the count of entries", limit: self.limits.entries });
            }
            if entry.name.len().max(entry.link.len()) > self.limits.path_bytes {
                return Err(Error::Limit {
                    what: "the length of a path",
                    limit: self.limits.path_bytes as u64,
                });
            }
            let item = match entry.kind {
                Kind::Directory => continue,
                Kind::File if entry.sparse.is_none() => Item::File { size: entry.stored },
                Kind::HardLink => Item::Link { target: entry.link, symbolic: false },
                Kind::Symlink => Item::Link { target: entry.link, symbolic: true },
                _ => return Err(Error::refused(&entry.name, "it is no plain file")),
            };
            self.name.clone_from(&entry.name);
            return Ok(Some((entry.name, item)));
        }
        Ok(None)
    }

    /// More of the current file's content, at most `most` bytes; empty at its end.
    ///
    /// # Errors
    /// A stream that fails or ends too early.
    pub fn data(&mut self, most: usize) -> Result<&[u8]> {
        self.entries.data(most as u64, &self.name)
    }
}

impl<R> std::fmt::Debug for Files<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Files").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_links_come_in_order() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder.append_data(&mut header, "a/b", &b"hello"[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "c", "a/b").unwrap();
        let archive = builder.into_inner().unwrap();
        let mut files = Files::new(archive.as_slice(), Limits::default()).unwrap();
        assert_eq!(files.advance().unwrap(), Some((b"a/b".to_vec(), Item::File { size: 5 })));
        assert_eq!(files.data(100).unwrap(), b"hello");
        assert!(files.data(100).unwrap().is_empty());
        let link = Item::Link { target: b"a/b".to_vec(), symbolic: true };
        assert_eq!(files.advance().unwrap(), Some((b"c".to_vec(), link)));
        assert_eq!(files.advance().unwrap(), None);
        let mut cut = Files::new(&archive[..514], Limits::default()).unwrap();
        cut.advance().unwrap();
        while let Ok(part) = cut.data(100) {
            assert!(!part.is_empty(), "the end of a cut file is not its end");
        }
    }
}
