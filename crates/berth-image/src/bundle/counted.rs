//! A file of the archive on its way into a layer.

use std::io::{self, Read};

use berth_oci::Digest;
use berth_oci::digest::Hasher;

use crate::progress::Reporter;

/// Hashes, if that is wanted, and reports what is read.
pub(crate) struct Counted<R> {
    /// What is read.
    pub inner: R,
    hasher: Option<Hasher>,
    done: u64,
    total: u64,
    reporter: Reporter,
}

impl<R> Counted<R> {
    /// Reads `inner`, which has `total` bytes.
    pub fn new(inner: R, hasher: Option<Hasher>, total: u64, reporter: Reporter) -> Self {
        Self { inner, hasher, done: 0, total, reporter }
    }

    /// The digest of what was read, if it was wanted.
    pub fn digest(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.done += count as u64;
        self.reporter.count("Loading layer", self.done, self.total);
        Ok(count)
    }
}
