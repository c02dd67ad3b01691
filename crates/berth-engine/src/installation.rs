//! Which installation this is: an ID in a file of the data root, which an administrator may choose.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::Error;

/// The file, with Docker's name.
const NAME: &str = "engine-id";
/// Longest ID, in bytes.
const LONGEST: usize = 256;

/// The ID that the data root's file holds; one is made and written if there is none.
pub fn id(data_root: &Path) -> Result<String, Error> {
    let path = data_root.join(NAME);
    let failed = |operation: &str| {
        let operation = format!("{operation} {}", path.display());
        move |source| Error::Io { operation, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) if text.len() <= LONGEST && !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => tracing::warn!(path = %path.display(), "no usable ID in it: it is written anew"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read")(error)),
    }
    let mut bytes = [0; 16];
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|error| Error::Io { operation: "read random bytes".into(), source: error.into() })?;
    let id = uuid(bytes);
    write(&path, &id).map_err(failed("write"))?;
    Ok(id)
}

/// Puts the whole file in place, or leaves what was there.
fn write(path: &Path, id: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// A random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_file_decides() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(NAME);
        let made = id(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), made);
        assert_eq!(id(root.path()).unwrap(), made);
        fs::write(&path, "this-is-the-engine-id\n").unwrap();
        assert_eq!(id(root.path()).unwrap(), "this-is-the-engine-id");
        for useless in [" ".to_owned(), "x".repeat(LONGEST + 1)] {
            fs::write(&path, useless).unwrap();
            assert_eq!(id(root.path()).unwrap().len(), 36);
        }
    }
}
