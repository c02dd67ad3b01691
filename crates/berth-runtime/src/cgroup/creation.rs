//! Making the directories of a cgroup, and writing values to its files.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use super::delegation;
use super::directory::Directory;
use super::error::{Error, Result};
use super::layout::{Hierarchy, Version};
use super::setting::Setting;

/// Makes the cgroup's directory in one hierarchy, and its parents where they are missing; `controllers` are
/// handed down to it in version 2. True if this call has made it.
pub(super) fn make(
    hierarchy: &Hierarchy,
    path: &str,
    directory: &Directory,
    controllers: &[&str],
) -> Result<bool> {
    match hierarchy.version {
        Version::V1 => make_v1(hierarchy, path, directory),
        Version::V2 => {
            if !controllers.is_empty() && !delegation::is_handed_down(directory, controllers)? {
                delegation::hand_down(hierarchy, path, controllers)?;
            }
            make_with_parents(directory)
        }
    }
}

fn make_v1(hierarchy: &Hierarchy, path: &str, directory: &Directory) -> Result<bool> {
    let made = make_with_parents(directory)?;
    if hierarchy.has("cpuset") && !is_filled(directory)? {
        let mut ancestor = hierarchy.mount.clone();
        for component in path.split('/') {
            let parent = ancestor.clone();
            ancestor.push(component);
            inherit_cpuset(&parent, &Directory { version: Version::V1, path: ancestor.clone() })?;
        }
    }
    Ok(made)
}

fn make_with_parents(directory: &Directory) -> Result<bool> {
    match directory.make() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(parent) = directory.path.parent() {
                fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
            }
            directory.make()
        }
        other => other,
    }
    .map_err(Error::file("create", &directory.path))
}

/// A version 1 CPU set takes no tasks before it has CPUs and memory nodes.
fn is_filled(directory: &Directory) -> Result<bool> {
    Ok(!directory.read("cpuset.cpus")?.is_empty() && !directory.read("cpuset.mems")?.is_empty())
}

fn inherit_cpuset(parent: &Path, directory: &Directory) -> Result<()> {
    let parent = Directory { version: Version::V1, path: parent.to_path_buf() };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if directory.read(file)?.is_empty() {
            directory.write(file, &parent.read(file)?)?;
        }
    }
    // From now on the kernel fills new children itself, which spares them all of this.
    directory.write("cgroup.clone_children", "1")
}

/// Writes the settings in their order. What the kernel refuses because of another value (a limit of memory above
/// the old one of memory and swap, a quota against the old period) is tried again after the others.
pub(super) fn write(settings: &[Setting], place: impl Fn(&Setting) -> Result<Directory>) -> Result<()> {
    let mut pending: VecDeque<&Setting> = settings.iter().collect();
    let mut refused = 0;
    while let Some(setting) = pending.pop_front() {
        let result = place(setting).and_then(|directory| directory.write(&setting.file, &setting.value));
        match result {
            Ok(()) => refused = 0,
            Err(error) if setting.optional && is_missing(&error) => {
                tracing::warn!(%error, "the kernel cannot set this resource");
            }
            Err(error)
                if matches!(error.errno(), Some(libc::EINVAL | libc::EBUSY)) && refused < pending.len() =>
            {
                refused += 1;
                pending.push_back(setting);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_missing(error: &Error) -> bool {
    // EACCES: the kernel refuses to create a file in its place; EOPNOTSUPP: built in, but switched off.
    matches!(error.errno(), Some(libc::ENOENT | libc::EACCES | libc::EOPNOTSUPP))
        || matches!(error, Error::NoController { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_optional_file_is_passed_over() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("pids.max"), "").unwrap();
        let settings =
            [Setting::new("memory", "memory.swap.max", 1).optional(), Setting::new("pids", "pids.max", 5)];
        let place =
            |_: &Setting| Ok(Directory { version: Version::V2, path: temporary.path().to_path_buf() });
        write(&settings, place).unwrap();
        assert_eq!(fs::read_to_string(temporary.path().join("pids.max")).unwrap(), "5");
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let temporary = tempfile::tempdir().unwrap();
        let place =
            |_: &Setting| Ok(Directory { version: Version::V2, path: temporary.path().to_path_buf() });
        let error = write(&[Setting::new("pids", "pids.max", 5)], place).unwrap_err();
        assert!(error.to_string().contains("pids.max"), "{error}");
    }
}
