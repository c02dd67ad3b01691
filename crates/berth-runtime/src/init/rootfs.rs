//! The container's root: an overlay or a bind mount, attached over `/` and then pivoted into.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::beneath;
use berth_sys::mount::{self, Attributes, attr, propagation};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use crate::launch::Rootfs;
use crate::launch::error::{Context, Stage, StartError};

/// Keeps mount events of this namespace from reaching the host, before anything is mounted.
///
/// Events of the host still arrive (`rslave`), so that a volume mounted later with `rslave` shows up.
pub(super) fn isolate_propagation() -> Result<(), StartError> {
    let root = open_directory(Path::new("/")).context(Stage::Mount, || "open /")?;
    let change = Attributes { propagation: propagation::SLAVE, recursive: true, ..Attributes::default() };
    mount::set_attributes(&root, change, None).context(Stage::Mount, || "make / a slave mount")
}

/// The mount that becomes `/`.
pub(super) struct Root {
    /// It, or a directory on it.
    pub mount: OwnedFd,
    /// Whether it has a place in this mount namespace already.
    attached: bool,
}

/// Makes the mount of the root.
pub(super) fn make(rootfs: &Rootfs) -> Result<Root, StartError> {
    match rootfs {
        Rootfs::Path(path) => {
            let tree = mount::clone_at(CWD, path, true);
            let tree = tree.context(Stage::Rootfs, || format!("bind root {}", path.display()))?;
            let private = Attributes { propagation: propagation::PRIVATE, ..Attributes::default() };
            mount::set_attributes(&tree, private, None).context(Stage::Rootfs, || "make the root private")?;
            Ok(Root { mount: tree, attached: false })
        }
        Rootfs::Overlay { lower, upper, work, volatile } => overlay(lower, upper, work, *volatile)
            .context(Stage::Rootfs, || format!("mount overlay with upper directory {}", upper.display())),
    }
}

/// The mount of a root without a place.
pub(crate) fn detached(rootfs: &Rootfs) -> Result<OwnedFd, StartError> {
    let root = make(rootfs)?;
    if root.attached {
        let message = "overlays in user namespaces need Linux 6.5";
        return Err(StartError::new(Stage::Rootfs, message));
    }
    Ok(root.mount)
}

/// A root that was made beforehand.
pub(super) fn prepared(mount: &OwnedFd) -> Result<Root, StartError> {
    let mount = mount.try_clone().context(Stage::Rootfs, || "copy a descriptor")?;
    Ok(Root { mount, attached: false })
}

/// Options that change the format on disk are never left to the kernel's configuration.
pub(super) const OVERLAY_FORMAT: [(&str, &str); 4] =
    [("metacopy", "off"), ("redirect_dir", "off"), ("index", "off"), ("xino", "off")];

