//! Blobs: documents (configurations, manifests, indexes), kept as long as an image names them, and compressed
//! layers, a bounded cache on which nothing depends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::Digest;
use berth_oci::digest::Hasher;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::database::{digest, failed, integer, now, size};
use crate::leases::Object;
use crate::once::WrittenOnce;
use crate::root::PARTIAL;
use crate::{Error, Lease, Result, Shared, partials, unsynced};

/// Bytes written between two looks at the free space.
pub(crate) const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// What a blob is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A configuration, manifest or index: kept with its image.
    Document,
    /// A compressed layer: kept while the cache has room.
    Layer,
}

impl BlobKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Layer => "layer",
        }
    }
}

/// What a blob is announced to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes, if known.
    pub size: Option<u64>,
}

/// A stored blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A compressed layer of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it came, or was last used.
    pub used: Timestamp,
    /// Whether it is being read now, so that it stays.
    pub held: bool,
}

/// Access to blobs.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    /// A writer for a blob with an announced digest. What an interrupted writer left is gone on with from
    /// [`BlobWriter::offset`]; it is hashed again first, which blocks.
    ///
    /// # Errors
    /// [`Error::Held`] while another writer has the same blob; file errors.
    pub fn writer(&self, kind: BlobKind, expected: Expected) -> Result<BlobWriter> {
        let name = expected.digest.hex().to_owned();
        let claim = self.shared.leases.claim(partials::CLAIM, &name, "another download")?;
        let path = self.shared.root.path().join(PARTIAL).join(&name);
        let failed = |operation| {
            let path = path.clone();
            move |error: io::Error| Error::file(operation, path, error)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening"))?;
        let mut hasher = Hasher::new(expected.digest.algorithm());
        let mut offset = 0;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(failed("reading"))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
        let mut writer = BlobWriter {
            shared: Arc::clone(self.shared),
            file: WrittenOnce::new(file, offset),
            path,
            kind,
            expected,
            hasher,
            offset,
            unchecked: SPACE_CHECK_BYTES,
            _claim: claim,
        };
        if writer.expected.size.is_some_and(|size| offset > size) {
            writer.restart()?;
        }
        Ok(writer)
    }

    /// How many bytes of a blob earlier writers left for the next one.
    #[must_use]
    pub fn begun(&self, digest: &Digest) -> u64 {
        let path = self.shared.root.path().join(PARTIAL).join(digest.hex());
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Stores a document that is in memory. If that does not come to its end, nothing is left of it: nobody goes on with
    /// what can be had again as a whole.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] if it is not what `expected` says; file errors.
    pub fn put(&self, expected: &Digest, content: &[u8], lease: &mut Lease) -> Result<()> {
        if self.hold(expected, lease)? {
            return Ok(());
        }
        let mut hasher = Hasher::new(expected.algorithm());
        hasher.update(content);
        check_digest(expected, hasher.finish())?;
        self.shared.root.check_space(self.shared.keep_free_bytes)?;
        let path = self.shared.root.path().join("staging").join(self.shared.root.unique());
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| Error::file("writing", &path, error));
        let stored = written.and_then(|()| {
            adopt(self.shared, &path, BlobKind::Document, expected, content.len() as u64, lease)
        });
        if stored.is_err() {
            // The failure is told; the next start removes what cannot be removed now.
            let _ = std::fs::remove_file(&path);
        }
        stored
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`Error::NotFound`]; file errors.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = path(self.shared, digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::not_found("blob", digest)),
            other => other.map_err(|error| Error::file("opening", path, error)),
        }
    }

    /// The content of a document.
    ///
    /// # Errors
    /// [`Error::NotFound`]; file errors.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = self.open(digest)?;
        file.read_to_end(&mut content)
            .map_err(|error| Error::file("reading", path(self.shared, digest), error))?;
        Ok(content)
    }

    /// Digest and size of a blob, if it is stored.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, wanted: &Digest) -> Result<Option<BlobInfo>> {
        let found: Option<i64> = self.shared.database.read(|connection| {
            connection
                .prepare_cached("SELECT size FROM blobs WHERE digest = ?")
                .and_then(|mut statement| {
                    statement.query_row([wanted.to_string()], |row| row.get(0)).optional()
                })
                .map_err(failed("looking up a blob"))
        })?;
        Ok(found.map(|bytes| BlobInfo { digest: wanted.clone(), size: size(bytes) }))
    }

    /// Whether a blob is stored; if so, `lease` holds it from now on.
    ///
    /// # Errors
    /// Database errors.
    pub fn hold(&self, wanted: &Digest, lease: &mut Lease) -> Result<bool> {
        let _structure = self.shared.structure();
        let found = self.get(wanted)?.is_some();
        if found {
            lease.add(Object::Blob(wanted.clone()));
            // The cache gives up first what was not used for longest. Documents are kept with their images.
            self.shared.write(|transaction| {
                transaction
                    .prepare_cached("UPDATE blobs SET used = ?2 WHERE digest = ?1 AND kind = 'layer' AND used < ?2 - 60000")
                    .and_then(|mut statement| statement.execute(params![wanted.to_string(), now()]))
                    .map(drop)
                    .map_err(failed("noting a use"))
            })?;
        }
        Ok(found)
    }

    /// Throws away a compressed layer that turned out to be damaged, whoever holds it; documents stay.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn discard(&self, damaged: &Digest) -> Result<()> {
        let _structure = self.shared.structure();
        let deleted = self.shared.write(|transaction| {
            transaction
                .execute("DELETE FROM blobs WHERE digest = ? AND kind = 'layer'", [damaged.to_string()])
                .map_err(failed("removing a blob"))
        })?;
        if deleted == 0 {
            return Ok(());
        }
        match std::fs::remove_file(path(self.shared, damaged)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("removing", path(self.shared, damaged), error))
            }
            _ => Ok(()),
        }
    }

    /// All blobs of a kind.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self, kind: BlobKind) -> Result<Vec<BlobInfo>> {
        let rows: Vec<(String, i64)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT digest, size FROM blobs WHERE kind = ? ORDER BY digest")
                .map_err(failed("listing blobs"))?;
            let rows = statement.query_map([kind.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing blobs"))
        })?;
        rows.into_iter()
            .map(|(text, bytes)| Ok(BlobInfo { digest: digest(&text)?, size: size(bytes) }))
            .collect()
    }

    /// The compressed layers of the cache, those first that were not used for longest.
    ///
    /// # Errors
    /// Database errors.
    pub fn cached(&self) -> Result<Vec<CachedLayer>> {
        let rows: Vec<(String, i64, i64)> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT digest, size, used FROM blobs WHERE kind = 'layer' ORDER BY used")
                .map_err(failed("listing blobs"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            rows.and_then(Iterator::collect).map_err(failed("listing blobs"))
        })?;
        let layers = rows.into_iter().map(|(text, bytes, used)| {
            let digest = digest(&text)?;
            Ok(CachedLayer {
                held: self.shared.leases.holds(&Object::Blob(digest.clone())),
                digest,
                size: size(bytes),
                used: Timestamp::from_millisecond(used).unwrap_or_default(),
            })
        });
        layers.collect()
    }

    /// Removes a compressed layer from the cache, unless it is being read; whether it is gone by this.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn evict(&self, layer: &Digest) -> Result<bool> {
        crate::garbage::remove_cached(self.shared, layer)
    }

    /// Bytes of all blobs of a kind.
    ///
    /// # Errors
    /// Database errors.
    pub fn total(&self, kind: BlobKind) -> Result<u64> {
        let total: i64 = self.shared.database.read(|connection| {
            connection
                .prepare_cached("SELECT coalesce(sum(size), 0) FROM blobs WHERE kind = ?")
                .and_then(|mut statement| statement.query_row([kind.as_str()], |row| row.get(0)))
                .map_err(failed("summing"))
        })?;
        Ok(size(total))
    }

    /// Removes compressed layers, the least recently used ones first, until they take no more than `keep` bytes; those that
    /// are being read stay. Returns the bytes that are gone.
    ///
    /// # Errors
    /// Database and file errors.
    pub fn shrink(&self, keep: u64) -> Result<u64> {
        crate::garbage::shrink_cache_to(self.shared, keep)
    }
}

