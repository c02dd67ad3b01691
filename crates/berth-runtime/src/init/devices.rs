//! Device nodes and the links in `/dev`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use crate::defaults::DEVICES;
use crate::launch::error::{Context, Stage, StartError};

/// Whether `/dev` is the container's own, to be filled: a bind mount there is left as it is.
pub(super) fn is_own(mounts: &[Mount]) -> bool {
    !mounts.iter().any(|mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind =
            mount.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind");
        is_bind && mount.destination().as_path() == Path::new("/dev")
    })
}

/// Makes the standard nodes, those of the configuration, and the links.
pub(super) fn make(root: BorrowedFd<'_>, extra: &[LinuxDevice], pts: bool) -> Result<(), StartError> {
    let dev = beneath::make_directories(root, Path::new("/dev"), Mode::from_raw_mode(0o755));
    let dev = dev.context(Stage::Device, || "open /dev")?;
    for (path, major, minor) in DEVICES {
        let name = Path::new(path.trim_start_matches("/dev/"));
        let node = Node { kind: FileType::CharacterDevice, major, minor, mode: 0o666, owner: None };
        node.make(dev.as_fd(), name)
            .context(Stage::Device, || format!("error creating device node {path}"))?;
    }
    for device in extra {
        let path = device.path();
        make_extra(root, device)
            .context(Stage::Device, || format!("error creating device node {}", path.display()))?;
    }
    links(&dev, pts).context(Stage::Device, || "make the links in /dev")
}

fn make_extra(root: BorrowedFd<'_>, device: &LinuxDevice) -> io::Result<()> {
    let path = device.path();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = beneath::make_directories(root, parent, Mode::from_raw_mode(0o755))?;
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let node = Node {
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        owner: Some((device.uid().unwrap_or(0), device.gid().unwrap_or(0))),
    };
    node.make(parent.as_fd(), Path::new(name))
}

struct Node {
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl Node {
    /// Makes the node; what is there already must be the same (R3).
    fn make(&self, directory: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
        let device = makedev(self.major, self.minor);
        match rustix::fs::mknodat(directory, name, self.kind, Mode::from_raw_mode(self.mode), device) {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = FileType::from_raw_mode(stat.st_mode) == self.kind
                    && stat.st_rdev as u64 == device as u64;
                return if same { Ok(()) } else { Err(Errno::EXIST.into()) };
            }
            other => other?,
        }
        match self.owner {
            Some((uid, gid)) if (uid, gid) != (0, 0) => {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                Ok(rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            _ => Ok(()),
        }
    }
}

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

fn links(dev: &OwnedFd, pts: bool) -> io::Result<()> {
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, dev, name) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
    }
    if !pts {
        return Ok(());
    }
    // Whatever the image has there, the terminal multiplexer is the one of the container's own devpts.
    match rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::symlinkat("pts/ptmx", dev, "ptmx")?)
}

/// The null device of the root, verified to be it (R3).
pub(super) fn null(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let null = beneath::open(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev as u64 == makedev(1, 3) as u64;
    if is_null {
        return Ok(null);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/null of the container is not the null device"))
}
