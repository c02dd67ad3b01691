//! Masked and read-only paths.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath;
use berth_sys::mount::{self, Attributes, attr};
use rustix::fs::FileType;

use super::devices;
use crate::launch::error::{Context, Stage, StartError};

/// Hides `paths` behind an empty read-only directory or the null device. Missing ones are passed over.
pub(super) fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), StartError> {
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for path in paths {
        let what = || format!("mask path {path:?}");
        let Some(target) = open(root, path).context(Stage::Mount, what)? else { continue };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).context(Stage::Mount, what)?.st_mode);
        let source = if kind == FileType::Directory {
            match &empty {
                Some(source) => source,
                None => {
                    let new =
                        mount::new_filesystem("tmpfs", &[], attr::RDONLY).context(Stage::Mount, what)?;
                    // Before Linux 6.15 only a mount that has a place can be copied: this one is the first place.
                    mount::attach(&new, target).context(Stage::Mount, what)?;
                    empty = Some(new);
                    continue;
                }
            }
        } else {
            match &null {
                Some(source) => source,
                None => null.insert(devices::null(root).context(Stage::Mount, what)?),
            }
        };
        let tree = mount::clone_tree(source, false).context(Stage::Mount, what)?;
        mount::attach(tree, target).context(Stage::Mount, what)?;
    }
    Ok(())
}

/// Makes `paths`, with what is mounted below them, read-only. Missing ones are passed over.
pub(super) fn make_read_only(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), StartError> {
    let change = Attributes { set: attr::RDONLY, recursive: true, ..Attributes::default() };
    for path in paths {
        let what = || format!("make path {path:?} read-only");
        let Some(target) = open(root, path).context(Stage::Mount, what)? else { continue };
        let tree = mount::clone_tree(&target, true).context(Stage::Mount, what)?;
        mount::set_attributes(&tree, change, None).context(Stage::Mount, what)?;
        mount::attach(tree, target).context(Stage::Mount, what)?;
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &str) -> std::io::Result<Option<OwnedFd>> {
    match beneath::open_path(root, Path::new(path)) {
        Ok(target) => Ok(Some(target)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}
