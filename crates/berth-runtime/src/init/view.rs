//! The files of a container that does not run: its root with binds and volumes in place, and no process.
//!
//! They are mounted in a mount namespace that has no process either: descriptors alone keep it, so that it ends with
//! whoever holds them, however that ends. The host's mount table never shows any of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::process::{self, flags};
use oci_spec::runtime::Mount;
use rustix::fs::Mode;

use super::mounts::Mounter;
use super::options::Options;
use super::{bind_generated, privileges, rootfs};
use crate::ids::Mappings;
use crate::launch::error::{Context, Stage};
use crate::launch::{GeneratedFile, Rootfs, StartError};

/// Mounted files. Walks begin at `root`, and see what is mounted there as long as `namespace` is held.
#[derive(Debug)]
pub struct View {
    /// The root, as a location.
    pub root: OwnedFd,
    /// The mount namespace.
    pub namespace: OwnedFd,
    /// Set where owners are seen as from outside of the container's user namespace.
    pub mappings: Option<Mappings>,
}

/// What is to be mounted.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The root.
    pub rootfs: &'a Rootfs,
    /// Bind mounts with the detached trees that are mounted, in order.
    pub binds: Vec<(&'a Mount, OwnedFd)>,
    /// A directory that is made in the root if it is not there.
    pub working_directory: Option<&'a Path>,
    /// Files of the engine's own.
    pub files: &'a [GeneratedFile],
    /// Whether the root itself cannot be written.
    pub read_only: bool,
    /// User and group to whom mount points belong that are made, if not root.
    pub owner: Option<(u32, u32)>,
}

/// Mounts a container's files. Missing mount points are made in its root. Blocks.
///
/// # Errors
/// What the kernel refuses; nothing stays mounted then.
pub fn assemble(parts: &Parts<'_>) -> Result<View, StartError> {
    std::thread::scope(|scope| {
        // A thread of its own: it never comes back to the host's mounts.
        let thread =
            std::thread::Builder::new().name("view".into()).spawn_scoped(scope, || mount_as_owner(parts));
        let thread = thread.context(Stage::Namespaces, || "start a thread")?;
        let panicked = |_| Err(StartError::new(Stage::Namespaces, "the thread that mounts panicked"));
        thread.join().unwrap_or_else(panicked)
    })
}

fn mount_as_owner(parts: &Parts<'_>) -> Result<View, StartError> {
    let Some((uid, gid)) = parts.owner else { return mount(parts) };
    let mounted = process::with_file_ids(uid, gid, || Ok(mount(parts)));
    mounted.context(Stage::Mount, || format!("make files as user {uid}"))?
}

fn mount(parts: &Parts<'_>) -> Result<View, StartError> {
    process::unshare(flags::NEWNS).context(Stage::Namespaces, || "unshare the mount namespace")?;
    // The mask is the thread's alone by now.
    rustix::process::umask(Mode::empty());
    let namespace = File::open("/proc/thread-self/ns/mnt");
    let namespace = namespace.context(Stage::Namespaces, || "open the mount namespace")?.into();
    rootfs::isolate_propagation()?;
    let root = rootfs::make(parts.rootfs)?;
    rootfs::attach(&root)?;
    let at = root.mount.as_fd();
    if let Some(path) = parts.working_directory {
        // What is in its way is told when the container is started.
        let _ = privileges::make_working_directory(at, path);
    }
    let mounter =
        Mounter { root: at, sources: &[], hierarchies: None, cgroup_namespace: false, cgroup_path: None };
    for (mount, source) in &parts.binds {
        let options = Options::parse(mount.options().as_deref().unwrap_or_default());
        let options = options.context(Stage::Mount, || "options")?;
        mounter.bind(source.as_fd(), mount.destination(), &options)?;
    }
    for file in parts.files {
        bind_generated(at, file)?;
    }
    rootfs::pivot(at)?;
    rootfs::finish(at, parts.read_only, Some("rprivate"))?;
    let root = rootfs::open_directory(Path::new("/"));
    let root = root.map_err(io::Error::other).context(Stage::Rootfs, || "open the root")?;
    Ok(View { root, namespace, mappings: None })
}
