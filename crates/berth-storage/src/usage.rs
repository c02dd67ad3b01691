//! Disk usage, by kind.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::{Error, Result, Shared};

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Unpacked layers.
    pub layers: u64,
    /// Documents and compressed layers.
    pub blobs: u64,
    /// Directories that steps of builds find again.
    pub build_caches: u64,
    /// Writable layers, logs and files of containers.
    pub containers: u64,
}

pub(crate) fn disk_usage(shared: &Arc<Shared>) -> Result<DiskUsage> {
    let of = |path: &str| {
        let directory = shared.root.open_directory(path)?;
        berth_archive::tree::disk_usage(directory.as_fd())
            .map_err(|error| Error::file("measuring", path, error))
    };
    Ok(DiskUsage {
        layers: of("layers")?,
        blobs: of("blobs")?,
        build_caches: of(crate::build_caches::DIRECTORY)?,
        containers: of("containers")?,
    })
}
