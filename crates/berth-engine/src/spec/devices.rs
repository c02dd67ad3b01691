//! Devices of a container beyond the default ones, and the rules that let it use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_api::container::HostConfig;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use rustix::fs::{major, minor};

use super::{invalid, spec_error};
use crate::Error;

/// Directories below `/dev` that hold no devices of the host for a container: its own come there.
const SKIPPED: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
/// Deeper than any real `/dev`.
const MAX_DEPTH: usize = 8;

/// The devices that a container asks for, with their rules. The default devices are not among them.
pub fn devices(host: &HostConfig) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    if host.privileged {
        let mut found = Vec::new();
        walk(Path::new("/dev"), MAX_DEPTH, &mut found);
        return Ok((found, vec![rule(LinuxDeviceType::A, None, None, "rwm")?]));
    }
    let mut rules = Vec::new();
    let mut found = Vec::new();
    for mapping in host.devices.iter().flatten() {
        let inside = match mapping.path_in_container.as_str() {
            "" => &mapping.path_on_host,
            path => path,
        };
        let access = match mapping.cgroup_permissions.as_str() {
            "" => "rwm",
            access if is_access(access) => access,
            access => return Err(invalid(format!("invalid device mode: {access}"))),
        };
        let missing = || {
            invalid(format!(
                "error gathering device information while adding custom device \"{0}\": no such file or directory",
                mapping.path_on_host
            ))
        };
        let status = fs::metadata(&mapping.path_on_host).map_err(|_| missing())?;
        let mut nodes = Vec::new();
        if status.is_dir() {
            walk(Path::new(&mapping.path_on_host), MAX_DEPTH, &mut nodes);
            for node in &mut nodes {
                let below = node.path().strip_prefix(&mapping.path_on_host).map(Path::to_owned);
                node.set_path(Path::new(inside).join(below.unwrap_or_default()));
            }
        } else {
            nodes.extend(node(PathBuf::from(inside), &status));
        }
        if nodes.is_empty() {
            return Err(invalid(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                mapping.path_on_host
            )));
        }
        for node in &nodes {
            rules.push(rule(node.typ(), Some(node.major()), Some(node.minor()), access)?);
        }
        found.extend(nodes);
    }
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(parse_rule(text)?);
    }
    Ok((found, rules))
}

/// Whether a text names kinds of access: any of `rwm`.
pub(super) fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// A rule that allows `access`.
pub(super) fn rule(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, Error> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build().map_err(spec_error)
}

/// `c 13:* rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, Error> {
    let refuse = || invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(refuse());
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(refuse()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(refuse)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| refuse()),
    };
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(refuse());
    }
    rule(kind, number(major)?, number(minor)?, access)
}

/// Collects device nodes; what vanishes or cannot be read meanwhile is left out.
fn walk(directory: &Path, depth: usize, found: &mut Vec<LinuxDevice>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(status) = entry.metadata() else { continue };
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        if status.is_dir() && depth > 0 {
            walk(&entry.path(), depth - 1, found);
        } else {
            found.extend(node(entry.path(), &status));
        }
    }
}

/// The node of a device of the host, at `path` in the container; `None` if it is no device.
pub(super) fn node(path: PathBuf, status: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = match status.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(i64::from(major(status.rdev())))
        .minor(i64::from(minor(status.rdev())))
        .file_mode(status.mode() & 0o7777)
        .uid(status.uid())
        .gid(status.gid())
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::DeviceMapping;

    fn mapped(on_host: &str, inside: &str, access: &str) -> HostConfig {
        let mapping = DeviceMapping {
            path_on_host: on_host.into(),
            path_in_container: inside.into(),
            cgroup_permissions: access.into(),
        };
        HostConfig { devices: Some(vec![mapping]), ..Default::default() }
    }

    #[test]
    fn a_device_is_mapped_with_its_rule() {
        let (nodes, rules) = devices(&mapped("/dev/null", "/dev/nothing", "rw")).unwrap();
        assert_eq!(nodes[0].path(), Path::new("/dev/nothing"));
        assert_eq!((nodes[0].major(), nodes[0].minor()), (1, 3));
        assert_eq!((rules[0].major(), rules[0].minor()), (Some(1), Some(3)));
        assert_eq!(rules[0].access().as_deref(), Some("rw"));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (path, access) in [("/dev/not-there", ""), ("/etc/passwd", ""), ("/dev/null", "x")] {
            assert!(matches!(devices(&mapped(path, "", access)), Err(Error::InvalidParameter(_))), "{path}");
        }
    }

    #[test]
    fn rules_read() {
        let found = parse_rule("c 13:* rwm").unwrap();
        assert_eq!((found.major(), found.minor(), found.allow()), (Some(13), None, true));
        for bad in ["", "c", "c 1:3", "x 1:3 r", "c 13 r", "c a:3 r", "c 1:3 rx", "c 1:3 r more", "c 1:3 "] {
            let text = parse_rule(bad).unwrap_err().to_string();
            assert_eq!(text, format!("invalid device cgroup rule format: '{bad}'"));
        }
    }

    #[test]
    fn privileged_takes_all() {
        let (nodes, rules) = devices(&HostConfig { privileged: true, ..Default::default() }).unwrap();
        assert!(nodes.iter().any(|node| node.path() == Path::new("/dev/null")));
        assert!(!nodes.iter().any(|node| node.path().starts_with("/dev/pts")));
        assert_eq!(rules.len(), 1);
    }
}
