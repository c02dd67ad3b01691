//! What Docker gives every container: mounts, devices, masked and read-only paths, kernel parameters, namespaces.
//!
//! The engine composes a configuration from these pieces; [`spec`] is the whole default.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceType, Mount, Process, Root, Spec, User,
};

use crate::capability;

/// `PATH` of a container whose image sets none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths hidden behind an empty file or directory, beside those of [`masked_paths`] that depend on the machine.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths hidden beyond Docker's list, which clients see and compare, from containers that have that list:
/// the pressure of the whole host tells one container of the others.
pub const MASKED_BESIDE: [&str; 1] = ["/proc/pressure"];

/// Paths that are bound read-only onto themselves.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Kernel parameters of a container with its own network namespace: unprivileged programs may use low ports and `ping`.
pub const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Size of `/dev/shm` in bytes.
pub const SHM_BYTES: u64 = 64 << 20;

/// [`MASKED_PATHS`], and the processors' counters of thermal throttling, as far as this machine has them: with
/// them a container can watch what others do.
pub fn masked_paths() -> Vec<String> {
    static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut paths: Vec<String> = MASKED_PATHS.iter().map(|path| (*path).to_owned()).collect();
        paths.extend(throttle_counters(Path::new("/sys/devices/system/cpu")));
        paths
    });
    PATHS.clone()
}

/// `cpu<number>/thermal_throttle` beneath a directory, in the order of their numbers.
fn throttle_counters(directory: &Path) -> Vec<String> {
    let mut found: Vec<(u32, String)> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            let path = entry.path().join("thermal_throttle");
            path.exists().then(|| (number, path.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, path)| path).collect()
}

/// A container's masked paths with those of [`MASKED_BESIDE`], if its list has everything that Docker's has: who
/// chose another list gets exactly that.
pub fn with_masked_beside(mut paths: Vec<String>) -> Vec<String> {
    let defaults = MASKED_PATHS.iter().all(|default| paths.iter().any(|path| path == default));
    if defaults {
        let missing = MASKED_BESIDE.iter().filter(|path| !paths.iter().any(|have| have == *path));
        let missing: Vec<String> = missing.map(|path| (*path).to_owned()).collect();
        paths.extend(missing);
    }
    paths
}

/// [`READONLY_PATHS`], owned.
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect()
}

/// [`SYSCTLS`], owned.
pub fn sysctls() -> HashMap<String, String> {
    SYSCTLS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A mount with its destination, type, source and options.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(destination));
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// `/proc`, `/dev`, `/dev/pts`, `/sys`, `/sys/fs/cgroup`, `/dev/mqueue` and `/dev/shm`, in that order.
///
/// A privileged container has `/sys` and `/sys/fs/cgroup` writable.
pub fn mounts(privileged: bool, shm_bytes: u64) -> Vec<Mount> {
    let access = if privileged { "rw" } else { "ro" };
    let shm_size = format!("size={shm_bytes}");
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[access, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ]
}

/// The device nodes that every container has: path, major, minor. All are character devices with mode 0666.
pub const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// [`DEVICES`] in the configuration's form. The runtime makes them in any case.
pub fn devices() -> Vec<LinuxDevice> {
    DEVICES
        .iter()
        .map(|(path, major, minor)| {
            let mut device = LinuxDevice::default();
            device
                .set_path(PathBuf::from(path))
                .set_typ(LinuxDeviceType::C)
                .set_major(i64::from(*major))
                .set_minor(i64::from(*minor))
                .set_file_mode(Some(0o666))
                .set_uid(Some(0))
                .set_gid(Some(0));
            device
        })
        .collect()
}

