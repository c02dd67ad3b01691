//! The extended attributes of a file that go into a layer.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::Attributes;
use crate::tree::proc_path;
use crate::{Error, Result};

/// The most bytes of a list of names, or of a value (kernel, `include/uapi/linux/limits.h`).
const MOST: usize = 1 << 16;

/// All attributes of `name` in `directory` that mean something elsewhere: not overlayfs's own marks, and not what the
/// security modules of this host say of it. What vanishes meanwhile has none.
pub(crate) fn all(directory: BorrowedFd<'_>, name: &CStr) -> Result<Attributes> {
    let mut path = proc_path(directory).into_bytes();
    path.push(b'/');
    path.extend_from_slice(name.to_bytes());
    of(&path)
}

/// Names and values of all attributes of a file that mean something elsewhere, sorted; those of a link itself. `path` is
/// one of this process. What is not there has none.
///
/// # Errors
/// File errors.
pub fn of(path: &[u8]) -> Result<Attributes> {
    let failed = |error| Error::file("reading the attributes of", path, error);
    let names = match grown(|buffer| rustix::fs::llistxattr(path, spare_capacity(buffer))) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOENT) => return Ok(Attributes::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Attributes::new();
    for attribute in names.split(|byte| *byte == 0).filter(|name| leaves_the_host(name)) {
        // The kernel's names have no NUL within them.
        let Ok(key) = CString::new(attribute) else { continue };
        match grown(|buffer| rustix::fs::lgetxattr(path, &*key, spare_capacity(buffer))) {
            Ok(value) => found.push((attribute.to_vec(), value)),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    found.sort();
    Ok(found)
}

/// The names of all attributes of an open file but those that the security modules of this host have given it.
pub(crate) fn names(file: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let list = match grown(|buffer| rustix::fs::flistxattr(file, spare_capacity(buffer))) {
        Err(Errno::NOTSUP) => Vec::new(),
        list => list.map_err(|error| Error::file("reading the attributes of", path, error))?,
    };
    let told = |name: &&[u8]| leaves_the_host(name) || !name.is_empty() && !name.starts_with(b"security.");
    Ok(list.split(|byte| *byte == 0).filter(told).map(<[u8]>::to_vec).collect())
}

/// Reads with a small buffer, and with a large one if that is not enough.
fn grown(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(1024);
    match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.reserve_exact(MOST);
            read(&mut buffer)?;
        }
        other => drop(other?),
    }
    Ok(buffer)
}

fn leaves_the_host(name: &[u8]) -> bool {
    match name {
        b"" => false,
        b"security.capability" => true,
        _ => ![&b"security."[..], b"trusted.overlay.", b"user.overlay."]
            .iter()
            .any(|prefix| name.starts_with(prefix)),
    }
}
