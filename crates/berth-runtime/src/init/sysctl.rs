//! Kernel parameters of the container's namespaces (sysctl(8)).

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::mount::{self, PROC_MAGIC};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::launch::error::{Context, Stage, StartError};

/// No other file system, and nothing outside.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Writes the parameters through the container's own procfs (R5).
pub(super) fn write(proc: BorrowedFd<'_>, parameters: &HashMap<String, String>) -> Result<(), StartError> {
    mount::verify_magic(proc, PROC_MAGIC).context(Stage::Sysctl, || "write kernel parameters")?;
    for (key, value) in parameters {
        let path = path(key);
        let what = || format!("write sysctl key {key}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat2(proc, &path, flags, Mode::empty(), BENEATH).context(Stage::Sysctl, what)?;
        rustix::io::write(&file, value.as_bytes()).context(Stage::Sysctl, what)?;
    }
    Ok(())
}

/// The directory of the network namespace's parameters, to be used when `/proc/sys` may be read-only already.
pub(super) fn of_network(proc: BorrowedFd<'_>) -> Result<OwnedFd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let what = || "open the network's kernel parameters";
    mount::verify_magic(proc, PROC_MAGIC).context(Stage::Sysctl, what)?;
    rustix::fs::openat2(proc, "sys/net", flags, Mode::empty(), BENEATH).context(Stage::Sysctl, what)
}

/// Writes a parameter at a path below [`of_network`]'s directory.
pub(super) fn write_beneath(net: BorrowedFd<'_>, path: &str, value: &str) -> Result<(), StartError> {
    let what = || format!("write sysctl key net/{path}");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(net, path, flags, Mode::empty(), BENEATH).context(Stage::Sysctl, what)?;
    rustix::io::write(&file, value.as_bytes()).context(Stage::Sysctl, what)?;
    Ok(())
}

/// Whether there is such a parameter below [`of_network`]'s directory.
pub(super) fn exists_beneath(net: BorrowedFd<'_>, path: &str) -> bool {
    rustix::fs::openat2(net, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH).is_ok()
}

/// The file of a key below the procfs. As in sysctl(8), the separator is whichever of `.` and `/` comes first, and the
/// other stands for itself, exchanged.
fn path(key: &str) -> PathBuf {
    let slashes = key.find('/');
    let dots = key.find('.');
    let by_slash = slashes.is_some_and(|slash| dots.is_none_or(|dot| slash < dot));
    let path: String = if by_slash {
        key.to_owned()
    } else {
        key.chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    PathBuf::from("sys").join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_understood() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("sys/net/ipv4/ip_forward"));
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding"),
            PathBuf::from("sys/net/ipv4/conf/eth0.1/forwarding")
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.forwarding"),
            PathBuf::from("sys/net/ipv4/conf/eth0.1/forwarding")
        );
    }
}
