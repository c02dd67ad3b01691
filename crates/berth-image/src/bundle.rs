//! The files of an image archive: layers as they are unpacked on the way, and the rest in one unnamed file on the data
//! root's disk.
//!
//! Manifests come after what they describe, and a stream cannot go back. Neither an unnamed file nor a layer that is
//! being unpacked leaves anything behind, however the load ends.

mod counted;
mod early;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use berth_archive::decompress;
use berth_archive::extract::Limits;
use berth_archive::files::{Files, Item};
use berth_storage::Storage;
use tokio::sync::mpsc;

use crate::progress::Reporter;
use crate::{Error, Progress, Result};
pub(crate) use counted::Counted;
use early::Current;
pub(crate) use early::Early;

/// Bounds of an archive of images; layers are files in it, whose content has bounds of its own.
const LIMITS: Limits =
    Limits { entries: 100_000, path_bytes: 4095, path_depth: 64, extension_bytes: 64 << 10 };
/// Bytes that all names together may have: they are kept in memory.
const NAMES: usize = 8 << 20;
/// How often free space is looked at.
const CHECK_EVERY: u64 = 16 << 20;
/// Links that are followed from one name.
const LINKS: usize = 8;

/// An archive that has been read whole.
#[derive(Debug)]
pub(crate) struct Bundle {
    file: Arc<File>,
    parts: HashMap<String, Place>,
    layers: Vec<Option<Early>>,
    links: HashMap<String, String>,
}

/// Where a file is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the unnamed file.
    Kept { offset: u64, size: u64 },
    /// Among the layers.
    Unpacked(usize),
}

/// One file of the archive, as a reader.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Bundle {
    /// Reads an archive, compressed or not, to its end. Blocks.
    pub fn read(
        storage: &Storage,
        archive: impl Read + Send,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Self> {
        let broken = |source| Error::BrokenArchive { source };
        let mut files = Files::new(decompress::reader(archive).map_err(broken)?, LIMITS).map_err(broken)?;
        let mut kept = Kept::new(storage)?;
        let (mut parts, mut links, mut layers) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut names = 0;
        while let Some((name, item)) = files.advance().map_err(broken)? {
            names += name.len() + if let Item::Link { target, .. } = &item { target.len() } else { 0 };
            if names > NAMES {
                let limit = NAMES as u64;
                return Err(broken(berth_archive::Error::Limit { what: "the length of all names", limit }));
            }
            let name = normal("", &String::from_utf8_lossy(&name));
            match item {
                Item::File { size } => {
                    let start = beginning(&mut files).map_err(broken)?;
                    let place = if layers.len() < early::MOST && early::may_be_layer(&name, &start) {
                        let reporter = Reporter::new(early::label(&name), progress.clone());
                        let current =
                            Current { files: &mut files, start: io::Cursor::new(start), failure: None };
                        layers.push(Some(early::unpack(storage, &name, current, size, reporter)?));
                        Place::Unpacked(layers.len() - 1)
                    } else {
                        kept.copy(&start, &mut files)?
                    };
                    parts.insert(name, place);
                }
                Item::Link { target, symbolic } => {
                    let directory =
                        if symbolic { name.rsplit_once('/').map_or("", |(parent, _)| parent) } else { "" };
                    let target = normal(directory, &String::from_utf8_lossy(&target));
                    links.insert(name, target);
                }
            }
        }
        Ok(Self { file: Arc::new(kept.finish()?), parts, layers, links })
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A file's content.
    pub fn open(&self, name: &str) -> Result<Part> {
        match self.find(name) {
            Some(Place::Kept { offset, size }) => {
                Ok(Part { file: Arc::clone(&self.file), offset, left: size })
            }
            Some(Place::Unpacked(_)) => Err(Error::Archive(format!("{name} in the archive is a layer"))),
            None => Err(Error::Archive(format!("the archive has no file {name:?}"))),
        }
    }

    /// A short file, in memory.
    pub fn bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut part = self.open(name)?;
        if part.left > limit {
            return Err(Error::TooLarge { what: format!("{name} in the archive"), limit });
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).map_err(|source| Error::io(format!("reading {name}"), source))?;
        Ok(bytes)
    }

    /// Says that an image will ask for a layer, once for each of its layers that is this file.
    pub fn expect(&mut self, name: &str) {
        if let Some(Place::Unpacked(index)) = self.find(name)
            && let Some(layer) = self.layers[index].as_mut()
        {
            layer.uses += 1;
        }
    }

    /// A layer that was unpacked while the archive was read; none for a file that is still to be unpacked. The last of
    /// those who were expected gets the layer itself, the others a copy. Blocks.
    pub fn take(&mut self, storage: &Storage, name: &str) -> Result<Option<Early>> {
        let Some(Place::Unpacked(index)) = self.find(name) else { return Ok(None) };
        let Some(layer) = self.layers[index].as_mut() else {
            return Err(Error::Archive(format!("{name} in the archive was not expected so often")));
        };
        layer.uses = layer.uses.saturating_sub(1);
        if layer.uses > 0
            && let Some(unpacked) = layer.copy(storage)?
        {
            let (blob, size) = (layer.blob.clone(), layer.size);
            return Ok(Some(Early { outcome: Ok(unpacked), blob, size, uses: 0 }));
        }
        Ok(self.layers[index].take())
    }

    fn find(&self, name: &str) -> Option<Place> {
        let mut name = normal("", name);
        for _ in 0..LINKS {
            if let Some(&part) = self.parts.get(&name) {
                return Some(part);
            }
            name.clone_from(self.links.get(&name)?);
        }
        None
    }
}

