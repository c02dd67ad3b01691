//! Directory trees reached by descriptor: removal and measure. Nothing here follows a symbolic link, so a hostile tree
//! leads nowhere but into itself; nothing recurses, so depth costs descriptors, not stack.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// Descriptors held at most on the way down; below that depth directories are moved up first.
const DEPTH_MAX: usize = 128;

/// Opens a directory beneath `parent` to list it; a symbolic link is an error.
///
/// # Errors
/// As `openat`: `ENOTDIR` or `ELOOP` for what is no directory.
pub fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens a regular file beneath `parent` to read it, with what it is; none if that name is gone or is something else.
///
/// Nothing else is opened even for a moment: opening a device may do something to the host (`/dev/watchdog`), and who
/// changes the tree meanwhile may put one there.
///
/// # Errors
/// As `openat`.
pub(crate) fn open_regular(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<(File, Stat)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let location = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&location)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The same file, whatever its name stands for by now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(rustix::fs::CWD, proc_path(location.as_fd()), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(Some((file.into(), stat)))
}

/// Removes `name` beneath `parent`, whatever it is: a file, or a directory with all it holds. Nothing there is success.
/// Blocks for as long as the tree is large.
///
/// # Errors
/// As `unlinkat` and `openat`; what was removed before the error stays removed.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // Most directories of a replaced entry are empty, or not directories but immutable files: one call tells.
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open_to_empty(parent, name)?;
    let mut stack: Vec<(Dir, CString)> = vec![(Dir::read_from(&top)?, CString::default())];
    while let Some((directory, _)) = stack.last_mut() {
        let Some(entry) = directory.read() else {
            let (_, name) = stack.pop().unwrap_or_else(|| unreachable!("the loop holds a last element"));
            if let Some((above, _)) = stack.last() {
                rustix::fs::unlinkat(above.fd()?, &name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let fd = directory.fd()?;
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) if entry.file_type() == FileType::Unknown => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let name = name.to_owned();
        let child = open_to_empty(fd, &name)?;
        if stack.len() < DEPTH_MAX {
            stack.push((Dir::read_from(&child)?, name));
        } else {
            // Too deep: lift what it holds to the top, where the loop finds it again.
            lift(&child, &top)?;
            let (above, _) = stack.last().unwrap_or_else(|| unreachable!("the loop holds a last element"));
            rustix::fs::unlinkat(above.fd()?, &name, AtFlags::REMOVEDIR)?;
            if let Some((first, _)) = stack.first_mut() {
                first.rewind();
            }
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Whether `name` beneath `parent`, or anything below it, is where something is mounted, in whatever mount namespace
/// `parent` belongs to. Nothing there is no.
///
/// # Errors
/// As `openat` and `statx`.
pub(crate) fn holds_mount(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let Some(directory) = examine_mount(parent, name)? else { return Ok(true) };
    if !directory {
        return Ok(false);
    }
    let mut found = false;
    walk(open_directory(parent, name)?, |fd, name| {
        Ok(match examine_mount(fd, name)? {
            None => {
                found = true;
                Step::Stop
            }
            Some(false) => Step::Over,
            Some(true) => Step::Into(open_directory(fd, name)?),
        })
    })?;
    Ok(found)
}

/// How a walk goes on from a name.
enum Step {
    Over,
    Into(OwnedFd),
    Stop,
}

/// Shows `visit` every name of a tree with the directory that has it, as far down as it says.
fn walk(root: impl AsFd, mut visit: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<Step>) -> io::Result<()> {
    let mut stack = vec![Dir::read_from(root)?];
    while let Some(directory) = stack.last_mut() {
        let Some(entry) = directory.read() else {
            stack.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match visit(directory.fd()?, name)? {
            Step::Over => {}
            Step::Into(child) => stack.push(Dir::read_from(child)?),
            Step::Stop => return Ok(()),
        }
    }
    Ok(())
}

/// Whether a name is a directory; none if something is mounted there.
fn examine_mount(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<bool>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = match rustix::fs::statx(parent, name, flags, StatxFlags::TYPE) {
        Err(Errno::NOENT) => return Ok(Some(false)),
        other => other?,
    };
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    Ok(Some(FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory))
}

/// Opens a directory that is to be emptied. One without permissions is given some first, for callers without the
/// capability to override them.
fn open_to_empty(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    match open_directory(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            rustix::fs::chmodat(rustix::fs::CWD, proc_path(fd.as_fd()), Mode::RWXU, AtFlags::empty())?;
            open_directory(parent, name)
        }
        other => other,
    }
}

/// Moves all that `from` holds into `to`, under names that are free there.
fn lift(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut number = 0u64;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        if entry.file_name() == c"." || entry.file_name() == c".." {
            continue;
        }
        loop {
            number += 1;
            let name = format!(".lifted-{number}");
            match rustix::fs::renameat_with(
                from,
                entry.file_name(),
                to,
                &*name,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The path that leads to an open file; only for calls that have no descriptor form.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Bytes allocated on disk by a tree, as `du` counts them: every inode once, directories included.
///
/// # Errors
/// As `openat` and `fstatat`. What vanishes meanwhile is not counted.
pub fn disk_usage(root: BorrowedFd<'_>) -> io::Result<u64> {
    let mut total = 0;
    measure(root, &mut |stat| total += allocated(stat))?;
    Ok(total)
}

/// Tells `count` of every inode of a tree once.
fn measure(root: BorrowedFd<'_>, count: &mut impl FnMut(&rustix::fs::Stat)) -> io::Result<()> {
    let mut seen = HashSet::new();
    count(&rustix::fs::fstat(root)?);
    walk(root, |fd, name| {
        let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Step::Over),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            count(&stat);
            return match open_directory(fd, name) {
                Ok(child) => Ok(Step::Into(child)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Step::Over),
                Err(error) => Err(error),
            };
        }
        if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
            count(&stat);
        }
        Ok(Step::Over)
    })
}

/// Bytes of the files of a tree, as Docker counts what a container wrote: every inode once, directories as nothing.
///
/// # Errors
/// As [`disk_usage`].
pub fn content_size(root: BorrowedFd<'_>) -> io::Result<u64> {
    let mut total = 0;
    measure(root, &mut |stat| {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            total += u64::try_from(stat.st_size).unwrap_or(0);
        }
    })?;
    Ok(total)
}

/// Bytes of the regular files below a directory that have no other name. Blocks.
///
/// # Errors
/// File errors.
pub fn own_size(root: BorrowedFd<'_>) -> io::Result<u64> {
    let mut total = 0;
    measure(root, &mut |stat| {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
            total += u64::try_from(stat.st_size).unwrap_or(0);
        }
    })?;
    Ok(total)
}

fn allocated(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn a_tree_goes_and_what_its_links_name_stays() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("tree/a/b")).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/kept"), "x").unwrap();
        symlink("../../outside", temp.path().join("tree/a/link")).unwrap();
        symlink("/", temp.path().join("tree/root")).unwrap();
        fs::write(temp.path().join("tree/a/b/file"), "y").unwrap();
        fs::set_permissions(temp.path().join("tree/a"), fs::Permissions::from_mode(0o0)).unwrap();
        remove(open(temp.path()).as_fd(), c"tree").unwrap();
        assert!(!temp.path().join("tree").exists());
        assert!(temp.path().join("outside/kept").exists());
        remove(open(temp.path()).as_fd(), c"tree").unwrap();
    }

    #[test]
    fn a_tree_deeper_than_paths_can_name_goes() {
        let temp = tempfile::tempdir().unwrap();
        let top = open(temp.path());
        rustix::fs::mkdirat(&top, "deep", Mode::RWXU).unwrap();
        let mut here = open_directory(top.as_fd(), c"deep").unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&here, ".lifted-1", Mode::RWXU).unwrap();
            here = open_directory(here.as_fd(), c"d").unwrap();
        }
        remove(top.as_fd(), c"deep").unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn usage_counts_hard_links_once() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), vec![1; 64 * 1024]).unwrap();
        let before = disk_usage(open(temp.path()).as_fd()).unwrap();
        fs::hard_link(temp.path().join("file"), temp.path().join("again")).unwrap();
        assert_eq!(disk_usage(open(temp.path()).as_fd()).unwrap(), before);
        assert!(before >= 64 * 1024);
        fs::create_dir(temp.path().join("directory")).unwrap();
        symlink("file", temp.path().join("link")).unwrap();
        assert_eq!(content_size(open(temp.path()).as_fd()).unwrap(), 64 * 1024 + 4);
    }
}
