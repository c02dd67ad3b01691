//! Whether overlayfs works on a file system, tried with a real mount that never gets a place.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_archive::marks::Marks;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// The directory of the trial, beneath the data root.
const PLACE: &str = "overlay-probe";

/// Mounts an overlay in `root`, removes what is below and makes it anew, and looks whether that came out as layers need
/// it. Gives the reason if it did not. Takes about a millisecond.
pub(super) fn overlay(root: &Path) -> Result<(), String> {
    let place = root.join(PLACE);
    let _ = std::fs::remove_dir_all(&place);
    let outcome = attempt(&place);
    if let Err(error) = std::fs::remove_dir_all(&place) {
        tracing::warn!(%error, place = %place.display(), "the trial of overlayfs left something");
    }
    outcome
}

fn attempt(place: &Path) -> Result<(), String> {
    let prepare = |name: &str| std::fs::create_dir_all(place.join(name)).map_err(|error| error.to_string());
    for name in ["lower/directory", "upper", "work"] {
        prepare(name)?;
    }
    std::fs::write(place.join("lower/directory/file"), "").map_err(|error| error.to_string())?;
    tells_kinds(&place.join("lower"))?;
    marks(&place.join("lower"))?;
    let mount = mount(place).map_err(|error| format!("mounting an overlay: {}", text(error)))?;
    let failed = |what: &'static str| move |error: Errno| format!("{what} in an overlay: {}", text(error));
    rustix::fs::unlinkat(&mount, "directory/file", AtFlags::empty()).map_err(failed("removing a file"))?;
    rustix::fs::unlinkat(&mount, "directory", AtFlags::REMOVEDIR).map_err(failed("removing a directory"))?;
    let upper = open(&place.join("upper")).map_err(|error| error.to_string())?;
    let stat = rustix::fs::statat(&upper, "directory", AtFlags::SYMLINK_NOFOLLOW);
    if !stat.is_ok_and(|stat| Marks::Overlay.is_whiteout(&stat)) {
        return Err("what is removed in an overlay leaves no mark".to_owned());
    }
    rustix::fs::mkdirat(&mount, "directory", Mode::RWXU).map_err(failed("making a directory"))?;
    let made = berth_archive::tree::open_directory(upper.as_fd(), c"directory");
    let opaque = made.map_err(|error| error.to_string())?;
    match Marks::Overlay.is_opaque(opaque.as_fd()) {
        Ok(true) => Ok(()),
        _ => Err("the file system keeps no extended attributes of overlayfs".to_owned()),
    }
}

/// What a layer's directory holds beside files, which the layers of an image bring before there is any overlay.
fn marks(lower: &Path) -> Result<(), String> {
    let device = rustix::fs::mknodat(CWD, lower.join("gone"), FileType::CharacterDevice, Mode::empty(), 0);
    device.map_err(|error| format!("making the mark of a removed file: {}", text(error)))?;
    let directory = open(lower).map_err(|error| error.to_string())?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&directory, c"trusted.overlay.opaque", b"y", flags)
        .map_err(|error| format!("setting an extended attribute of overlayfs: {}", text(error)))?;
    if Marks::Overlay.is_opaque(directory.as_fd()).is_ok_and(|opaque| opaque) {
        Ok(())
    } else {
        Err("the file system keeps no extended attributes of overlayfs".to_owned())
    }
}

/// Without the kind of each name in its listings, a file system cannot hold whiteouts (d_type).
fn tells_kinds(directory: &Path) -> Result<(), String> {
    let open = open(directory).map_err(|error| error.to_string())?;
    let entries = Dir::read_from(&open).map_err(text)?;
    let known = |name: &CStr| name == c"." || name == c"..";
    for entry in entries {
        let entry = entry.map_err(text)?;
        if !known(entry.file_name()) && entry.file_type() == FileType::Unknown {
            return Err("the file system does not tell kinds of files in its listings (d_type)".to_owned());
        }
    }
    // Overlayfs leaves a mark where it takes a name away, in one step.
    let (from, to) = (directory.join("from"), directory.join("to"));
    std::fs::write(&from, "").map_err(|error| error.to_string())?;
    rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::WHITEOUT)
        .map_err(|error| format!("renaming with a mark left behind: {}", text(error)))?;
    Ok(())
}

fn mount(place: &Path) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
    let mut held = Vec::new();
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        // Values are short, and a path may have a comma or a colon in it.
        let directory = open(&place.join(name))?;
        let short = {
            use std::os::fd::AsRawFd;
            format!("/proc/self/fd/{}", directory.as_raw_fd())
        };
        held.push(directory);
        rustix::mount::fsconfig_set_string(&context, key, &*short)?;
    }
    for (key, value) in [("metacopy", "off"), ("redirect_dir", "off"), ("index", "off"), ("xino", "off")] {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    // Its end would write back all of the file system below.
    rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn text(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_cannot_be_on_an_overlay() {
        let temp = tempfile::tempdir().unwrap();
        overlay(temp.path()).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(temp.path().join(name)).unwrap();
        }
        let mount = mount(temp.path()).unwrap();
        use std::os::fd::AsRawFd;
        let path = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
        overlay(&path).unwrap_err();
    }
}
