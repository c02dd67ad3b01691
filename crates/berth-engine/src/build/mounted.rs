//! An image's files, mounted where nobody else sees them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_archive::pack::layer;
use berth_image::NewLayer;
use berth_oci::{ImageConfig, chain_ids};
use berth_runtime::launch::Rootfs;
use berth_runtime::view::{self, View, assemble};
use berth_storage::SnapshotLease;
use rustix::fs::{Mode, OFlags};

use super::cancel::Cancelling;
use super::executor::Worker;
use crate::engine::Parts;
use crate::{Error, name};

/// The files of an image with a writable layer on top, which is thrown away with this.
pub(super) struct Mounted {
    parts: Arc<Parts>,
    id: String,
    view: Option<View>,
    _lease: SnapshotLease,
}

impl Mounted {
    /// Mounts an image, or nothing at all. Blocks.
    pub fn new(parts: &Arc<Parts>, image: Option<&ImageConfig>) -> Result<Mounted, Error> {
        let random = |source| Error::Io { operation: "read random bytes".into(), source };
        let id = format!("build-{}", name::new_id().map_err(random)?);
        let chain = image.and_then(|config| chain_ids(&config.rootfs.diff_ids).pop());
        let snapshots = parts.storage.snapshots();
        snapshots.create(&id, chain.as_ref())?;
        let mut mounted =
            Mounted { parts: Arc::clone(parts), _lease: snapshots.acquire(&id)?, id, view: None };
        let snapshot = snapshots.mounts(&mounted.id)?;
        let rootfs = match snapshot.work {
            None => Rootfs::Path(snapshot.upper),
            Some(work) => {
                Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work, volatile: true }
            }
        };
        let mounts = view::Parts {
            rootfs: &rootfs,
            binds: Vec::new(),
            working_directory: None,
            files: &[],
            read_only: false,
            owner: None,
        };
        let view = assemble(&mounts).map_err(|error| Error::Io {
            operation: "mount the image's files".into(),
            source: std::io::Error::other(error.message),
        })?;
        mounted.view = Some(view);
        Ok(mounted)
    }

    /// The root.
    pub fn root(&self) -> Result<BorrowedFd<'_>, Error> {
        let view = self.view.as_ref().map(|view| view.root.as_fd());
        view.ok_or_else(|| Error::Unavailable("the image's files are no longer mounted".into()))
    }

    /// Ends the mount, and gives the writable layer's directory: what is added there now is in the layer too. Blocks.
    pub fn upper(&mut self) -> Result<OwnedFd, Error> {
        self.view = None;
        let path = self.parts.storage.snapshots().mounts(&self.id)?.upper;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::Io {
            operation: "open what a step has written".into(),
            source: error.into(),
        })
    }

    /// What was written for a build, as a layer; none if nothing was. Blocks, as long as somebody wants the build.
    pub fn layer(mut self, worker: &Worker) -> Result<Option<NewLayer>, Error> {
        // What the kernel has not yet written to the layer comes with the end of the mount.
        let origin = self.upper()?;
        let snapshot = self.parts.storage.snapshots().mounts(&self.id)?;
        let (upper, lower) = (snapshot.written()?, snapshot.image()?);
        let options = layer::Options { latest: worker.request.epoch(), ..layer::Options::default() };
        let write = |out: &mut dyn std::io::Write| {
            layer::pack(&upper, &lower, &options, Cancelling::new(out, &worker.cancelled))
        };
        let layer = self.parts.images.layer_of_tree("build", origin, write)?;
        Ok(Some(layer).filter(|layer| !layer.is_empty()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.view = None;
        if let Err(error) = self.parts.storage.snapshots().remove(&self.id) {
            tracing::warn!(%error, "a snapshot of a build stays until the next start");
        }
    }
}
