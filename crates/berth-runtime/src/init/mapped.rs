//! What is particular to a root in a user namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{self, Parameter};
use berth_sys::process;
use rustix::fs::CWD;

use super::devices::Node;
use super::rootfs::{self, OVERLAY_FORMAT};
use crate::launch::error::{Context, Stage, StartError};
use crate::launch::remapped::Remapped;

/// An overlay of idmapped mounts.
pub(crate) struct Overlay<'a> {
    /// Lower directories, the top one first.
    pub lower: &'a [OwnedFd],
    /// What has the writable and the work directory in it: overlayfs wants them on one mount.
    pub writable: &'a OwnedFd,
    /// Name of the writable directory.
    pub upper: &'a str,
    /// Name of the work directory.
    pub work: &'a str,
    /// The host's path of the work directory.
    pub host_work: &'a Path,
    /// Never syncs.
    pub volatile: bool,
}

impl Overlay<'_> {
    /// Gives the layers a place in the mount namespace of the caller, who needs it for nothing else, and makes the mount,
    /// detached. `root` are user and group of the container's root.
    pub fn place_and_make(&self, root: (u32, u32)) -> Result<OwnedFd, StartError> {
        let what = || "give the layers a place";
        rootfs::isolate_propagation()?;
        let host = rootfs::open_directory(Path::new("/")).context(Stage::Rootfs, what)?;
        for layer in self.lower.iter().chain([self.writable]) {
            // One over the other: each is found by its descriptor.
            mount::attach(layer, &host).context(Stage::Rootfs, what)?;
        }
        // What overlayfs makes for itself belongs to its mounter, who must be somebody behind the mapping.
        let made = process::with_file_ids(root.0, root.1, || match self.make() {
            // Before Linux 6.8, which takes no single layers.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.make_by_list(),
            other => other,
        });
        made.context(Stage::Rootfs, || format!("mount overlay for {}", self.host_work.display()))
    }

    fn make(&self) -> io::Result<OwnedFd> {
        rootfs::forget_volatile(self.host_work)?;
        let mut options = vec![Parameter::value("source", "overlay")?];
        for layer in self.lower {
            options.push(Parameter::value("lowerdir+", name(layer))?);
        }
        let (upper, work) = self.directories();
        options.push(Parameter::value("upperdir", upper)?);
        options.push(Parameter::value("workdir", work)?);
        for (key, value) in OVERLAY_FORMAT {
            options.push(Parameter::value(key, value)?);
        }
        if self.volatile {
            options.push(Parameter::parse("volatile")?);
        }
        mount::new_filesystem("overlay", &options, 0)
    }

    /// By mount(2), over the work directory, which nobody looks at here.
    fn make_by_list(&self) -> io::Result<OwnedFd> {
        let lower: Vec<String> = self.lower.iter().map(name).collect();
        let (upper, work) = self.directories();
        let mut options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        for (key, value) in OVERLAY_FORMAT {
            options.push_str(&format!(",{key}={value}"));
        }
        if self.volatile {
            options.push_str(",volatile");
        }
        mount::by_name("overlay", self.host_work, "overlay", 0, &options)?;
        mount::clone_at(CWD, self.host_work, false)
    }

    fn directories(&self) -> (String, String) {
        let base = name(self.writable);
        (format!("{base}/{}", self.upper), format!("{base}/{}", self.work))
    }
}

/// A short name for what a descriptor refers to: the kernel takes at most 255 bytes for one value.
fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Mounts of the device nodes, each by itself.
pub(super) fn take_devices(remapped: &Remapped) -> Result<Vec<(&Node, OwnedFd)>, StartError> {
    let what = || "take the device nodes";
    let host = rootfs::open_directory(Path::new("/")).context(Stage::Device, what)?;
    // Before Linux 6.15 only a mount that has a place can be copied.
    mount::attach(&remapped.devices, &host).context(Stage::Device, what)?;
    let take = |(index, node)| {
        let name = usize::to_string(&index);
        let tree =
            mount::clone_at(&remapped.devices, Path::new(&name), false).context(Stage::Device, what)?;
        Ok((node, tree))
    };
    let taken = remapped.nodes.iter().enumerate().map(take).collect::<Result<_, _>>()?;
    // It must not be in the way when the host's root is let go, which would stay.
    mount::detach(Path::new("/")).context(Stage::Device, what)?;
    Ok(taken)
}
