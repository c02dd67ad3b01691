//! What can go wrong with an image.

use std::io;

use berth_oci::{Digest, Platform};

use crate::estimate::human;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such image.
    NotFound,
    /// The request is malformed.
    Invalid,
    /// The image is in use, or the request names too much.
    Conflict,
    /// The registry refuses.
    Denied,
    /// The registry, the archive or the disk fails.
    System,
}

/// Why an image could not be found, brought or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or ID.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A name against the grammar.
    #[error(transparent)]
    Reference(#[from] berth_oci::reference::ReferenceError),
    /// The image cannot be removed.
    #[error("conflict: unable to {action} ({how}) - {reason}")]
    Conflict {
        /// What cannot be done.
        action: String,
        /// Whether force would do it.
        how: &'static str,
        /// Why not.
        reason: String,
    },
    /// One platform of an image is to be removed without force.
    #[error("Content will be removed from all images referencing this variant. Use --force to force delete.")]
    NotForced,
    /// A prefix of several IDs.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// A name that would be read as a digest.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    AmbiguousName,
    /// The index has nothing for this platform.
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoPlatform {
        /// The platform asked for.
        platform: Platform,
    },
    /// The image is for another platform than the one asked for.
    #[error(
        "image with reference {reference} was found but does not provide the specified platform ({platform})"
    )]
    WrongPlatform {
        /// The image.
        reference: String,
        /// The platform asked for.
        platform: Box<Platform>,
    },
    /// The image that is to be saved is for another platform than the one asked for.
    #[error("no suitable export target found for platform {platform}")]
    NoExport {
        /// The platform asked for.
        platform: Platform,
    },
    /// The archive that is to be loaded has no image for a platform.
    #[error("requested platform(s) ([{platform}]) not found")]
    NotInArchive {
        /// The platform asked for.
        platform: Platform,
    },
    /// Some platforms of an image that is to be pushed are missing, and none of those that are kept stands out.
    #[error("multiple matching manifests found but no specific platform requested")]
    SeveralPlatforms,
    /// Nothing has a tag of the repository that is to be pushed.
    #[error("An image does not exist locally with the tag: {0}")]
    NoRepository(String),
    /// The tag that is to be pushed does not exist.
    #[error("tag does not exist: {0}")]
    NoTag(String),
    /// A manifest or index that cannot be used.
    #[error(transparent)]
    Document(#[from] berth_oci::manifest::DocumentError),
    /// What a registry gives as a manifest cannot be used.
    #[error("manifest of {reference} cannot be used: {source}")]
    Manifest {
        /// The image.
        reference: String,
        /// Why not.
        source: berth_oci::manifest::DocumentError,
    },
    /// A configuration that cannot be used.
    #[error(transparent)]
    Config(#[from] berth_oci::config::ConfigError),
    /// Manifest and configuration contradict each other.
    #[error("the manifest has {layers} layers, the image configuration {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Digests in the configuration.
        diff_ids: usize,
    },
    /// A layer unpacks to something else than the configuration says.
    #[error("layer {layer} unpacks to {actual}, the image configuration says {expected}")]
    WrongLayer {
        /// The layer as it came.
        layer: String,
        /// Digest of its uncompressed content.
        actual: Digest,
        /// What the configuration says.
        expected: Digest,
    },
    /// A document of an archive is not what its digest says.
    #[error("{what} has digest {actual}, expected {expected}")]
    WrongDigest {
        /// The document.
        what: String,
        /// Its digest.
        actual: Digest,
        /// What was announced.
        expected: Digest,
    },
    /// A document is larger than any of its kind.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The document.
        what: String,
        /// The most that is read.
        limit: u64,
    },
    /// The image cannot fit onto the disk.
    #[error(
        "no space left for {reference}: {} are to be downloaded, and at least {} must be free for that; {} are free, of \
         which {} must stay free",
        human(*download), human(*needed), human(*free), human(*keep)
    )]
    NoRoom {
        /// The image.
        reference: String,
        /// Bytes to be downloaded.
        download: u64,
        /// Bytes that the pull needs at the least.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        keep: u64,
    },
    /// The archive is no image archive.
    #[error("{0}")]
    Archive(String),
    /// The archive of images could not be read.
    #[error("failed to read the archive: {}", chain(source))]
    BrokenArchive {
        /// Why.
        source: berth_archive::Error,
    },
    /// A layer could not be unpacked.
    #[error("failed to unpack layer {layer}: {}", chain(source))]
    Unpack {
        /// The layer.
        layer: String,
        /// Why.
        source: berth_archive::Error,
    },
    /// The tar of a stored layer could not be made again.
    #[error("failed to pack layer {layer}: {}", chain(source))]
    Pack {
        /// The layer.
        layer: String,
        /// Why.
        source: berth_archive::Error,
    },
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] berth_registry::Error),
    /// The data root failed.
    #[error("{}", chain(.0))]
    Storage(#[from] berth_storage::Error),
    /// Reading the archive or a staged file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What the error means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_)
            | Self::NoRepository(_)
            | Self::NoTag(_)
            | Self::NoPlatform { .. }
            | Self::WrongPlatform { .. }
            | Self::NoExport { .. }
            | Self::NotInArchive { .. } => ErrorKind::NotFound,
            Self::Reference(_) | Self::Ambiguous(_) | Self::AmbiguousName | Self::NotForced => {
                ErrorKind::Invalid
            }
            Self::Conflict { .. } | Self::SeveralPlatforms => ErrorKind::Conflict,
            Self::Registry(error) if error.is_not_found() => ErrorKind::NotFound,
            Self::Registry(error) if error.is_denied() => ErrorKind::Denied,
            Self::Archive(_)
            | Self::BrokenArchive { .. }
            | Self::Document(_)
            | Self::Manifest { .. }
            | Self::Config(_) => ErrorKind::Invalid,
            _ => ErrorKind::System,
        }
    }

    /// Whether another attempt may succeed, going on where this one stopped.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_transient(),
            Self::Storage(berth_storage::Error::SizeMismatch { expected, actual, .. }) => actual < expected,
            // Another's work on a blob ends soon.
            Self::Storage(berth_storage::Error::Held { .. }) => true,
            _ => false,
        }
    }

    /// Whether what came is not what was announced.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Storage(berth_storage::Error::DigestMismatch { .. }))
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
