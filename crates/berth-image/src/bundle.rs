//! The files of an image archive, in one unnamed file on the data root's disk.
//!
//! Manifests come after what they describe, and a stream cannot go back. An unnamed file leaves nothing behind, however
//! the load ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use berth_archive::decompress;
use berth_archive::extract::Limits;
use berth_archive::files::{Files, Item};
use berth_storage::Storage;

use crate::{Error, Result};

/// Bounds of an archive of images; layers are files in it, whose content has bounds of its own.
const LIMITS: Limits =
    Limits { entries: 100_000, path_bytes: 4095, path_depth: 64, extension_bytes: 64 << 10 };
/// How often free space is looked at.
const CHECK_EVERY: u64 = 16 << 20;
/// Links that are followed from one name.
const LINKS: usize = 8;

/// An archive that has been read whole.
#[derive(Debug)]
pub(crate) struct Bundle {
    file: Arc<File>,
    parts: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
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
    pub fn read(storage: &Storage, archive: impl Read) -> Result<Self> {
        let broken = |source| Error::BrokenArchive { source };
        let file = tempfile::tempfile_in(storage.root())
            .map_err(|source| Error::io("making a temporary file on the data root", source))?;
        let mut out = BufWriter::with_capacity(256 << 10, &file);
        let mut files = Files::new(decompress::reader(archive).map_err(broken)?, LIMITS).map_err(broken)?;
        let (mut parts, mut links) = (HashMap::new(), HashMap::new());
        let (mut offset, mut checked) = (0u64, 0u64);
        storage.check_space()?;
        while let Some((name, item)) = files.advance().map_err(broken)? {
            let name = normal("", &String::from_utf8_lossy(&name));
            match item {
                Item::File { size } => {
                    parts.insert(name, (offset, size));
                    loop {
                        let data = files.data().map_err(broken)?;
                        if data.is_empty() {
                            break;
                        }
                        out.write_all(data).map_err(|source| Error::io("copying the archive", source))?;
                        offset += data.len() as u64;
                        if offset - checked >= CHECK_EVERY {
                            checked = offset;
                            storage.check_space()?;
                        }
                    }
                }
                Item::Link { target, symbolic } => {
                    let directory =
                        if symbolic { name.rsplit_once('/').map_or("", |(parent, _)| parent) } else { "" };
                    let target = normal(directory, &String::from_utf8_lossy(&target));
                    links.insert(name, target);
                }
            }
        }
        out.flush().map_err(|source| Error::io("copying the archive", source))?;
        drop(out);
        Ok(Self { file: Arc::new(file), parts, links })
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A file's content.
    pub fn open(&self, name: &str) -> Result<Part> {
        let (offset, left) =
            self.find(name).ok_or_else(|| Error::Archive(format!("the archive has no file {name:?}")))?;
        Ok(Part { file: Arc::clone(&self.file), offset, left })
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

    fn find(&self, name: &str) -> Option<(u64, u64)> {
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
