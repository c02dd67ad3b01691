//! What is told of a file before its content, and what of that is believed.

use crate::Error;
use crate::protocol::fsutil::types::Stat;

/// The longest path, in bytes, as the kernel takes it.
const LONGEST_PATH: usize = 4095;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 255;
/// The attribute with a file's capabilities; others do not leave their host.
pub const CAPABILITY: &str = "security.capability";
/// The longest value of it that is taken.
const LONGEST_CAPABILITY: usize = 1 << 10;

/// Bits of a mode as Go has them, which the protocol took over.
mod bits {
    pub const DIRECTORY: u32 = 1 << 31;
    pub const LINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const PIPE: u32 = 1 << 25;
    pub const SOCKET: u32 = 1 << 24;
    pub const SET_USER: u32 = 1 << 23;
    pub const SET_GROUP: u32 = 1 << 22;
    pub const CHARACTERS: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    pub const IRREGULAR: u32 = 1 << 19;
    pub const KIND: u32 = DIRECTORY | LINK | DEVICE | PIPE | SOCKET | CHARACTERS | IRREGULAR;
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular one; with a link it is another name of that file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A device of characters.
    CharacterDevice,
    /// A device of blocks.
    BlockDevice,
}

/// A file, but for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path from the root of its tree: never empty or absolute, and without `.` and `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with the set-user, set-group and sticky bits as the kernel has them.
    pub permissions: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Bytes of its content.
    pub size: u64,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified: i64,
    /// What a symbolic link points to; the first name of a file that has several. Empty for others.
    pub link: Vec<u8>,
    /// Numbers of a device.
    pub device: (u32, u32),
    /// Its capabilities; empty for none.
    pub capability: Vec<u8>,
}

impl Entry {
    /// Whether its content can be asked for.
    pub fn has_content(&self) -> bool {
        self.kind == Kind::File && self.link.is_empty()
    }

    /// In the form of the wire.
    pub fn to_stat(&self) -> Stat {
        let kind = match self.kind {
            Kind::File => 0,
            Kind::Directory => bits::DIRECTORY,
            Kind::Link => bits::LINK,
            Kind::Pipe => bits::PIPE,
            Kind::CharacterDevice => bits::DEVICE | bits::CHARACTERS,
            Kind::BlockDevice => bits::DEVICE,
        };
        let special = [(0o4000, bits::SET_USER), (0o2000, bits::SET_GROUP), (0o1000, bits::STICKY)];
        let special = special.iter().filter(|(own, _)| self.permissions & own != 0);
        let mut stat = Stat {
            path: self.path.clone(),
            mode: special.fold(kind | self.permissions & 0o777, |mode, (_, go)| mode | go),
            uid: self.uid,
            gid: self.gid,
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            mod_time: self.modified,
            linkname: self.link.clone(),
            devmajor: self.device.0.into(),
            devminor: self.device.1.into(),
            ..Stat::default()
        };
        if !self.capability.is_empty() {
            stat.xattrs.insert(CAPABILITY.to_owned(), self.capability.clone());
        }
        stat
    }

    /// Believes what was told of a file.
    ///
    /// # Errors
    /// [`Error::Refused`] if no tree can have such a file.
    pub fn from_stat(mut stat: Stat) -> Result<Entry, Error> {
        check_path(&stat.path)?;
        let wrong = |what: &str| Error::refused(format!("{what} {:?}", String::from_utf8_lossy(&stat.path)));
        let kind = match stat.mode & bits::KIND {
            0 => Kind::File,
            bits::DIRECTORY => Kind::Directory,
            bits::LINK => Kind::Link,
            bits::PIPE => Kind::Pipe,
            bits::DEVICE => Kind::BlockDevice,
            both if both == bits::DEVICE | bits::CHARACTERS => Kind::CharacterDevice,
            _ => return Err(wrong("unknown kind of file of")),
        };
        let size = u64::try_from(stat.size).map_err(|_| wrong("negative size of"))?;
        match kind {
            Kind::Link if stat.linkname.is_empty() || stat.linkname.len() > LONGEST_PATH => {
                return Err(wrong("impossible target of the link"));
            }
            Kind::Link if stat.linkname.contains(&0) => return Err(wrong("impossible target of the link")),
            Kind::File if !stat.linkname.is_empty() => check_path(&stat.linkname)?,
            _ => {}
        }
        let number = |number: i64| u32::try_from(number).map_err(|_| wrong("impossible device"));
        let device = match kind {
            Kind::CharacterDevice | Kind::BlockDevice => (number(stat.devmajor)?, number(stat.devminor)?),
            _ => (0, 0),
        };
        let capability = stat.xattrs.remove(CAPABILITY).unwrap_or_default();
        if capability.len() > LONGEST_CAPABILITY {
            return Err(wrong("impossible capabilities of"));
        }
        let special = [(0o4000, bits::SET_USER), (0o2000, bits::SET_GROUP), (0o1000, bits::STICKY)];
        let special = special.iter().filter(|(_, go)| stat.mode & go != 0);
        Ok(Entry {
            kind,
            permissions: special.fold(stat.mode & 0o777, |mode, (own, _)| mode | own),
            uid: stat.uid,
            gid: stat.gid,
            size: if kind == Kind::File { size } else { 0 },
            modified: stat.mod_time,
            link: if matches!(kind, Kind::File | Kind::Link) { stat.linkname } else { Vec::new() },
            device,
            capability,
            path: stat.path,
        })
    }
}

