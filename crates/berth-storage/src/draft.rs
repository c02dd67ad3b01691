//! Compressed layers that are made here, whose digest is known only at their end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::digest::{Algorithm, Hasher};

use crate::blobs::{SPACE_CHECK_BYTES, adopt};
use crate::{BlobInfo, BlobKind, Blobs, Error, Lease, Result, Shared};

/// A compressed layer that is being written. Dropped before [`BlobDraft::commit`], it is gone.
#[derive(Debug)]
pub struct BlobDraft {
    shared: Arc<Shared>,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    /// Bytes until the next look at the free space.
    unchecked: u64,
}

impl Blobs<'_> {
    /// Begins a compressed layer whose digest is not known yet.
    ///
    /// # Errors
    /// File errors.
    pub fn draft(&self) -> Result<BlobDraft> {
        let shared = self.shared();
        let path = shared.root.path().join("staging").join(shared.root.unique());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::file("creating", &path, error))?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(BlobDraft {
            shared: Arc::clone(shared),
            file,
            path,
            hasher,
            size: 0,
            unchecked: SPACE_CHECK_BYTES,
        })
    }
}

impl BlobDraft {
    /// Puts the layer into the cache, held by `lease`.
    ///
    /// # Errors
    /// File and database errors.
    pub fn commit(mut self, lease: &mut Lease) -> Result<BlobInfo> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
        let (digest, size) = (hasher.finish(), self.size);
        adopt(&self.shared, &self.path, BlobKind::Layer, &digest, size, lease)?;
        Ok(BlobInfo { digest, size })
    }
}

impl Write for BlobDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unchecked >= SPACE_CHECK_BYTES {
            self.shared.root.check_space(self.shared.keep_free_bytes).map_err(io::Error::other)?;
            self.unchecked = 0;
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        self.unchecked += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobDraft {
    fn drop(&mut self) {
        // After a commit nothing is there any more.
        let _ = std::fs::remove_file(&self.path);
    }
}
