//! Marks of removed names among each other: which of them say nothing that another one does not say.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::place::Tree;
use crate::overlay::directory_entries;
use crate::{Error, Result};

/// Where a layer has its marks.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Directories in which names are marked as removed.
    pub holds: BTreeSet<Vec<u8>>,
    /// Opaque directories.
    pub opaque: BTreeSet<Vec<u8>>,
}

impl Tree {
    /// Whether a directory is there for its marks alone: then it is nothing that this layer has, and a mark for itself removes
    /// it, as Docker and umoci do.
    pub(super) fn holds_marks_alone(&self, path: &[u8]) -> Result<bool> {
        let mut pending = vec![path.to_vec()];
        while let Some(path) = pending.pop() {
            let below = [&path[..], b"/"].concat();
            let mut links = self.links.range(below.clone()..);
            if !self.implied.contains_key(&path)
                || links.next().is_some_and(|(link, _)| link.starts_with(&below))
            {
                return Ok(false);
            }
            let directory = self.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for (name, stat) in directory_entries(&directory)? {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    pending.push([&below, name.to_bytes()].concat());
                } else if !self.marks.is_whiteout(&stat) && !self.marks.is_mark(&name) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes marks of removed names out of what hides all that is below it. There they say nothing, and overlayfs, which
    /// has nothing to merge in such a directory, would list them as names that lead nowhere.
    pub(super) fn drop_needless_whiteouts(&self) -> Result<()> {
        for path in self.hidden.holds.iter().filter(|path| self.is_opaque(path)) {
            let directory = match self.open_beneath_raw(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                // Something else came to stand there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(Error::file("opening", path, error)),
            };
            for (name, stat) in directory_entries(&directory)? {
                if self.marks.is_whiteout(&stat) {
                    rustix::fs::unlinkat(directory.as_fd(), &name, AtFlags::empty())
                        .map_err(|error| Error::file("replacing", path, error))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a directory of this layer, or one above it, is opaque.
    fn is_opaque(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let opaque = &self.hidden.opaque;
        !opaque.is_empty() && ends.chain([0, path.len()]).any(|end| opaque.contains(&path[..end]))
    }
}
