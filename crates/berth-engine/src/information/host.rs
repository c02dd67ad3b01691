//! What the host is, and what its kernel can limit.

use std::fs;
use std::path::{Path, PathBuf};

use berth_api::system::Info;
use berth_runtime::cgroup::{Layout, Mode, Version};
use berth_storage::Driver;

use crate::{ContainerDefaults, Error};

/// Which limits the mounted cgroup hierarchies can set.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits {
    unified: bool,
    memory: bool,
    swap: bool,
    oom_kill_disable: bool,
    cpu_shares: bool,
    cpu_period: bool,
    cpu_quota: bool,
    cpuset: bool,
    pids: bool,
}

impl Limits {
    /// Looks at this process's hierarchies.
    pub fn current() -> Result<Limits, Error> {
        Ok(Limits::of(Layout::current()?))
    }

    fn of(layout: &Layout) -> Limits {
        let unified = layout.mode() == Mode::Unified;
        // On version 1 the files are at the root of a hierarchy; on version 2 the root has none of them, and having
        // the controller means having them.
        let file = |controller: &str, legacy: &str| {
            layout.find(controller).and_then(|index| layout.hierarchies.get(index)).is_some_and(|hierarchy| {
                hierarchy.version == Version::V2 || hierarchy.mount.join(legacy).exists()
            })
        };
        Limits {
            unified,
            memory: file("memory", "memory.limit_in_bytes"),
            swap: if unified {
                swap_of_children(layout)
            } else {
                file("memory", "memory.memsw.limit_in_bytes")
            },
            oom_kill_disable: !unified && file("memory", "memory.oom_control"),
            cpu_shares: file("cpu", "cpu.shares"),
            cpu_period: file("cpu", "cpu.cfs_period_us"),
            cpu_quota: file("cpu", "cpu.cfs_quota_us"),
            cpuset: file("cpuset", "cpuset.cpus"),
            // The root of version 1 has no pids.max either.
            pids: layout.find("pids").is_some(),
        }
    }

    /// `1` or `2`; a hybrid host has its controllers on version 1.
    pub fn cgroup_version(&self) -> &'static str {
        if self.unified { "2" } else { "1" }
    }

    /// Fills in the fields, and warnings in Docker's words.
    pub fn describe(&self, info: &mut Info) {
        info.memory_limit = self.memory;
        info.swap_limit = self.swap;
        info.oom_kill_disable = self.oom_kill_disable;
        info.cpu_shares = self.cpu_shares;
        info.cpu_cfs_period = self.cpu_period;
        info.cpu_cfs_quota = self.cpu_quota;
        info.cpu_set = self.cpuset;
        info.pids_limit = self.pids;
        let missing = [
            (self.memory, "memory limit"),
            (self.swap || !self.memory, "swap limit"),
            (self.cpu_period, "cpu cfs period"),
            (self.cpu_quota, "cpu cfs quota"),
            (self.cpu_shares, "cpu shares"),
            (self.cpuset, "cpuset"),
            (self.pids, "pids limit"),
        ];
        let mut warnings: Vec<String> = missing
            .iter()
            .filter(|(there, _)| !there)
            .map(|(_, what)| format!("WARNING: No {what} support"))
            .collect();
        if !info.ipv4_forwarding {
            warnings.push("WARNING: IPv4 forwarding is disabled".into());
        }
        info.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    }
}

/// Why no container can be started, if its cgroup could not be made: inside a container without a cgroup namespace of
/// its own, cgroups are read-only (R8).
pub fn cgroup_problem() -> Option<String> {
    let layout = Layout::current().ok()?;
    let closed = layout.hierarchies.iter().find(|hierarchy| {
        rustix::fs::access(&hierarchy.mount, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS)
    })?;
    Some(format!(
        "cgroups are read-only ({}), so no container can be started; a container that is to start others needs \
         --privileged --cgroupns private",
        closed.mount.display()
    ))
}