/// The place of a blob.
pub(crate) fn path(shared: &Shared, digest: &Digest) -> PathBuf {
    shared.root.path().join(relative(digest))
}

/// The place of a blob below the data root.
pub(crate) fn relative(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn check_digest(expected: &Digest, actual: Digest) -> Result<()> {
    if *expected == actual {
        Ok(())
    } else {
        Err(Error::DigestMismatch { expected: expected.clone(), actual })
    }
}

/// Renames a complete file into its place and inserts its row.
pub(crate) fn adopt(
    shared: &Shared,
    from: &PathBuf,
    kind: BlobKind,
    digest: &Digest,
    size: u64,
    lease: &mut Lease,
) -> Result<()> {
    let to = path(shared, digest);
    let _structure = shared.structure();
    std::fs::rename(from, &to).map_err(|error| Error::file("renaming", from, error))?;
    shared.write(|transaction| {
        transaction
            .prepare_cached("INSERT INTO blobs (digest, kind, size, used) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET used = excluded.used")
            .and_then(|mut statement| {
                statement.execute(params![digest.to_string(), kind.as_str(), integer(size), now()])
            })
            .map_err(failed("recording a blob"))?;
        // A layer of the cache need not survive a power cut: its digest is checked when it is read.
        match kind {
            BlobKind::Document => unsynced::mark(transaction, shared, kind.as_str(), digest),
            BlobKind::Layer => Ok(()),
        }
    })?;
    lease.add(Object::Blob(digest.clone()));
    Ok(())
}

/// Receives a blob. Dropped before [`BlobWriter::commit`], it leaves what came for the next writer.
#[derive(Debug)]
pub struct BlobWriter {
    shared: Arc<Shared>,
    file: WrittenOnce,
    path: PathBuf,
    kind: BlobKind,
    expected: Expected,
    hasher: Hasher,
    offset: u64,
    /// Bytes until the next look at the free space.
    unchecked: u64,
    _claim: crate::leases::Claim,
}

impl BlobWriter {
    /// Bytes received so far, by earlier writers too.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Another handle on the file, to read what has come.
    ///
    /// # Errors
    /// File errors.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| Error::file("opening", &self.path, error))
    }

    /// Forgets what has come.
    ///
    /// # Errors
    /// File errors.
    pub fn restart(&mut self) -> Result<()> {
        let failed = |error: io::Error| Error::file("truncating", self.path.clone(), error);
        self.file.clear().map_err(failed)?;
        self.hasher = Hasher::new(self.expected.digest.algorithm());
        self.offset = 0;
        Ok(())
    }

    /// Appends bytes. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] beyond the announced size; [`Error::DiskFull`]; file errors.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if let Some(expected) = self.expected.size.filter(|size| end > *size) {
            return Err(Error::SizeMismatch { digest: self.expected.digest.clone(), expected, actual: end });
        }
        if self.unchecked >= SPACE_CHECK_BYTES {
            self.shared.root.check_space(self.shared.keep_free_bytes)?;
            self.unchecked = 0;
        }
        self.file.append(bytes).map_err(|error| Error::file("writing", &self.path, error))?;
        self.hasher.update(bytes);
        self.offset = end;
        self.unchecked += bytes.len() as u64;
        Ok(())
    }

    /// Writes what was gathered of small parts, so that the next writer goes on behind it whatever becomes of this process.
    ///
    /// # Errors
    /// File errors.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|error| Error::file("writing", &self.path, error))
    }

    /// Verifies size and digest and stores the blob, held by `lease`. What failed the check is thrown away.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] when bytes are missing (they are kept for the next writer), [`Error::DigestMismatch`],
    /// file and database errors.
    pub fn commit(mut self, lease: &mut Lease) -> Result<()> {
        let digest = self.expected.digest.clone();
        if let Some(expected) = self.expected.size.filter(|size| *size != self.offset) {
            return Err(Error::SizeMismatch { digest, expected, actual: self.offset });
        }
        let actual = self.hasher.finish();
        if let Err(error) = check_digest(&digest, actual) {
            let _ = std::fs::remove_file(&self.path);
            return Err(error);
        }
        self.file.flush().map_err(|error| Error::file("writing", &self.path, error))?;
        adopt(&self.shared, &self.path, self.kind, &digest, self.offset, lease)
    }
}
