//! Streaming extraction of one layer's tar into a directory.
//!
//! The result is an overlayfs lower layer: whiteouts have become character devices 0:0, opaque directories carry
//! `trusted.overlay.opaque`; or, where that cannot be, one with other [`Marks`]. Two things need the layers below and wait for [`fixup`]: the attributes of directories
//! that the archive only implies, and hard links to files of lower layers.
//!
//! Paths are walked beneath one descriptor with symbolic links refused by the kernel (`openat2`, `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`); last components are created exclusively or opened with `O_NOFOLLOW`.

pub(crate) mod attributes;
mod fixup;
mod hidden;
mod name;
mod origin;
pub(crate) mod place;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use berth_oci::Digest;

pub use fixup::fixup;
use origin::Origin;
use place::Tree;

use crate::format::ahead::{self, Block};
use crate::format::entry::{Entries, Kind};
use crate::format::input::{Input, Source};
use crate::marks::Marks;
use crate::meta::Recorder;
use crate::{Error, Result};

/// Bounds on what an archive may ask for. Content is bounded by the disk alone.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries in one archive.
    pub entries: u64,
    /// Bytes of a path, and of a link's target.
    pub path_bytes: usize,
    /// Components of a path.
    pub path_depth: usize,
    /// Bytes of one extended header (PAX or GNU long name).
    pub extension_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000_000, path_bytes: 4095, path_depth: 512, extension_bytes: 1 << 20 }
    }
}

/// How to extract.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bounds on what an archive may ask for.
    pub limits: Limits,
    /// Bytes that stay free on the directory's file system; extraction stops before it goes below.
    pub keep_free_bytes: u64,
    /// What marks removed names and opaque directories.
    pub marks: Marks,
}

/// A hard link whose target is no file of its own layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredLink {
    /// The link's path beneath the layer's root.
    pub path: Vec<u8>,
    /// The path of the file in the layers below.
    pub target: Vec<u8>,
}

/// What [`fixup`] has to do once the layers below are in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixups {
    /// Directories that exist only because entries lie in them, parents first. The root, if the archive does not name
    /// it, is the empty path.
    pub implied: Vec<Vec<u8>>,
    /// Hard links into lower layers.
    pub links: Vec<DeferredLink>,
    /// The marks of this layer and of those below.
    pub marks: Marks,
}

impl Fixups {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.implied.is_empty() && self.links.is_empty()
    }
}

/// What came out of one archive.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// SHA-256 of the uncompressed stream.
    pub diff_id: Digest,
    /// Bytes of the uncompressed stream.
    pub size: u64,
    /// Bytes of the files in it.
    pub content: u64,
    /// Entries, extended headers not counted.
    pub entries: u64,
    /// What is left to do when the lower layers are known.
    pub fixups: Fixups,
}

/// Extracts one layer into one directory.
#[derive(Debug)]
pub struct Extractor {
    dir: OwnedFd,
    options: Options,
    meta: Option<File>,
    origin: Option<Origin>,
}

impl Extractor {
    /// Extraction into `dir`, an empty directory that nothing else writes to.
    #[must_use]
    pub fn new(dir: OwnedFd, options: Options) -> Self {
        Self { dir, options, meta: None, origin: None }
    }

    /// Also writes what [`crate::meta::rebuild`] needs to `file`.
    #[must_use]
    pub fn record(mut self, file: File) -> Self {
        self.meta = Some(file);
        self
    }

    /// Takes files over from the tree `origin`, of the same file system, instead of writing them: the archive is being made of
    /// it, path for path, and nobody uses it any more. A file with several names stays as it is.
    #[must_use]
    pub fn take_over(mut self, origin: OwnedFd) -> Self {
        self.origin = Some(Origin::new(origin));
        self
    }

    /// Extracts an uncompressed tar stream, reading it to its end. Blocks. What is longer than a block is read and hashed
    /// by two other threads meanwhile. Nothing is synced.
    ///
    /// # Errors
    /// Whatever is wrong with the archive or the disk. The directory then holds a part of the layer and is to be thrown
    /// away.
    pub fn layer(self, mut reader: impl Read + Send) -> Result<Extracted> {
        let first = Block::read(&mut reader)?;
        if first.is_last() {
            let (unpacked, input) = self.stream(Input::new(first.filled()))?;
            return Ok(unpacked.of(input.finish()));
        }
        std::thread::scope(|scope| {
            let (ahead, hash) = ahead::start(scope, reader, first)?;
            let (unpacked, input) = self.stream(Input::unhashed(ahead))?;
            // Whoever still reads or hashes for it ends with it.
            drop(input);
            Ok(unpacked.of(hash.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
        })
    }

    fn stream<S: Source>(self, input: Input<S>) -> Result<(Unpacked, Input<S>)> {
        let limits = self.options.limits;
        let mut entries = Entries::new(input, Recorder::new(self.meta)?, limits);
        let mut tree = Tree::new(self.dir, self.options.keep_free_bytes, self.options.marks)?;
        tree.origin = self.origin;
        let (mut count, mut content) = (0, 0u64);
        while let Some(entry) = entries.next()? {
            count += 1;
            if count > limits.entries {
                return Err(Error::Limit { what: "the count of entries", limit: limits.entries });
            }
            if matches!(entry.kind, Kind::File) {
                content = content.saturating_add(entry.stored);
            }
            tree.place(entry, &limits, &mut entries)?;
        }
        let Entries { input, recorder, .. } = entries;
        recorder.finish()?;
        Ok((Unpacked { content, entries: count, fixups: tree.finish()? }, input))
    }
}

/// What came out of a stream whose hash is still to be told.
struct Unpacked {
    content: u64,
    entries: u64,
    fixups: Fixups,
}

impl Unpacked {
    fn of(self, (hash, size): ([u8; 32], u64)) -> Extracted {
        let Self { content, entries, fixups } = self;
        Extracted { diff_id: Digest::from_sha256(hash), size, content, entries, fixups }
    }
}

/// Takes everything at and below `path` out of a map keyed by path.
fn forget<V>(map: &mut BTreeMap<Vec<u8>, V>, path: &[u8]) {
    map.remove(path);
    let mut first = path.to_vec();
    first.push(b'/');
    let mut end = path.to_vec();
    end.push(b'/' + 1);
    let below: Vec<Vec<u8>> = map.range(first..end).map(|(path, _)| path.clone()).collect();
    for path in below {
        map.remove(&path);
    }
}
