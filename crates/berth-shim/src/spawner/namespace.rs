//! A mount namespace with no more than shims and containers need.
//!
//! A container's namespace starts as a copy of the spawner's: the copy of one with 1,000 mounts costs ten times that of
//! a minimal one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Attributes, attr, propagation};
use berth_sys::process::flags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

/// What is always kept, if it exists.
const KEPT: [&str; 3] = ["/proc", "/dev", "/sys/fs/cgroup"];

/// Kept without what is mounted below it.
const SYSFS: &str = "/sys";

/// Moves the calling process, which must have one thread, to a namespace that shows `directories` and [`KEPT`] at
/// their own paths, with everything mounted below them, and nothing else.
///
/// On failure the process is in a namespace of its own whose content is the old one's.
pub(super) fn enter_minimal(directories: &[PathBuf]) -> io::Result<()> {
    berth_sys::process::unshare(flags::NEWNS)?;
    let old_root = open("/".as_ref())?;
    // Slave, not private: what the host unmounts is unmounted here.
    let slave = Attributes { propagation: propagation::SLAVE, recursive: true, ..Attributes::default() };
    mount::set_attributes(&old_root, slave, None)?;
    let mut trees = Vec::new();
    // The kernel lets a user namespace mount a sysfs only where one is to be seen.
    if let Ok(sysfs) = mount::clone_at(CWD, SYSFS.as_ref(), false) {
        mount::set_attributes(&sysfs, slave, None)?;
        trees.push((PathBuf::from(SYSFS), sysfs));
    }
    for path in outermost(directories) {
        match mount::clone_at(CWD, &path, true) {
            Ok(tree) => {
                mount::set_attributes(&tree, slave, None)?;
                trees.push((path, tree));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mode = mount::Parameter::value("mode", "0755")?;
    let size = mount::Parameter::value("size", "64k")?;
    let new_root = mount::new_filesystem("tmpfs", &[mode, size], attr::NOSUID | attr::NODEV)?;
    mount::attach(&new_root, &old_root)?;
    for (path, tree) in trees {
        mount::attach(tree, make_directory(&new_root, &path)?)?;
    }
    // The mount on top of the old root becomes the root; both lie at `.` for a moment.
    rustix::process::fchdir(&new_root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    let new_root = open("/".as_ref())?;
    mount::set_attributes(&new_root, Attributes { set: attr::RDONLY, ..Attributes::default() }, None)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The paths of `directories` and [`KEPT`] that no other of them contains, shortest first.
fn outermost(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = directories.iter().cloned().chain(KEPT.iter().map(PathBuf::from)).collect();
    paths.sort_by_key(|path| path.as_os_str().len());
    let mut outermost: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !outermost.iter().any(|outer| path.starts_with(outer)) {
            outermost.push(path);
        }
    }
    outermost
}

/// Makes `path` below the fresh root `root`, in which nobody else writes.
fn make_directory(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut directory = root.try_clone()?;
    for name in path.components().filter(|part| matches!(part, std::path::Component::Normal(_))) {
        match rustix::fs::mkdirat(&directory, name.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, name.as_os_str(), flags, Mode::empty())?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_directories_are_bound_once() {
        let given = ["/data/exec", "/data", "/proc/x", "/database"].map(PathBuf::from);
        let expected = ["/dev", "/data", "/proc", "/database", "/sys/fs/cgroup"].map(PathBuf::from);
        let mut found = outermost(&given);
        found.sort_by(|a, b| (a.as_os_str().len(), a).cmp(&(b.as_os_str().len(), b)));
        assert_eq!(found, expected);
    }
}
