//! `/sys/fs/cgroup` of the container (cgroups(7)).
//!
//! In a cgroup namespace the file systems are mounted anew and show the container's own tree. Without one the
//! container's directories are bound, and always read-only: the host's tree is never writable inside (R8).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{self, Attributes, Parameter, attr};
use rustix::fs::{CWD, Mode, OFlags};

use super::mounts::{Mounter, attach};
use super::options::Options;
use crate::cgroup::{Hierarchy, Version};
use crate::launch::error::{Context, Stage, StartError};

/// Mounts the hierarchies at `target`: the unified one itself, or a tmpfs with a directory for each of version 1.
pub(super) fn mount(mounter: &Mounter<'_>, target: &OwnedFd, options: &Options) -> Result<(), StartError> {
    let Some(layout) = mounter.hierarchies else {
        return Err(StartError::new(Stage::Mount, "no cgroup hierarchy is mounted on the host"));
    };
    let mut attributes = options.set | options.set_recursive;
    if !mounter.cgroup_namespace {
        attributes |= attr::RDONLY;
    }
    let first_version: Vec<&Hierarchy> =
        layout.hierarchies.iter().filter(|hierarchy| hierarchy.version == Version::V1).collect();
    if first_version.is_empty() {
        let Some(unified) = layout.hierarchies.first() else {
            return Err(StartError::new(Stage::Mount, "no cgroup hierarchy is mounted on the host"));
        };
        return attach(one(mounter, unified, attributes)?, target);
    }
    let parameters = [
        Parameter::value("source", "tmpfs"),
        Parameter::value("mode", "755"),
        Parameter::value("size", "64k"),
    ];
    let parameters = parameters.into_iter().collect::<Result<Vec<_>, _>>();
    let parameters = parameters.context(Stage::Mount, || "tmpfs options")?;
    let made = mount::new_filesystem("tmpfs", &parameters, attributes & !attr::RDONLY);
    let directory = made.context(Stage::Mount, || "make tmpfs for cgroups")?;
    attach(&directory, target)?;
    for hierarchy in first_version {
        below(mounter, &directory, hierarchy, attributes)?;
    }
    if attributes & attr::RDONLY != 0 {
        let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
        mount::set_attributes(&directory, change, None).context(Stage::Mount, || "make cgroups read-only")?;
    }
    Ok(())
}

/// Mounts one hierarchy of version 1 in its directory, named as on the host, with a symlink for each of its controllers.
fn below(
    mounter: &Mounter<'_>,
    directory: &OwnedFd,
    hierarchy: &Hierarchy,
    attributes: u64,
) -> Result<(), StartError> {
    let Some(name) = hierarchy.mount.file_name() else { return Ok(()) };
    let what = || format!("cgroup hierarchy {}", name.display());
    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)).context(Stage::Mount, what)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(directory, name, flags, Mode::empty()).context(Stage::Mount, what)?;
    attach(one(mounter, hierarchy, attributes)?, &target)?;
    for controller in &hierarchy.controllers {
        if controller.as_str() != name && !controller.contains('=') {
            rustix::fs::symlinkat(name, directory, controller.as_str()).context(Stage::Mount, what)?;
        }
    }
    Ok(())
}

/// A detached mount of one hierarchy.
fn one(mounter: &Mounter<'_>, hierarchy: &Hierarchy, attributes: u64) -> Result<OwnedFd, StartError> {
    let what = || format!("mount cgroup hierarchy {}", hierarchy.mount.display());
    if !mounter.cgroup_namespace {
        let relative = mounter.cgroup_path.unwrap_or(Path::new("/"));
        let path = hierarchy.mount.join(relative.strip_prefix("/").unwrap_or(relative));
        let path = if path.is_dir() { path } else { hierarchy.mount.clone() };
        let tree = mount::clone_at(CWD, &path, true).context(Stage::Mount, what)?;
        let change = Attributes { set: attributes, recursive: true, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), change, None).context(Stage::Mount, what)?;
        return Ok(tree);
    }
    let (kind, parameters) = match hierarchy.version {
        Version::V2 => ("cgroup2", vec![Parameter::value("source", "cgroup").context(Stage::Mount, what)?]),
        Version::V1 => {
            let named = hierarchy.controllers.iter().any(|controller| controller.contains('='));
            let none = named.then(|| "none".to_owned());
            let parameters: Result<Vec<_>, _> = ["source=cgroup".to_owned()]
                .iter()
                .chain(&none)
                .chain(&hierarchy.controllers)
                .map(|controller| Parameter::parse(controller))
                .collect();
            ("cgroup", parameters.context(Stage::Mount, what)?)
        }
    };
    mount::new_filesystem(kind, &parameters, attributes).context(Stage::Mount, what)
}
