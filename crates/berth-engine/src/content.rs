//! What a container's file system holds: what changed in it, and all of it as an archive.
//!
//! Both read the layers on the disk, so that it makes no difference whether the container runs, and neither sees what
//! is mounted inside it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use berth_api::container::Change;
use berth_archive::changes::{self, Kind};
use berth_archive::overlay::Overlay;

use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::create::Definition;
use crate::engine::Parts;
use crate::event::ContainerEvent;
use crate::pieces::{self, ArchiveStream, Pieces};
use crate::{Engine, Error};

/// What is always mounted or made by the engine, beside the runtime's own mounts.
const FURNITURE: [&str; 6] =
    ["/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"];

impl Engine {
    /// What differs from the image in a container's file system, sorted by path; none if nothing does. What the
    /// engine puts into every container, and what is mounted, does not count.
    pub async fn changes(&self, name: &str) -> Result<Option<Vec<Change>>, Error> {
        let container = self.parts.containers.find(name)?;
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let snapshot = parts.storage.snapshots().mounts(container.id())?;
            let (upper, lower) = (snapshot.written()?, snapshot.image()?);
            let hidden = mounted(&snapshot.merged()?, &container.definition);
            let found: Vec<Change> =
                changes::changes(&upper, &lower, &hidden)?.into_iter().map(change).collect();
            Ok(Some(found).filter(|found| !found.is_empty()))
        })
        .await
    }

    /// All of a container's file system as a tar, without what is mounted in it.
    pub async fn export(&self, name: &str) -> Result<ArchiveStream, Error> {
        let container = self.parts.containers.find(name)?;
        if matches!(container.state(), State::Removing) {
            return Err(Error::Conflict(format!(
                "You cannot export container {} which is being removed",
                container.id()
            )));
        }
        let parts = Arc::clone(&self.parts);
        let place = parts.paced.place().await?;
        blocking(move || {
            let snapshot = parts.storage.snapshots().mounts(container.id())?;
            let layers = snapshot.merged()?;
            let (out, stream) = pieces::channel();
            place.start(move || export(&parts, &container, &layers, out))?;
            Ok(stream)
        })
        .await
    }
}

fn export(parts: &Parts, container: &Container, layers: &Overlay, mut out: Pieces) {
    let packed = berth_archive::pack::pack(layers, &mut out).map_err(io::Error::other);
    // Its files may have gone while they were read.
    let whole = match parts.containers.find(container.id()) {
        Ok(_) if !matches!(container.state(), State::Removing) => packed,
        _ => Err(io::Error::other("the container was removed")),
    };
    match whole.and_then(|()| out.send()) {
        Ok(()) => parts.events.publish(container.event(ContainerEvent::Export)),
        Err(error) => {
            tracing::debug!(container = container.id(), %error, "the export ended early");
            out.carrier().fail(error);
        }
    }
}

fn change((path, kind): (Vec<u8>, Kind)) -> Change {
    let kind = match kind {
        Kind::Modified => 0,
        Kind::Added => 1,
        Kind::Deleted => 2,
    };
    Change { path: format!("/{}", String::from_utf8_lossy(&path)), kind }
}

/// Where something is mounted, links on the way followed inside the container's root; without leading slashes.
pub(crate) fn mounted(root: &Overlay, definition: &Definition) -> HashSet<Vec<u8>> {
    let defaults = berth_runtime::defaults::mounts(definition.host.privileged, 0);
    let defaults = defaults.iter().map(|mount| mount.destination().to_string_lossy().into_owned());
    let planned = definition.mounts.iter().map(|plan| plan.destination.clone());
    let paths = FURNITURE.into_iter().map(str::to_owned).chain(defaults).chain(planned);
    let mut hidden = HashSet::new();
    for path in paths {
        // A container may have put a loop of links where nothing can be mounted any more.
        if let Ok(path) = root.resolve(path.as_bytes())
            && !path.is_empty()
        {
            hidden.insert(path);
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_behind_links() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/run", temp.path().join("link")).unwrap();
        let mut definition = crate::create::tests::definition();
        definition.mounts = vec![crate::create::mounts::MountPlan {
            source: crate::create::mounts::MountSource::Tmpfs { options: Vec::new() },
            destination: "/link/deep".into(),
            read_only: false,
            read_only_top: false,
            mode: String::new(),
            propagation: String::new(),
            wish: Default::default(),
        }];
        let hidden = mounted(&Overlay::open([temp.path()]).unwrap(), &definition);
        for path in ["run/deep", "proc", "sys", "dev", "etc/hosts"] {
            assert!(hidden.contains(path.as_bytes()), "{path}");
        }
    }
}
