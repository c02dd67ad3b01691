//! The files of a layout: in a directory, or in a tar that is read in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// Most entries of a tar that are remembered.
const ENTRIES: usize = 200_000;
/// Most links that lead from one name to a file.
const LINKS: usize = 8;

/// A file, or a part of one.
#[derive(Debug)]
pub struct Part {
    /// The file.
    pub file: File,
    /// Where the part begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl Part {
    /// A reader from `offset` bytes on.
    ///
    /// # Errors
    /// File errors.
    pub fn reader(mut self, offset: u64) -> io::Result<io::Take<File>> {
        let offset = offset.min(self.size);
        self.file.seek(SeekFrom::Start(self.start + offset))?;
        Ok(self.file.take(self.size - offset))
    }
}

/// What lies at a name in a tar.
#[derive(Debug)]
enum Entry {
    File { start: u64, size: u64 },
    Link(String),
}

/// Where files are.
#[derive(Debug)]
pub enum Files {
    /// Below a directory.
    Directory(PathBuf),
    /// In a tar.
    Tar(Tar),
}

/// A tar with the places of its files.
#[derive(Debug)]
pub struct Tar {
    path: PathBuf,
    entries: HashMap<String, Entry>,
}

impl Files {
    /// Looks through a tar; contents are passed over.
    pub fn tar(path: &Path) -> Outcome<Self> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
        let mut file = File::open(path).map_err(|error| failed(&error))?;
        let mut magic = [0; 6];
        let length = file.read(&mut magic).map_err(|error| failed(&error))?;
        if is_compressed(&magic[..length]) {
            return Err(failed(
                &"the archive is compressed: only an archive that is not can be read in place",
            ));
        }
        file.rewind().map_err(|error| failed(&error))?;
        let mut entries = HashMap::new();
        let mut archive = tar::Archive::new(io::BufReader::new(file));
        for entry in archive.entries_with_seek().map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let name = cleaned(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            let found = if kind.is_file() {
                Entry::File { start: entry.raw_file_position(), size: entry.size() }
            } else if let Some(target) =
                entry.link_name_bytes().filter(|_| kind.is_hard_link() || kind.is_symlink())
            {
                let target = String::from_utf8_lossy(&target).into_owned();
                let beside = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                // A hard link's target is a name of the archive, a symbolic link's one beside it.
                Entry::Link(if kind.is_symlink() {
                    cleaned(&format!("{beside}/{target}"))
                } else {
                    cleaned(&target)
                })
            } else {
                continue;
            };
            if entries.len() >= ENTRIES {
                return Err(failed(&"the archive has too many files"));
            }
            entries.insert(name, found);
        }
        Ok(Self::Tar(Tar { path: path.to_owned(), entries }))
    }

    /// Opens a file by its name below the layout.
    ///
    /// # Errors
    /// `NotFound`; file errors.
    pub fn open(&self, name: &str) -> io::Result<Part> {
        let missing =
            |path: &Path| io::Error::new(io::ErrorKind::NotFound, format!("{}: no {name}", path.display()));
        match self {
            Self::Directory(path) => {
                let file = File::open(path.join(name)).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => missing(path),
                    _ => error,
                })?;
                let size = file.metadata()?.len();
                Ok(Part { file, start: 0, size })
            }
            Self::Tar(tar) => {
                let (start, size) = tar.find(name).ok_or_else(|| missing(&tar.path))?;
                Ok(Part { file: File::open(&tar.path)?, start, size })
            }
        }
    }

    /// A whole file that is no longer than `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> Outcome<Vec<u8>> {
        let failed = |error: io::Error| Failure::new(error.to_string());
        let part = self.open(name).map_err(failed)?;
        if part.size > limit {
            return Err(Failure::new(format!("{name} is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        part.reader(0).and_then(|mut reader| reader.read_to_end(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }
}

impl Tar {
    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut entry = self.entries.get(&cleaned(name))?;
        for _ in 0..LINKS {
            match entry {
                Entry::File { start, size } => return Some((*start, *size)),
                Entry::Link(target) => entry = self.entries.get(target)?,
            }
        }
        None
    }
}

/// A name without `.`, `..` and doubled slashes. What would lead out of the archive only leads to nothing in it.
fn cleaned(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a file begins as gzip, bzip2, xz or zstd do.
pub fn is_compressed(magic: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] =
        [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
    MAGIC.iter().any(|known| magic.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_tar_are_followed_within_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        archive.append_data(&mut header, "./a/layer.tar", &b"abc"[..]).unwrap();
        for (name, kind, target) in [
            ("b/layer.tar", tar::EntryType::Symlink, "../a/layer.tar"),
            ("c", tar::EntryType::Link, "b/layer.tar"),
            ("circle", tar::EntryType::Symlink, "circle"),
            ("out", tar::EntryType::Symlink, "../../etc/passwd"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            archive.append_link(&mut header, name, target).unwrap();
        }
        archive.finish().unwrap();
        let files = Files::tar(&path).unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "c"] {
            assert_eq!(files.read(name, 3).unwrap(), b"abc", "{name}");
        }
        for name in ["circle", "out", "absent", "/etc/passwd"] {
            assert_eq!(files.open(name).unwrap_err().kind(), io::ErrorKind::NotFound, "{name}");
        }
        assert!(files.read("c", 2).is_err());
        let mut rest = String::new();
        files.open("c").unwrap().reader(2).unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "c");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(Files::tar(&path).unwrap_err().message.contains("compressed"));
    }
}
