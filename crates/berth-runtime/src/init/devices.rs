//! Device nodes and the links in `/dev`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::{beneath, mount};
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

/// The standard nodes and those of the configuration.
pub(crate) fn nodes(extra: &[LinuxDevice]) -> Result<Vec<Node>, StartError> {
    let standard = DEVICES.iter().map(|(path, major, minor)| Node {
        path: PathBuf::from(path),
        kind: FileType::CharacterDevice,
        major: *major,
        minor: *minor,
        mode: 0o666,
        owner: (0, 0),
    });
    let mut nodes: Vec<Node> = standard.collect();
    for device in extra {
        let path = device.path();
        let node = Node::from_configuration(device)
            .context(Stage::Device, || format!("error creating device node {}", path.display()))?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// Makes the standard nodes, those of the configuration, and the links.
pub(super) fn make(root: BorrowedFd<'_>, extra: &[LinuxDevice], pts: bool) -> Result<(), StartError> {
    let dev = beneath::make_directories(root, Path::new("/dev"), Mode::from_raw_mode(0o755));
    let dev = dev.context(Stage::Device, || "open /dev")?;
    for node in nodes(extra)? {
        node.make(root)
            .context(Stage::Device, || format!("error creating device node {}", node.path.display()))?;
    }
    links(&dev, pts).context(Stage::Device, || "make the links in /dev")
}

/// Binds nodes that were made elsewhere, and makes the links.
pub(super) fn bind(root: BorrowedFd<'_>, nodes: &[(&Node, OwnedFd)], pts: bool) -> Result<(), StartError> {
    let dev = beneath::make_directories(root, Path::new("/dev"), Mode::from_raw_mode(0o755));
    let dev = dev.context(Stage::Device, || "open /dev")?;
    for (node, tree) in nodes {
        let what = || format!("error creating device node {}", node.path.display());
        let target = beneath::make_file(root, &node.path, Mode::from_raw_mode(0o644));
        let target = target.context(Stage::Device, what)?;
        mount::attach(tree, target).context(Stage::Device, what)?;
    }
    links(&dev, pts).context(Stage::Device, || "make the links in /dev")
}

/// A device node.
pub(crate) struct Node {
    /// Its path in the container.
    pub path: PathBuf,
    pub kind: FileType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    /// User and group inside.
    pub owner: (u32, u32),
}

impl Node {
    fn from_configuration(device: &LinuxDevice) -> io::Result<Self> {
        let number =
            |value: i64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        Ok(Self {
            path: device.path().clone(),
            kind: match device.typ() {
                LinuxDeviceType::B => FileType::BlockDevice,
                LinuxDeviceType::P => FileType::Fifo,
                _ => FileType::CharacterDevice,
            },
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        })
    }

    /// Makes the node; what is there already must be the same (R3).
    fn make(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = beneath::make_directories(root, parent, Mode::from_raw_mode(0o755))?;
        let device = makedev(self.major, self.minor);
        match rustix::fs::mknodat(&directory, name, self.kind, Mode::from_raw_mode(self.mode), device) {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = FileType::from_raw_mode(stat.st_mode) == self.kind
                    && stat.st_rdev as u64 == device as u64;
                return if same { Ok(()) } else { Err(Errno::EXIST.into()) };
            }
            other => other?,
        }
        if self.owner == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)));
        Ok(rustix::fs::chownat(&directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
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