/// Whether cgroups of version 2 have a limit of swap: the kernel may have it compiled or switched off.
fn swap_of_children(layout: &Layout) -> bool {
    let Some(hierarchy) = layout.unified().and_then(|index| layout.hierarchies.get(index)) else {
        return false;
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own: Option<PathBuf> = path.filter(|path| !path.is_empty()).map(|path| hierarchy.mount.join(path));
    let children = fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten().map(|entry| entry.path());
    own.into_iter().chain(children).any(|directory| directory.join("memory.swap.max").exists())
}

/// Name and version of the distribution (os-release(5)).
pub fn distribution() -> (String, String) {
    let text =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(path).ok());
    parse_distribution(&text.unwrap_or_default())
}

fn parse_distribution(text: &str) -> (String, String) {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let name = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".into());
    (name, value("VERSION_ID").unwrap_or_default())
}

/// Memory of the host in bytes.
pub fn memory_bytes() -> i64 {
    parse_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_memory(text: &str) -> i64 {
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// Whether the host forwards IPv4.
pub fn forwards_ipv4() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// Descriptors that this process has open.
pub fn open_descriptors() -> i64 {
    let count = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    // One of them is the directory that is being read.
    i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(1)
}

/// What protects the host from containers, in Docker's words.
pub fn security_options(defaults: &ContainerDefaults, apparmor: bool, remapped: bool) -> Vec<String> {
    let there = |path: &str| Path::new(path).exists();
    let mut options = Vec::new();
    if apparmor {
        options.push("name=apparmor".to_owned());
    }
    if there("/proc/sys/kernel/seccomp/actions_avail") {
        options.push(format!("name=seccomp,profile={}", defaults.seccomp.name()));
    }
    if remapped {
        options.push("name=userns".to_owned());
    }
    if defaults.cgroupns_mode == "private" && there("/proc/self/ns/cgroup") {
        options.push("name=cgroupns".to_owned());
    }
    if defaults.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    options
}

/// What there is to say about the storage below the data root; as with Docker, nothing of whole copies.
pub fn storage_status(driver: Driver, data_root: &Path) -> Vec<[String; 2]> {
    if driver == Driver::Copy {
        return Vec::new();
    }
    let pair = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let file_system = rustix::fs::statfs(data_root).map_or("unknown", |found| file_system(found.f_type));
    vec![
        pair("Backing Filesystem", file_system),
        pair("Supports d_type", "true"),
        pair("Using metacopy", "false"),
        pair("userxattr", "false"),
    ]
}

/// Docker's name of a file system, by its number (statfs(2)).
#[expect(clippy::allow_attributes, reason = "the number's type differs between targets")]
#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the number's type differs between targets"
)]
fn file_system(magic: rustix::fs::FsWord) -> &'static str {
    match magic as u64 & 0xffff_ffff {
        0x0000_ef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_read() {
        let text =
            "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID='13'\n";
        assert_eq!(parse_distribution(text), ("Debian GNU/Linux 13 (trixie)".into(), "13".into()));
        assert_eq!(parse_distribution("PRETTY_NAME=\n"), ("Linux".into(), String::new()));
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(parse_memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2048 * 1024);
        assert_eq!(parse_memory("nothing"), 0);
        assert!(memory_bytes() > 0 && open_descriptors() > 2);
    }

    #[test]
    fn what_is_missing_is_warned_about() {
        let mut info = Info { ipv4_forwarding: true, ..Info::default() };
        Limits { memory: true, swap: false, ..Limits::default() }.describe(&mut info);
        let warnings = info.warnings.unwrap();
        assert!(warnings.contains(&"WARNING: No swap limit support".to_owned()), "{warnings:?}");
        assert!(!warnings.iter().any(|warning| warning.contains("memory limit")));
        let mut info = Info { ipv4_forwarding: true, ..Info::default() };
        let all = Limits {
            unified: true,
            memory: true,
            swap: true,
            oom_kill_disable: false,
            cpu_shares: true,
            cpu_period: true,
            cpu_quota: true,
            cpuset: true,
            pids: true,
        };
        all.describe(&mut info);
        assert_eq!((info.warnings, all.cgroup_version()), (None, "2"));
    }

    #[test]
    fn this_host_has_a_known_layout() {
        assert!(matches!(Limits::current().unwrap().cgroup_version(), "1" | "2"));
    }
}
