//! Mount points that a step's mounts needed, and that are none of its files.

use std::collections::HashSet;
use std::ffi::CString;

use berth_archive::overlay::{Opened, Overlay};

use crate::Error;

/// Adds the directories to `hidden` that were made for nothing but what is hidden in them already.
pub(super) fn hide_parents(
    upper: &Overlay,
    lower: &Overlay,
    hidden: &mut HashSet<Vec<u8>>,
) -> Result<(), Error> {
    let mut left: Vec<Vec<u8>> = hidden.iter().cloned().collect();
    while let Some(path) = left.pop() {
        let Some(at) = path.iter().rposition(|byte| *byte == b'/') else { continue };
        let parent = &path[..at];
        if hidden.contains(parent) || directory(lower, parent)?.is_some() {
            continue;
        }
        let Some(opened) = directory(upper, parent)? else { continue };
        let entries = opened.entries()?;
        let inside = |name: &[u8]| [parent, b"/", name].concat();
        if entries.iter().all(|(name, _)| hidden.contains(&inside(name.to_bytes()))) {
            hidden.insert(parent.to_vec());
            left.push(parent.to_vec());
        }
    }
    Ok(())
}

/// A directory of a view, if it is there.
fn directory(view: &Overlay, path: &[u8]) -> Result<Option<Opened>, Error> {
    let mut place = view.root();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let Ok(name) = CString::new(part) else { return Ok(None) };
        let opened = view.enter(&place)?;
        let Some(found) = opened.find(&name)? else { return Ok(None) };
        let Some(below) = opened.below(&place, &name, &found)? else { return Ok(None) };
        place = below;
    }
    Ok(Some(view.enter(&place)?))
}

/// Whether something other than a directory is at a path, links followed inside the view.
pub(super) fn is_file(view: &Overlay, path: &[u8]) -> Result<bool, Error> {
    let path = view.resolve(path)?;
    let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], &path[..]),
    };
    let (Some(opened), Ok(name)) = (directory(view, above)?, CString::new(name)) else { return Ok(false) };
    let found = if name.is_empty() { None } else { opened.find(&name)? };
    Ok(found.is_some_and(|found| found.kind() != rustix::fs::FileType::Directory))
}
