//! What the daemon makes of its own process before it has threads.

use std::fs;
use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid, umask};

/// Sets what every daemon needs: the umask, room for descriptors, a place among those killed last.
pub fn prepare() {
    umask(Mode::from_raw_mode(0o022));
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    // Fails without CAP_SYS_RESOURCE, which only costs the protection.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-500") {
        tracing::debug!(%error, "the out-of-memory score stays as it is");
    }
}

/// Leaves the session, the working directory and the cgroups of whoever started this process, so that ending those
/// does not end the daemon. What cannot be left is logged and kept.
pub fn leave(cgroup_parent: &str) {
    if let Err(error) = setsid() {
        tracing::debug!(%error, "the session stays as it is");
    }
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "the working directory stays as it is");
    }
    let path = format!("{}/daemon", cgroup_parent.trim_end_matches('/'));
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => {
            for hierarchy in hierarchies(&mounts) {
                if let Err(error) = enter(&hierarchy, &path) {
                    tracing::debug!(mount = hierarchy.mount, %error, "the cgroup stays as it is");
                }
            }
        }
        Err(error) => tracing::debug!(%error, "the cgroups stay as they are"),
    }
}

/// A mounted cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy<'a> {
    mount: &'a str,
    /// Version 1, with these controllers.
    legacy: Option<&'a str>,
}

/// The cgroup hierarchies in the text of a mountinfo file (proc_pid_mountinfo(5)).
fn hierarchies(mounts: &str) -> Vec<Hierarchy<'_>> {
    mounts
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            // A hierarchy mounted in part would take the path below somebody's cgroup.
            if mount.next()? != "/" {
                return None;
            }
            let point = mount.next()?;
            let mut filesystem = filesystem.split(' ');
            match filesystem.next()? {
                "cgroup" => Some(Hierarchy { mount: point, legacy: filesystem.nth(1) }),
                "cgroup2" => Some(Hierarchy { mount: point, legacy: None }),
                _ => None,
            }
        })
        .collect()
}

/// Moves this single-threaded process to the cgroup at `path`, which is made if need be.
fn enter(hierarchy: &Hierarchy<'_>, path: &str) -> io::Result<()> {
    let directory = format!("{}{path}", hierarchy.mount);
    fs::create_dir_all(&directory)?;
    match hierarchy.legacy {
        None => fs::write(format!("{directory}/cgroup.procs"), "0"),
        Some(controllers) => {
            if controllers.split(',').any(|controller| controller == "cpuset") {
                fill_cpuset(hierarchy.mount, path)?;
            }
            // `tasks` moves one thread and waits for nothing; `cgroup.procs` waits for a grace period.
            fs::write(format!("{directory}/tasks"), "0")
        }
    }
}

/// A new cpuset of version 1 is empty, and admits nobody until it has CPUs and memory: its parent's, all the way.
fn fill_cpuset(mount: &str, path: &str) -> io::Result<()> {
    let mut directory = mount.to_owned();
    let mut inherited: [String; 2] = Default::default();
    let files = ["cpuset.cpus", "cpuset.mems"];
    for part in std::iter::once("").chain(path.split('/').filter(|part| !part.is_empty())) {
        if !part.is_empty() {
            directory = format!("{directory}/{part}");
        }
        for (file, value) in files.iter().zip(&mut inherited) {
            let own = fs::read_to_string(format!("{directory}/{file}"))?;
            if own.trim().is_empty() {
                fs::write(format!("{directory}/{file}"), value.trim())?;
            } else {
                *value = own;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let text = "\
25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
36 35 0:31 / /sys/fs/cgroup/memory rw,relatime shared:16 - cgroup cgroup rw,memory
37 35 0:32 /some/where /partial rw - cgroup cgroup rw,cpu
38 35 0:33 / /sys/fs/cgroup/unified rw shared:10 master:3 - cgroup2 cgroup2 rw,nsdelegate
broken line
";
        // The super options come after the source, and their first word is `rw`.
        let found = hierarchies(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Hierarchy { mount: "/sys/fs/cgroup/memory", legacy: Some("rw,memory") });
        assert_eq!(found[1], Hierarchy { mount: "/sys/fs/cgroup/unified", legacy: None });
    }
}