/// The beginning of the current file.
fn beginning<R: Read>(files: &mut Files<R>) -> Result<Vec<u8>, berth_archive::Error> {
    let mut start = Vec::with_capacity(early::HEADER);
    while start.len() < early::HEADER {
        let data = files.data(early::HEADER - start.len())?;
        if data.is_empty() {
            break;
        }
        start.extend_from_slice(data);
    }
    Ok(start)
}

/// The unnamed file while it is written.
struct Kept<'a> {
    storage: &'a Storage,
    out: BufWriter<File>,
    offset: u64,
    checked: u64,
}

impl<'a> Kept<'a> {
    fn new(storage: &'a Storage) -> Result<Self> {
        let file = tempfile::tempfile_in(storage.root())
            .map_err(|source| Error::io("making a temporary file on the data root", source))?;
        storage.check_space()?;
        Ok(Self { storage, out: BufWriter::with_capacity(256 << 10, file), offset: 0, checked: 0 })
    }

    /// Appends the current file, whose beginning has been read.
    fn copy<R: Read>(&mut self, start: &[u8], files: &mut Files<R>) -> Result<Place> {
        let offset = self.offset;
        self.write(start)?;
        loop {
            let data = files.data(usize::MAX).map_err(|source| Error::BrokenArchive { source })?;
            if data.is_empty() {
                return Ok(Place::Kept { offset, size: self.offset - offset });
            }
            self.write(data)?;
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(data).map_err(|source| Error::io("copying the archive", source))?;
        self.offset += data.len() as u64;
        if self.offset - self.checked >= CHECK_EVERY {
            self.checked = self.offset;
            self.storage.check_space()?;
        }
        Ok(())
    }

    fn finish(self) -> Result<File> {
        self.out.into_inner().map_err(|error| Error::io("copying the archive", error.into_error()))
    }
}

impl Part {
    /// Bytes that are left.
    pub fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// `name` relative to `directory`, without `.`, `..` and empty parts. It is a key, never a path on disk.
fn normal(directory: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if name.starts_with('/') { "" } else { directory };
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys() {
        assert_eq!(normal("", "./a//b"), "a/b");
        assert_eq!(normal("x/y", "../z/layer.tar"), "x/z/layer.tar");
        assert_eq!(normal("x", "../../../etc"), "etc");
        assert_eq!(normal("x", "/a"), "a");
    }
}
