//! A writable layer over the image's layers: what a container changed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_archive::marks::Marks;
use berth_sys::ids::Mappings;
use rustix::fs::{Mode, OFlags};

use super::{Snapshot, Way};
use crate::{Driver, Error, Result};

/// Overlayfs, mounted by whoever starts the container.
#[derive(Debug)]
pub(crate) struct Overlay;

impl Way for Overlay {
    fn marks(&self) -> Marks {
        Marks::Overlay
    }

    fn directories(&self) -> &'static [(&'static str, u32)] {
        // Both: files are moved from the one to the other, which the kernel refuses between projects.
        &[("upper", 0o755), ("work", 0o700)]
    }

    /// The root directory of a container is its upper: it has the mode and owner of the image's.
    fn fill(
        &self,
        directory: &Path,
        lower: &[PathBuf],
        _keep_free: u64,
        owners: Option<&Mappings>,
    ) -> Result<()> {
        if owners.is_some() {
            // The layers below have but one owner for each file.
            let problem = "files cannot belong to others than in the image".to_owned();
            return Err(Error::Driver { name: Driver::Overlay.name().to_owned(), problem });
        }
        let upper = directory.join("upper");
        let failed = |error| Error::file("preparing", &upper, error);
        let Some(top) = lower.first() else { return Ok(()) };
        let metadata = std::fs::metadata(top).map_err(failed)?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        if (uid, gid) != (0, 0) {
            std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).map_err(failed)?;
        }
        let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
        std::fs::set_permissions(&upper, mode).map_err(failed)
    }

    fn snapshot(&self, directory: &Path, lower: Vec<PathBuf>) -> Result<Snapshot> {
        Ok(Snapshot {
            lower,
            upper: directory.join("upper"),
            work: Some(directory.join("work")),
            owners: None,
            marks: (Marks::Overlay, Marks::Overlay),
        })
    }

    fn written(&self, snapshot: &Snapshot) -> Result<u64> {
        let failed = |error| Error::file("measuring", &snapshot.upper, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let upper =
            rustix::fs::open(&snapshot.upper, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        berth_archive::tree::content_size(std::os::fd::AsFd::as_fd(&upper)).map_err(failed)
    }
}
