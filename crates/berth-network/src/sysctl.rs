//! Writes below `/proc/sys`.

use std::fs;
use std::io;

use crate::Error;

/// Sets `name` (a path below `/proc/sys`) unless it has the value already: a read-only `/proc/sys` with the
/// right value is no error.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/{name}");
    let write = || -> io::Result<()> {
        if fs::read_to_string(&path)?.trim() != value {
            fs::write(&path, value)?;
        }
        Ok(())
    };
    write().map_err(|source| Error::Sysctl { name: name.into(), value: value.into(), source })
}

/// The value of `name`, without white space around it.
pub(crate) fn get(name: &str) -> Result<String, Error> {
    let read = fs::read_to_string(format!("/proc/sys/{name}"));
    read.map(|text| text.trim().to_owned()).map_err(|source| Error::SysctlRead { name: name.into(), source })
}
