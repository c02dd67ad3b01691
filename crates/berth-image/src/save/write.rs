//! Writing the archive.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::AsFd;

use berth_archive::writer::Writer;
use berth_oci::Digest;
use berth_oci::digest::Hasher;

use super::documents::{LAYOUT, blob_name, folder};
use super::{Blob, Content, Saving};
use crate::{Error, Result};

impl Saving {
    /// Writes the archive, an uncompressed tar, with the memory of a few buffers. The same images give the same bytes.
    /// Blocks.
    ///
    /// # Errors
    /// A failed write; [`Error::WrongDigest`] for a blob that is not what its digest says. What was written is then no
    /// whole archive: it lacks its end.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut archive = self.begin(out)?;
        archive.file("manifest.json", &self.manifest()?).map_err(write_failed)?;
        if let Some(repositories) = self.repositories()? {
            archive.file("repositories", &repositories).map_err(write_failed)?;
        }
        self.blobs(archive)
    }

    /// As [`Saving::write`], without the documents of `docker save`. Blocks.
    ///
    /// # Errors
    /// The same.
    pub fn write_layout(&self, out: impl Write) -> Result<()> {
        self.blobs(self.begin(out)?)
    }

    fn begin<W: Write>(&self, out: W) -> Result<Writer<W>> {
        let mut archive = Writer::new(out);
        archive.file("oci-layout", LAYOUT).map_err(write_failed)?;
        archive.file("index.json", &self.index()?).map_err(write_failed)?;
        Ok(archive)
    }

    fn blobs<W: Write>(&self, mut archive: Writer<W>) -> Result<()> {
        archive.directory("blobs/").map_err(write_failed)?;
        let folders: BTreeSet<String> = self.blobs.iter().map(|blob| folder(&blob.digest)).collect();
        for folder in folders {
            archive.directory(&folder).map_err(write_failed)?;
        }
        for blob in &self.blobs {
            archive.begin(&blob_name(&blob.digest), blob.size).map_err(write_failed)?;
            self.blob(blob, &mut archive)?;
        }
        archive.finish().map(drop).map_err(write_failed)
    }

    fn blob(&self, blob: &Blob, archive: &mut impl Write) -> Result<()> {
        let mut out = Hashed { out: archive, hasher: Hasher::new(blob.digest.algorithm()), failed: None };
        let outcome = self.content(blob, &mut out);
        // That nobody reads any more is the reason for whatever writing gave.
        if let Some(failed) = out.failed {
            return Err(write_failed(failed));
        }
        outcome?;
        let actual = out.hasher.finish();
        if actual == blob.digest {
            return Ok(());
        }
        if matches!(blob.content, Content::Cached) {
            // The next attempt makes the layer from its files.
            self.storage.blobs().discard(&blob.digest)?;
        }
        Err(Error::WrongDigest { what: what(&blob.digest), actual, expected: blob.digest.clone() })
    }

    fn content(&self, blob: &Blob, out: &mut impl Write) -> Result<()> {
        let failed = |error| Error::io(format!("reading {}", what(&blob.digest)), error);
        match &blob.content {
            Content::Bytes(bytes) => out.write_all(bytes).map_err(failed),
            Content::Document | Content::Cached => {
                let mut file = self.storage.blobs().open(&blob.digest)?;
                io::copy(&mut file, out).map(drop).map_err(failed)
            }
            Content::Unpacked(chain) => {
                let layers = self.storage.layers();
                let (mut meta, directory) = (layers.open_meta(chain)?, layers.open(chain)?);
                berth_archive::meta::rebuild(&mut meta, directory.as_fd(), self.storage.root(), out)
                    .map_err(|source| Error::Pack { layer: blob.digest.short().to_owned(), source })
            }
        }
    }
}

fn what(digest: &Digest) -> String {
    format!("stored blob {}", digest.short())
}

fn write_failed(error: io::Error) -> Error {
    Error::io("writing the archive", error)
}

/// Hashes what passes, and keeps why writing failed.
struct Hashed<'a, W> {
    out: &'a mut W,
    hasher: Hasher,
    failed: Option<io::Error>,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Ok(count) => {
                self.hasher.update(&bytes[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
