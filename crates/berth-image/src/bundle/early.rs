//! Layers that are unpacked while the archive is read, before anything in it says what they are: so their bytes are
//! written once, as files, and not first as an archive.

use std::io::{self, Read};

use berth_archive::decompress::Compression;
use berth_archive::files::Files;
use berth_oci::Digest;
use berth_oci::digest::{Algorithm, Hasher};
use berth_storage::Storage;

use super::Counted;
use crate::progress::Reporter;
use crate::unpack::{Unpacked, unpack_unknown};
use crate::{Error, Result};

/// Most layers that are unpacked on suspicion; further files wait for a manifest that names them.
pub(super) const MOST: usize = 1000;
/// As much as is looked at: a tar header.
pub(super) const HEADER: usize = 512;
/// Where such a header says that it is one, and how (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar agrees).
const MAGIC: (usize, &[u8]) = (257, b"ustar");

/// A layer that was unpacked on the way.
#[derive(Debug)]
pub(crate) struct Early {
    /// What came of it. It may be no layer at all, so failures count only when a manifest names it.
    pub outcome: Result<Unpacked>,
    /// Digest of the file; none for an uncompressed one that is no layer.
    pub blob: Option<Digest>,
    /// Bytes of the file.
    pub size: u64,
    /// How many images will still ask for it.
    pub(super) uses: usize,
}

/// Whether a file may be a layer, by its beginning. One whose name is a digest of another algorithm is not unpacked
/// early, since only one digest is computed.
pub(super) fn may_be_layer(name: &str, start: &[u8]) -> bool {
    let (at, magic) = MAGIC;
    let is_tar = start.get(at..at + magic.len()) == Some(magic);
    let other_digest = name.starts_with("blobs/") && !name.starts_with("blobs/sha256/");
    !other_digest && (is_tar || Compression::detect(start) != Compression::None)
}

/// What progress calls a file: the beginning of the digest in its name, if there is one.
pub(super) fn label(name: &str) -> String {
    let is_digest =
        |part: &&str| part.len() >= 64 && part.bytes().take(64).all(|byte| byte.is_ascii_hexdigit());
    name.split('/').find(is_digest).unwrap_or(name).chars().take(12).collect()
}

/// The content of the archive's current file.
pub(super) struct Current<'a, R> {
    pub files: &'a mut Files<R>,
    /// The beginning, which has been looked at.
    pub start: io::Cursor<Vec<u8>>,
    /// Why the archive itself ended, which the reader's user sees as an I/O error only.
    pub failure: Option<berth_archive::Error>,
}

impl<R: Read> Read for Current<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.start.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        match self.files.data(buffer.len()) {
            Ok(data) => {
                buffer[..data.len()].copy_from_slice(data);
                Ok(data.len())
            }
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(text))
            }
        }
    }
}

/// Unpacks the current file of `size` bytes, and reads it to its end however that goes.
///
/// # Errors
/// Those of the archive; those of the layer are part of what comes back.
pub(super) fn unpack<R: Read + Send>(
    storage: &Storage,
    name: &str,
    current: Current<'_, R>,
    size: u64,
    reporter: Reporter,
) -> Result<Early> {
    // The digest of an uncompressed file is the layer's own.
    let compressed = Compression::detect(current.start.get_ref()) != Compression::None;
    let hasher = compressed.then(|| Hasher::new(Algorithm::Sha256));
    let mut content = Counted::new(current, hasher, size, reporter);
    let mut outcome = unpack_unknown(storage, name, &mut content, None);
    let rest = io::copy(&mut content, &mut io::sink());
    if let Some(failure) = content.inner.failure.take() {
        return Err(Error::BrokenArchive { source: failure });
    }
    if let Err(source) = rest {
        outcome = Err(Error::io(format!("reading {name} in the archive"), source));
    }
    let blob = content.digest().or_else(|| outcome.as_ref().ok().map(|unpacked| unpacked.diff.clone()));
    Ok(Early { outcome, blob, size, uses: 0 })
}

impl Early {
    /// A second copy of the layer, for another image that has it at another place.
    pub(super) fn copy(&self, storage: &Storage) -> Result<Option<Unpacked>> {
        let Ok(unpacked) = &self.outcome else { return Ok(None) };
        let name = unpacked.diff.short();
        let mut tar = tempfile::tempfile_in(storage.root())
            .map_err(|source| Error::io("making a temporary file on the data root", source))?;
        let (mut meta, directory) = (unpacked.staging.open_meta()?, unpacked.staging.open()?);
        berth_archive::meta::rebuild(
            &mut meta,
            std::os::fd::AsFd::as_fd(&directory),
            storage.root(),
            &mut tar,
        )
        .map_err(|source| Error::Pack { layer: name.to_owned(), source })?;
        io::Seek::rewind(&mut tar).map_err(|source| Error::io("reading a temporary file", source))?;
        unpack_unknown(storage, name, tar, None).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_by_their_beginning() {
        let mut header = vec![0; HEADER];
        header[257..262].copy_from_slice(b"ustar");
        assert!(may_be_layer("a/layer.tar", &header));
        assert!(may_be_layer("blobs/sha256/ab", &[0x1f, 0x8b, 8, 0]));
        assert!(!may_be_layer("blobs/sha512/ab", &header));
        assert!(!may_be_layer("a.json", b"{\"a\":1}"));
        assert!(!may_be_layer("old.tar", &[b'x'; HEADER]));
    }

    #[test]
    fn progress_names_a_file_by_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        for name in [format!("blobs/sha256/{digest}"), format!("{digest}/layer.tar"), format!("{digest}.tar")]
        {
            assert_eq!(label(&name), "0123456789ab");
        }
        assert_eq!(label("layer0/layer.tar"), "layer0/layer");
    }
}
