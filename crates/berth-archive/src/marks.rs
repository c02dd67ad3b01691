//! How the directory of a layer says that names of lower layers are gone.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// The attribute that marks an opaque directory (kernel, `Documentation/filesystems/overlayfs.rst`).
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// The file that marks one where there is no such attribute: no archive can bring a file of this name, for there it
/// says the same (OCI image specification, layer.md).
pub(crate) const OPAQUE_FILE: &std::ffi::CStr = c".wh..wh..opq";

/// The marks in a layer's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Those of overlayfs: a character device 0:0 stands for a removed name, an attribute makes a directory opaque.
    #[default]
    Overlay,
    /// Those that every file system can hold, overlayfs itself included: a socket, which no tar can bring, stands for a
    /// removed name, and a file of a name that no tar can bring makes a directory opaque.
    Plain,
    /// None: the directory is a whole tree, and nothing below it is seen. What has changed at or after `made` (a time of
    /// the file system, in seconds and nanoseconds) differs from what the tree was made from; what has not may differ.
    Whole {
        /// When the tree was complete, if that is known.
        made: Option<(i64, i64)>,
    },
}

impl Marks {
    /// Whether a file stands for a removed name.
    #[must_use]
    pub fn is_whiteout(self, stat: &Stat) -> bool {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match self {
            Self::Overlay => kind == FileType::CharacterDevice && stat.st_rdev == 0,
            Self::Plain => kind == FileType::Socket,
            Self::Whole { .. } => false,
        }
    }

    /// Whether a directory hides what is below it.
    ///
    /// # Errors
    /// File errors.
    pub fn is_opaque(self, directory: BorrowedFd<'_>) -> Result<bool> {
        match self {
            Self::Overlay => {
                let mut value = [0u8; 8];
                match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
                    Ok(length) => Ok(value.get(..length) == Some(b"y")),
                    Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
                    Err(error) => Err(Error::file("reading an attribute of", b"a directory", error)),
                }
            }
            Self::Plain => match rustix::fs::statat(directory, OPAQUE_FILE, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(Error::file("examining", OPAQUE_FILE.to_bytes(), error)),
            },
            Self::Whole { .. } => Ok(true),
        }
    }

    /// Whether a name is a mark and no file.
    pub(crate) fn is_mark(self, name: &std::ffi::CStr) -> bool {
        self == Self::Plain && name == OPAQUE_FILE
    }

    /// The kind of file that stands for a removed name; its device number is zero.
    pub(crate) fn whiteout(self) -> FileType {
        match self {
            Self::Overlay => FileType::CharacterDevice,
            Self::Plain | Self::Whole { .. } => FileType::Socket,
        }
    }

    /// Makes a directory opaque.
    pub(crate) fn mark_opaque(self, directory: impl AsFd) -> rustix::io::Result<()> {
        match self {
            Self::Overlay => rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()),
            Self::Plain | Self::Whole { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(directory, OPAQUE_FILE, flags, Mode::empty()).map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn each_kind_knows_its_own_marks_alone() {
        let temp = tempfile::tempdir().unwrap();
        let kinds = [Marks::Overlay, Marks::Plain];
        for (index, marks) in kinds.into_iter().enumerate() {
            let directory = temp.path().join(index.to_string());
            fs::create_dir(&directory).unwrap();
            rustix::fs::mknodat(CWD, directory.join("gone"), marks.whiteout(), Mode::empty(), 0).unwrap();
            let stat = rustix::fs::lstat(directory.join("gone")).unwrap();
            let open = fs::File::open(&directory).unwrap();
            assert!(!marks.is_opaque(open.as_fd()).unwrap());
            marks.mark_opaque(&open).unwrap();
            marks.mark_opaque(&open).unwrap();
            for other in kinds {
                assert_eq!(other.is_whiteout(&stat), other == marks, "{other:?}");
                assert_eq!(other.is_opaque(open.as_fd()).unwrap(), other == marks, "{other:?}");
            }
            let whole = Marks::Whole { made: None };
            assert!(!whole.is_whiteout(&stat) && whole.is_opaque(open.as_fd()).unwrap());
        }
    }
}
