//! Controllers of the unified hierarchy must be handed down: enabled in `cgroup.subtree_control` of every cgroup
//! on the way. The kernel allows that only where no process is (but in the real root).

use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::{Hierarchy, own_path};

/// Where the processes of a nested root go.
const LEAF: &str = "berth-init";
/// Processes may come while others are moved out.
const ATTEMPTS: usize = 5;

/// What a container's cgroup gets of the unified hierarchy, if the kernel has it.
pub(super) const WANTED: &[&str] = &["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];

/// Enables `controllers` in every cgroup from the root of `hierarchy` to the parent of `path`, which are made when
/// they are missing.
pub(super) fn hand_down(hierarchy: &Hierarchy, path: &str, controllers: &[&str]) -> Result<()> {
    let mut directory = Directory { version: hierarchy.version, path: hierarchy.mount.clone() };
    let components: Vec<_> = path.split('/').collect();
    // The last component is the cgroup itself.
    for next in &components {
        enable(hierarchy, &directory, controllers)?;
        directory.path.push(next);
        if directory.path != hierarchy.mount.join(path) {
            directory.make().map_err(Error::file("create", &directory.path))?;
        }
    }
    Ok(())
}

/// Whether the parent of `child` hands down all of `controllers` already.
pub(super) fn is_handed_down(child: &Directory, controllers: &[&str]) -> Result<bool> {
    let Some(parent) = child.path.parent() else { return Ok(false) };
    let parent = Directory { version: child.version, path: parent.to_path_buf() };
    let enabled = parent.read_if_present("cgroup.subtree_control")?.unwrap_or_default();
    Ok(controllers.iter().all(|wanted| enabled.split_whitespace().any(|have| have == *wanted)))
}

fn enable(hierarchy: &Hierarchy, directory: &Directory, controllers: &[&str]) -> Result<()> {
    let available = directory.read("cgroup.controllers")?;
    let enabled = directory.read("cgroup.subtree_control")?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|have| have == name);
    let missing: Vec<_> = controllers
        .iter()
        .filter(|name| has(&available, name) && !has(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all = missing.join(" ");
    match directory.write("cgroup.subtree_control", &all) {
        Ok(()) => Ok(()),
        Err(error) if error.errno() == Some(libc::EBUSY) && is_own(hierarchy, directory)? => {
            evacuate(directory, &all)
        }
        // One that cannot be had (a CPU controller with real-time threads around) must not cost the others.
        Err(_) if missing.len() > 1 => {
            for one in &missing {
                if let Err(error) = directory.write("cgroup.subtree_control", one) {
                    tracing::warn!(%error, "a cgroup controller is not available below");
                }
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether the calling process is in the cgroup: then it is ours to rearrange.
fn is_own(hierarchy: &Hierarchy, directory: &Directory) -> Result<bool> {
    let own = own_path(hierarchy)?;
    Ok(hierarchy.mount.join(own.trim_start_matches('/')) == directory.path)
}

/// Moves all processes of the cgroup to a leaf below it, then enables `controllers` in it.
fn evacuate(directory: &Directory, controllers: &str) -> Result<()> {
    let leaf = Directory { version: directory.version, path: directory.path.join(LEAF) };
    leaf.make().map_err(Error::file("create", &leaf.path))?;
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        for pid in directory.processes()? {
            match leaf.write("cgroup.procs", &pid.to_string()) {
                // It may have ended; a kernel thread cannot be moved, and the next write says so.
                Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::EINVAL)) => {}
                other => other?,
            }
        }
        result = directory.write("cgroup.subtree_control", controllers);
        if !matches!(&result, Err(error) if error.errno() == Some(libc::EBUSY)) {
            break;
        }
    }
    result
}
