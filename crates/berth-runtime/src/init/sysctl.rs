//! Kernel parameters of the container's namespaces (sysctl(8)).

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use berth_sys::mount::{self, PROC_MAGIC};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::launch::error::{Context, Stage, StartError};

/// Writes the parameters through the container's own procfs (R5).
pub(super) fn write(proc: BorrowedFd<'_>, parameters: &HashMap<String, String>) -> Result<(), StartError> {
    mount::verify_magic(proc, PROC_MAGIC).context(Stage::Sysctl, || "write kernel parameters")?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for (key, value) in parameters {
        let path = path(key);
        let what = || format!("write sysctl key {key}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat2(proc, &path, flags, Mode::empty(), resolve).context(Stage::Sysctl, what)?;
        rustix::io::write(&file, value.as_bytes()).context(Stage::Sysctl, what)?;
    }
    Ok(())
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