/// Takes away the mark by which overlayfs refuses to mount an upper again that was volatile: after a crash of the host nobody
/// starts such a container again, and a restart without one has lost nothing. One that a failed step of a build left is
/// volatile no more when it is started again.
pub(super) fn forget_volatile(work: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(work.join("work/incompat")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, volatile: bool) -> io::Result<Root> {
    forget_volatile(work)?;
    // The kernel takes at most 255 bytes for one value; longer paths go through a descriptor.
    let mut held = Vec::new();
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
    let mut set = |key: &str, path: &Path| -> io::Result<()> {
        if path.as_os_str().len() < 256 {
            return Ok(rustix::mount::fsconfig_set_string(&context, key, path)?);
        }
        let directory = open_directory(path)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        held.push(directory);
        Ok(rustix::mount::fsconfig_set_string(&context, key, &short)?)
    };
    for directory in lower {
        match set("lowerdir+", directory) {
            // Before Linux 6.8, but with the new mount interface.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && directory.is_dir() => {
                return overlay_by_list(lower, upper, work, volatile);
            }
            other => other?,
        }
    }
    set("upperdir", upper)?;
    set("workdir", work)?;
    for (key, value) in OVERLAY_FORMAT {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    if volatile {
        rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    }
    match rustix::mount::fsconfig_create(&context) {
        // Before Linux 6.5 options are looked at only now, and this is one that is not known.
        Err(Errno::INVAL) => return overlay_by_list(lower, upper, work, volatile),
        other => other?,
    }
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(Root { mount, attached: false })
}

/// The overlay by mount(2), whose options are one page: directories are named by descriptor, which keeps each under 20 bytes.
///
/// It is mounted, in this mount namespace, over `work`, since mount(2) needs a place, and nobody looks for anything there.
pub(super) fn overlay_by_list(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> io::Result<Root> {
    let held: io::Result<Vec<OwnedFd>> =
        lower.iter().map(PathBuf::as_path).chain([upper, work]).map(open_directory).collect();
    let held = held?;
    let names: Vec<String> = held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let (lower_names, rest) = names.split_at(lower.len());
    let mut options = format!("lowerdir={},upperdir={},workdir={}", lower_names.join(":"), rest[0], rest[1]);
    for (key, value) in OVERLAY_FORMAT {
        options.push_str(&format!(",{key}={value}"));
    }
    if volatile {
        options.push_str(",volatile");
    }
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("overlay", work, "overlay", MountFlags::empty(), options.as_c_str())?;
    Ok(Root { mount: open_directory(work)?, attached: true })
}

/// Attaches the root over the present `/`: walks that start at the returned mount see it, absolute paths still the host.
pub(super) fn attach(root: &Root) -> Result<(), StartError> {
    if root.attached {
        return Ok(());
    }
    let host = open_directory(Path::new("/")).context(Stage::Rootfs, || "open /")?;
    mount::attach(&root.mount, &host).context(Stage::Rootfs, || "attach the root")
}

/// Attaches the host's mounts over the present `/`, and the root at `place` on them: there, hooks find both. What they mount does
/// not reach the host. Absolute paths still are those of the present `/`, but for [`within`].
pub(super) fn attach_within(root: &Root, host: BorrowedFd<'_>, place: &Path) -> Result<(), StartError> {
    let change = Attributes { propagation: propagation::SLAVE, recursive: true, ..Attributes::default() };
    mount::set_attributes(host, change, None)
        .context(Stage::Rootfs, || "make the host's mounts slave mounts")?;
    let below = open_directory(Path::new("/")).context(Stage::Rootfs, || "open /")?;
    mount::attach(host, &below).context(Stage::Rootfs, || "attach the host's mounts")?;
    let what = || format!("attach the root at {}", place.display());
    let place = beneath::open_path(host, place).context(Stage::Rootfs, what)?;
    mount::attach(&root.mount, &place).context(Stage::Rootfs, what)
}

/// Runs `work` with `root` as the root of the process.
pub(super) fn within<T>(
    root: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, StartError>,
) -> Result<T, StartError> {
    let change = |root: BorrowedFd<'_>| {
        rustix::process::fchdir(root)?;
        rustix::process::chroot(".")
    };
    let before = open_directory(Path::new("/")).context(Stage::Hook, || "open /")?;
    change(root).context(Stage::Hook, || "enter the host's files")?;
    let outcome = work();
    change(before.as_fd()).context(Stage::Hook, || "leave the host's files")?;
    outcome
}

/// Makes the mount `/` of the process and lets go of everything that was there.
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), StartError> {
    rustix::process::fchdir(root).context(Stage::Rootfs, || "enter the root")?;
    // Both names are the new root: the old one ends up on top of it and is taken away without having had a place.
    rustix::process::pivot_root(".", ".").context(Stage::Rootfs, || "pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context(Stage::Rootfs, || "detach the host's root")?;
    rustix::process::chdir("/").context(Stage::Rootfs, || "enter /")
}

/// Last changes of the root mount: `root.readonly` and `linux.rootfsPropagation`.
pub(super) fn finish(root: BorrowedFd<'_>, read_only: bool, kind: Option<&str>) -> Result<(), StartError> {
    let (propagation, recursive) = match kind {
        None | Some("") => (0, false),
        Some("shared") => (propagation::SHARED, false),
        Some("rshared") => (propagation::SHARED, true),
        Some("slave") => (propagation::SLAVE, false),
        Some("rslave") => (propagation::SLAVE, true),
        Some("private") => (propagation::PRIVATE, false),
        Some("rprivate") => (propagation::PRIVATE, true),
        Some("unbindable") => (propagation::UNBINDABLE, false),
        Some("runbindable") => (propagation::UNBINDABLE, true),
        Some(other) => {
            let message = format!("rootfsPropagation={other} is not a propagation type");
            return Err(StartError::new(Stage::Configuration, message));
        }
    };
    if propagation != 0 {
        let change = Attributes { propagation, recursive, ..Attributes::default() };
        mount::set_attributes(root, change, None).context(Stage::Rootfs, || "set the root's propagation")?;
    }
    if read_only {
        let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
        mount::set_attributes(root, change, None).context(Stage::Rootfs, || "make the root read-only")?;
    }
    Ok(())
}

pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
