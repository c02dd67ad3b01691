//! Which way writable layers are kept: asked for, found in the data root, or found to work there.
//!
//! The data of each way is kept apart, as with Docker: that of overlayfs in the data root itself, that of whole copies in
//! a folder of it. Their layers have different marks, so neither could read the other's.

mod probe;

use std::path::{Path, PathBuf};

use crate::root::EMPTY_LAYER;
use crate::{Error, Result};

/// A way of keeping containers' writable layers, by the names that Docker's clients know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// An overlay: a container has what it changed. Docker's `overlay2`.
    #[default]
    Overlay,
    /// A copy of all files for each container, which shares contents where the file system can. Docker's `vfs`.
    Copy,
}

/// Names of Docker's drivers that it has no more.
const REMOVED: [&str; 3] = ["aufs", "devicemapper", "overlay"];

impl Driver {
    /// Docker's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay2",
            Self::Copy => "vfs",
        }
    }

    /// Finds a driver by Docker's name.
    ///
    /// # Errors
    /// [`Error::Driver`] for any other name, in Docker's words.
    pub fn named(name: &str) -> Result<Self> {
        let problem = match name {
            "overlay2" => return Ok(Self::Overlay),
            "vfs" => return Ok(Self::Copy),
            _ if REMOVED.contains(&name) => format!(
                "[graphdriver] ERROR: the {name} storage-driver has been deprecated and removed; visit \
                 https://docs.docker.com/go/storage-driver/ for more information"
            ),
            _ => "driver not supported".to_owned(),
        };
        Err(Error::Driver { name: name.to_owned(), problem })
    }

    /// Where its data is.
    pub(crate) fn directory(self, root: &Path) -> PathBuf {
        match self {
            Self::Overlay => root.to_owned(),
            Self::Copy => root.join(self.name()),
        }
    }
}

/// The driver of a data root, and why it is not the best one.
#[derive(Debug)]
pub(crate) struct Choice {
    pub driver: Driver,
    /// Why overlayfs cannot work, if that was found.
    pub problem: Option<String>,
}

/// Takes the driver that is asked for; otherwise overlayfs where it works. Where containers' files belong to others than in
/// the image (`owned`), they are whole copies. A data root that has layers for overlayfs is never silently opened as another
/// one: its images would seem to be gone.
pub(crate) fn choose(root: &Path, wanted: Option<Driver>, owned: bool) -> Result<Choice> {
    if owned && wanted != Some(Driver::Copy) {
        let problem = "without idmapped mounts, users of containers need a copy of all files".to_owned();
        if wanted.is_some() || has_layers(root) {
            return Err(Error::Driver { name: Driver::Overlay.name().to_owned(), problem });
        }
        return Ok(Choice { driver: Driver::Copy, problem: Some(problem) });
    }
    if wanted == Some(Driver::Copy) {
        return Ok(Choice { driver: Driver::Copy, problem: None });
    }
    match probe::overlay(root) {
        Ok(()) => Ok(Choice { driver: Driver::Overlay, problem: None }),
        Err(problem) if wanted == Some(Driver::Overlay) || has_layers(root) => {
            let problem = format!("prerequisites for driver not satisfied (wrong filesystem?): {problem}");
            Err(Error::Driver { name: Driver::Overlay.name().to_owned(), problem })
        }
        Err(problem) => Ok(Choice { driver: Driver::Copy, problem: Some(problem) }),
    }
}

fn has_layers(root: &Path) -> bool {
    let holds = |name: &str| {
        let names = std::fs::read_dir(root.join(name)).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| name != EMPTY_LAYER)
    };
    holds("layers") || holds("containers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_dockers_names_and_texts() {
        for driver in [Driver::Overlay, Driver::Copy] {
            assert_eq!(Driver::named(driver.name()).unwrap(), driver);
        }
        let text = |name| Driver::named(name).unwrap_err().to_string();
        assert_eq!(text("nosuch"), "error initializing graphdriver: driver not supported: nosuch");
        assert!(text("aufs").contains("the aufs storage-driver has been deprecated and removed"));
    }

    #[test]
    fn what_is_there_for_overlayfs_is_not_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("layers/empty")).unwrap();
        assert!(!has_layers(temp.path()));
        std::fs::create_dir_all(temp.path().join("layers/0123")).unwrap();
        assert!(has_layers(temp.path()));
    }
}
