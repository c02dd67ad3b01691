//! Whose files those of a directory are on the disk, where these are not those whom they belong to inside of containers.

use std::io;
use std::path::Path;

use berth_sys::ids::Mappings;

use crate::{Error, Result};

/// A file beside what it is about.
const NAME: &str = "owners";

/// Notes that what lies in `directory` belongs to those who are outside of this user namespace.
pub(crate) fn write(directory: &Path, owners: &Mappings) -> Result<()> {
    let path = directory.join(NAME);
    std::fs::write(&path, owners.to_text()).map_err(|error| Error::file("writing", path, error))
}

/// Whether anything was noted.
pub(crate) fn are_noted(directory: &Path) -> bool {
    directory.join(NAME).exists()
}

/// What was noted; none if nothing was.
pub(crate) fn read(directory: &Path) -> Result<Option<Mappings>> {
    let path = directory.join(NAME);
    let read = std::fs::read_to_string(&path).and_then(|text| Mappings::from_text(&text));
    match read {
        Ok(owners) => Ok(Some(owners)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("reading", path, error)),
    }
}