/// Whether a path stays in its tree, whoever walks it.
fn check_path(path: &[u8]) -> Result<(), Error> {
    let name = || String::from_utf8_lossy(&path[..path.len().min(LONGEST_NAME)]).into_owned();
    if path.len() > LONGEST_PATH {
        return Err(Error::refused(format!("too long a path: {:?}...", name())));
    }
    if path.starts_with(b"/") {
        return Err(Error::refused(format!("absolute path {:?}", name())));
    }
    let is_name =
        |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && part.len() <= LONGEST_NAME;
    match path.contains(&0) || !path.split(|byte| *byte == b'/').all(is_name) {
        true => Err(Error::refused(format!("impossible path {:?}", name()))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(path: &[u8]) -> Stat {
        Stat { path: path.to_vec(), mode: 0o644, ..Stat::default() }
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for path in [&b""[..], b"/a", b"..", b"../a", b"a/../b", b"a//b", b"a/", b"./a", b"a/.", b"a\0b"] {
            assert!(Entry::from_stat(plain(path)).is_err(), "{path:?}");
            let stat = Stat { linkname: path.to_vec(), ..plain(b"x") };
            assert_eq!(Entry::from_stat(stat).is_ok(), path.is_empty(), "{path:?}");
        }
        assert!(Entry::from_stat(plain(&[b'a'; 256])).is_err());
        assert!(Entry::from_stat(plain(&b"a/".repeat(2048)[..4095])).is_ok());
        assert!(Entry::from_stat(plain(&[&b"a/".repeat(2048)[..], b"b"].concat())).is_err());
        assert!(Entry::from_stat(plain(b"...")).is_ok());
        assert!(Entry::from_stat(plain(b"\xff not utf-8")).is_ok());
    }

    #[test]
    fn kinds_are_go_modes() {
        for (mode, kind) in [
            (0o644, Some(Kind::File)),
            (1 << 31 | 0o755, Some(Kind::Directory)),
            (1 << 25 | 0o600, Some(Kind::Pipe)),
            (1 << 26, Some(Kind::BlockDevice)),
            (1 << 26 | 1 << 21, Some(Kind::CharacterDevice)),
            (1 << 24, None),
            (1 << 19, None),
            (1 << 31 | 1 << 27, None),
            (1 << 27, None),
        ] {
            let stat = Stat { mode, ..plain(b"x") };
            assert_eq!(Entry::from_stat(stat).ok().map(|entry| entry.kind), kind, "{mode:o}");
        }
        let stat = Stat { mode: 1 << 23 | 1 << 20 | 0o711, ..plain(b"x") };
        assert_eq!(Entry::from_stat(stat).unwrap().permissions, 0o5711);
        assert!(Entry::from_stat(Stat { size: -1, ..plain(b"x") }).is_err());
    }

    pub(crate) fn any_kind() -> impl Strategy<Value = Kind> {
        let kinds =
            [Kind::File, Kind::Directory, Kind::Link, Kind::Pipe, Kind::CharacterDevice, Kind::BlockDevice];
        proptest::sample::select(kinds.to_vec())
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(
            path in proptest::collection::vec("[^/\0]{1,20}", 1..5),
            kind in any_kind(),
            permissions in 0u32..0o10000,
            owner in any::<(u32, u32)>(),
            size in 0..i64::MAX as u64,
            modified in any::<i64>(),
            device in any::<(u32, u32)>(),
            capability in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let path = path.join("/").into_bytes();
            prop_assume!(check_path(&path).is_ok());
            let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
            let entry = Entry {
                path,
                kind,
                permissions,
                uid: owner.0,
                gid: owner.1,
                size: if kind == Kind::File { size } else { 0 },
                modified,
                link: if kind == Kind::Link { b"../anything".to_vec() } else { Vec::new() },
                device: if is_device { device } else { (0, 0) },
                capability,
            };
            prop_assert_eq!(Entry::from_stat(entry.to_stat()).unwrap(), entry);
        }

        #[test]
        fn what_is_believed_is_told_alike(
            path in proptest::collection::vec(any::<u8>(), 0..30),
            mode in any::<u32>(),
            link in proptest::collection::vec(any::<u8>(), 0..30),
            numbers in any::<(i64, i64, i64)>(),
        ) {
            let (size, devmajor, devminor) = numbers;
            let stat = Stat { path, mode, linkname: link, size, devmajor, devminor, ..Stat::default() };
            if let Ok(entry) = Entry::from_stat(stat) {
                prop_assert_eq!(Entry::from_stat(entry.to_stat()).unwrap(), entry);
            }
        }
    }
}
