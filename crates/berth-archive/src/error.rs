//! What can go wrong with an archive.

use std::io;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an archive could not be read, extracted or rebuilt. Paths are shown lossily, as the archive names them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream ended inside an entry, or the decompressor found the compressed stream cut.
    #[error("archive is truncated: it ends within {within}")]
    Truncated {
        /// What was being read.
        within: String,
    },
    /// A header or record that breaks the format: a wrong checksum, a negative size, a malformed number.
    #[error("archive is malformed at byte {offset}: {problem}")]
    Malformed {
        /// Offset into the uncompressed stream.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// An entry whose name or link would leave the directory, or pass through a symbolic link.
    #[error("archive entry {path:?} is refused: {problem}")]
    Refused {
        /// The entry's name.
        path: String,
        /// Why it is refused.
        problem: String,
    },
    /// A file would take the place of a directory, or a directory that of a file. The words are Docker's.
    #[error("cannot overwrite {old} {name:?} with {new} {directory:?}")]
    Overwrite {
        /// What is there.
        old: &'static str,
        /// Its name in the archive.
        name: String,
        /// What was to be there.
        new: &'static str,
        /// The directory that the archive is unpacked to.
        directory: String,
    },
    /// A limit on counts or lengths was passed.
    #[error("archive exceeds a limit: {what} is over {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Writing on would leave less free space than the configured reserve.
    #[error(
        "no space left for the archive: the file system has {free} bytes free, of which {keep} must stay free"
    )]
    DiskFull {
        /// Free bytes at the time.
        free: u64,
        /// Bytes that a setting keeps free.
        keep: u64,
    },
    /// Reading the stream failed (this includes decompression errors).
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// A file system operation failed.
    #[error("{operation} {path:?}")]
    File {
        /// The operation, in the -ing form.
        operation: &'static str,
        /// The path beneath the directory.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Wraps a failed file system operation on `path`.
    pub(crate) fn file(operation: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::File { operation, path: lossy(path), source: source.into() }
    }

    /// An entry that is refused.
    pub(crate) fn refused(path: &[u8], problem: impl Into<String>) -> Self {
        Self::Refused { path: lossy(path), problem: problem.into() }
    }

    /// Whether the cause is a full disk: the reserve reached, `ENOSPC` or `EDQUOT`.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// A byte path for a message.
pub(crate) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
