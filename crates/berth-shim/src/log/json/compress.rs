//! Compressing a rotated file in small steps, between the container's chunks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;

use super::files;

/// Bytes that one step takes.
const STEP: usize = 128 * 1024;

/// The file `.1` on its way to `.1.gz`.
#[derive(Debug)]
pub(super) struct Compressor {
    path: PathBuf,
    source: File,
    out: GzEncoder<File>,
}

impl Compressor {
    /// Begins with the newest rotated file of the log at `path`.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let source = File::open(files::rotated(path, 1))?;
        let out = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(files::unfinished(path))?;
        let out = files::encoder(source.metadata()?.ino(), out);
        Ok(Self { path: path.to_owned(), source, out })
    }

    /// Goes on a little; true when all is done and the compressed file has taken the other's place.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; STEP];
        let count = self.source.read(&mut buffer)?;
        self.out.write_all(&buffer[..count])?;
        if count > 0 {
            return Ok(false);
        }
        self.out.try_finish()?;
        std::fs::rename(files::unfinished(&self.path), files::compressed(&self.path, 1))?;
        std::fs::remove_file(files::rotated(&self.path, 1))?;
        Ok(true)
    }
}