/// Rules of the device controller: nothing but the nodes above, pseudo-terminals, and making nodes of any kind.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, typ, major, minor, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow)
            .set_typ(typ)
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        rule
    };
    let character = Some(LinuxDeviceType::C);
    let mut rules = vec![
        rule(false, None, None, None, "rwm"),
        rule(true, character, None, None, "m"),
        rule(true, Some(LinuxDeviceType::B), None, None, "m"),
        rule(true, character, Some(136), None, "rwm"),
        rule(true, character, Some(5), Some(1), "rwm"),
        rule(true, character, Some(5), Some(2), "rwm"),
    ];
    rules.extend(DEVICES.iter().map(|(_, major, minor)| {
        rule(true, character, Some(i64::from(*major)), Some(i64::from(*minor)), "rwm")
    }));
    rules
}

/// New namespaces of the kinds named.
pub fn namespaces(kinds: &[LinuxNamespaceType]) -> Vec<LinuxNamespace> {
    kinds
        .iter()
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(*kind).set_path(None);
            namespace
        })
        .collect()
}

/// The kinds of namespace that a container has of its own by default.
pub const NAMESPACES: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Cgroup,
];

/// Bounding, permitted and effective sets; inheritable and ambient stay empty, as in Docker.
pub fn capabilities(set: &[Capability]) -> LinuxCapabilities {
    let set: HashSet<Capability> = set.iter().copied().collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_permitted(Some(set.clone()))
        .set_effective(Some(set))
        .set_inheritable(Some(HashSet::new()))
        .set_ambient(Some(HashSet::new()));
    capabilities
}

/// Docker's default configuration for `args`, as root, with no seccomp filter and no resources.
pub fn spec(args: &[&str]) -> Spec {
    let mut process = Process::default();
    process
        .set_args(Some(args.iter().map(|argument| (*argument).to_owned()).collect()))
        .set_env(Some(vec![PATH.to_owned()]))
        .set_cwd(PathBuf::from("/"))
        .set_user(User::default())
        .set_rlimits(None)
        .set_no_new_privileges(Some(false))
        .set_capabilities(Some(capabilities(&capability::DEFAULT)));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(&NAMESPACES)))
        .set_masked_paths(Some(masked_paths()))
        .set_readonly_paths(Some(readonly_paths()))
        .set_sysctl(Some(sysctls()))
        .set_devices(None)
        .set_resources(None);
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(false));
    let mut spec = Spec::default();
    spec.set_process(Some(process))
        .set_linux(Some(linux))
        .set_root(Some(root))
        .set_hostname(None)
        .set_mounts(Some(mounts(false, SHM_BYTES)));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_dockers_masked_paths_gets_more() {
        let more = with_masked_beside(masked_paths());
        assert_eq!(more.len(), masked_paths().len() + 1);
        assert!(more.iter().any(|path| path == "/proc/pressure"));
        assert_eq!(with_masked_beside(more.clone()), more);
        let chosen = vec!["/proc/kcore".to_owned()];
        assert_eq!(with_masked_beside(chosen.clone()), chosen);
        assert!(with_masked_beside(Vec::new()).is_empty());
    }

    #[test]
    fn counters_of_throttling_are_found_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            ["cpu10/thermal_throttle", "cpu2/thermal_throttle", "cpu3/cache", "cpufreq/thermal_throttle"]
        {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let found = throttle_counters(directory.path());
        let names: Vec<&str> = found.iter().map(|path| path.rsplit('/').nth(1).unwrap()).collect();
        assert_eq!(names, ["cpu2", "cpu10"]);
    }

    #[test]
    fn the_default_round_trips_and_has_no_inheritable_capability() {
        let spec = spec(&["true"]);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
        let process = spec.process().as_ref().unwrap();
        let inheritable = process.capabilities().as_ref().unwrap().inheritable();
        assert!(inheritable.as_ref().unwrap().is_empty());
    }

    #[test]
    fn the_device_rules_begin_with_a_refusal_of_everything() {
        let rules = device_rules();
        assert!(!rules[0].allow() && rules[0].typ().is_none());
        assert!(rules[1..].iter().all(LinuxDeviceCgroup::allow));
    }
}
