//! What stands at a path of a container.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The header `X-Docker-Container-Path-Stat`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Kind and permissions, as Go's `os.FileMode` has them: see [`PathStat::mode_of`].
    pub mode: u32,
    /// When it was written last.
    pub mtime: Time,
    /// Where a symbolic link leads, inside the container, all links followed.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

impl PathStat {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    /// Kinds as `st_mode` has them (inode(7)), and as Go has them.
    const KINDS: [(u32, u32); 6] = [
        (0o040_000, Self::DIRECTORY),
        (0o120_000, Self::SYMLINK),
        (0o060_000, Self::DEVICE),
        (0o020_000, Self::DEVICE | 1 << 21),
        (0o010_000, 1 << 25),
        (0o140_000, 1 << 24),
    ];
    /// setuid, setgid and sticky.
    const BITS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

    /// Go's mode of a `st_mode`.
    #[must_use]
    pub fn mode_of(st_mode: u32) -> u32 {
        let kind =
            Self::KINDS.into_iter().find(|(kind, _)| st_mode & 0o170_000 == *kind).map_or(0, |(_, go)| go);
        let bits = Self::BITS.into_iter().filter(|(bit, _)| st_mode & bit != 0);
        bits.fold(kind | st_mode & 0o777, |mode, (_, go)| mode | go)
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.mode & Self::DIRECTORY != 0
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & Self::SYMLINK != 0
    }

    /// Whether it is a device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.mode & Self::DEVICE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        // What Go 1.24 prints for os.Lstat of such files.
        for (st_mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o104_755, 8_389_101),
            (0o041_777, 2_148_532_735),
            (0o020_666, 69_206_454),
            (0o010_600, 33_554_816),
        ] {
            assert_eq!(PathStat::mode_of(st_mode), go, "{st_mode:o}");
        }
    }

    #[test]
    fn the_header_is_dockers() {
        let stat = PathStat {
            name: "a".into(),
            size: 3,
            mode: 0o644,
            link_target: String::new(),
            ..PathStat::default()
        };
        let text = serde_json::to_string(&stat).unwrap();
        assert_eq!(
            text,
            r#"{"name":"a","size":3,"mode":420,"mtime":"0001-01-01T00:00:00Z","linkTarget":""}"#
        );
    }
}
