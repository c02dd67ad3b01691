//! Digest, reference, descriptor, manifest, image configuration; no I/O.
//!
//! Names and documents of the OCI image and distribution specifications and of Docker's image format, as values.
//! Documents that have a digest are only read here, never written again: whoever keeps one keeps its bytes.
#![forbid(unsafe_code)]

pub mod config;
pub mod digest;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use config::ImageConfig;
pub use digest::{Digest, chain_ids};
pub use manifest::{Descriptor, Document, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;

/// Largest manifest or index in bytes that is read (what registries accept).
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest image configuration in bytes that is read.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// Most layers of one image: overlayfs mounts up to 500.
pub const LAYER_LIMIT: usize = 500;
