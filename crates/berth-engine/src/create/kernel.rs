//! What a request asks of the kernel beside plain limits: refused or discarded where the kernel cannot do it.

use std::fs;
use std::path::Path;

use berth_api::container::HostConfig;
use berth_runtime::capability;
use berth_runtime::cgroup::{Layout, Mode, Version};

use crate::Error;

/// What this host's kernel and cgroup hierarchies can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Real-time scheduling has limits of its own for each cgroup.
    pub real_time: bool,
    /// Shares of block devices can be weighed.
    pub block_weight: bool,
    /// Rates of block devices can be limited.
    pub block_limits: bool,
    /// How readily memory is swapped out can be set for each cgroup.
    pub swappiness: bool,
    /// The OOM killer can be kept from a cgroup.
    pub oom_kill_disable: bool,
    /// A policy of SELinux is loaded.
    pub selinux: bool,
}

impl Kernel {
    /// Looks at this process's hierarchies.
    pub fn current() -> Result<Kernel, Error> {
        let layout = Layout::current()?;
        let unified = layout.mode() == Mode::Unified;
        let hierarchy =
            |controller: &str| layout.find(controller).and_then(|index| layout.hierarchies.get(index));
        let file = |controller: &str, name: &str| {
            hierarchy(controller).is_some_and(|h| h.version == Version::V1 && h.mount.join(name).exists())
        };
        // The root of version 2 has none of these files, and having the controller means having them.
        let modern = hierarchy("blkio").is_some_and(|h| h.version == Version::V2);
        // The weight itself is a file of every group but the root.
        let weight = ["blkio.weight", "blkio.bfq.io_serviced"].iter().any(|name| file("blkio", name));
        Ok(Kernel {
            real_time: file("cpu", "cpu.rt_runtime_us"),
            block_weight: modern || weight,
            block_limits: modern || file("blkio", "blkio.throttle.read_bps_device"),
            swappiness: file("memory", "memory.swappiness"),
            oom_kill_disable: !unified && file("memory", "memory.oom_control"),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        })
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::InvalidParameter(text.into())
}

/// Refuses what this kernel lacks, in Docker's words; what Docker ignores with a warning is taken out of `host`.
pub fn validate(host: &mut HostConfig, kernel: Kernel, warnings: &mut Vec<String>) -> Result<(), Error> {
    let (period, runtime) = (host.cpu_realtime_period, host.cpu_realtime_runtime);
    if (period != 0 || runtime != 0) && !kernel.real_time {
        return Err(invalid("kernel does not support CPU real-time scheduler"));
    }
    if period != 0 && runtime != 0 && runtime > period {
        return Err(invalid("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    if host.io_maximum_bandwidth != 0 {
        return Err(invalid("invalid option: QoS maximum bandwidth configuration is not supported on linux"));
    }
    if host.io_maximum_iops != 0 {
        return Err(invalid("invalid option: QoS maximum IOPs configuration is not supported on linux"));
    }
    if !matches!(host.isolation.to_ascii_lowercase().as_str(), "" | "default") {
        return Err(invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    if host.annotations.iter().flatten().any(|(name, _)| name.is_empty()) {
        return Err(invalid("invalid Annotations: the empty string is not permitted as an annotation key"));
    }
    if host.cpu_percent > 0 {
        host.cpu_percent = 0;
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
    }
    block_devices(host, kernel, warnings);
    memory(host, kernel, warnings)?;
    if kernel.selinux && asks_for_a_label(host) {
        warnings.push("Berth does not set SELinux labels. Label discarded.".into());
    }
    nodes(host)?;
    capabilities(host)
}

/// Whether a label of its own is asked for, and not none.
fn asks_for_a_label(host: &HostConfig) -> bool {
    let labels = host.security_opt.iter().flatten().filter_map(|option| option.strip_prefix("label"));
    labels.filter_map(|option| option.strip_prefix(['=', ':'])).any(|label| label != "disable")
}

fn block_devices(host: &mut HostConfig, kernel: Kernel, warnings: &mut Vec<String>) {
    let mut discard = |what: &str, result: &str| {
        warnings.push(format!(
            "Your kernel does not support {what} or the cgroup is not mounted. {result} discarded."
        ));
    };
    if host.blkio_weight > 0 && !kernel.block_weight {
        host.blkio_weight = 0;
        discard("Block I/O weight", "Weight");
    }
    let some = |given: bool, supported: bool| given && !supported;
    if some(host.blkio_weight_device.as_ref().is_some_and(|l| !l.is_empty()), kernel.block_weight) {
        host.blkio_weight_device = None;
        discard("Block I/O weight_device", "Weight-device");
    }
    for (list, unit, way) in [
        (&mut host.blkio_device_read_bps, "BPS", "read"),
        (&mut host.blkio_device_write_bps, "BPS", "write"),
        (&mut host.blkio_device_read_iops, "IOPS", "read"),
        (&mut host.blkio_device_write_iops, "IOPS", "write"),
    ] {
        if some(list.as_ref().is_some_and(|l| !l.is_empty()), kernel.block_limits) {
            *list = None;
            discard(&format!("{unit} Block I/O {way} limit"), &format!("Block I/O {unit} {way} limit"));
        }
    }
}

fn memory(host: &mut HostConfig, kernel: Kernel, warnings: &mut Vec<String>) -> Result<(), Error> {
    // What clients send for "as the host's".
    host.memory_swappiness = host.memory_swappiness.filter(|swappiness| *swappiness != -1);
    if host.memory_swappiness.is_some() && !kernel.swappiness {
        host.memory_swappiness = None;
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
                .into(),
        );
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(0..=100).contains(&swappiness)
    {
        return Err(invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    if host.oom_kill_disable.is_some() && !kernel.oom_kill_disable {
        if host.oom_kill_disable == Some(true) {
            warnings
                .push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned());
        }
        host.oom_kill_disable = None;
    }
    Ok(())
}

/// Memory nodes that are not there. Their form has been checked.
fn nodes(host: &HostConfig) -> Result<(), Error> {
    if host.cpuset_mems.is_empty() {
        return Ok(());
    }
    // A kernel without NUMA has no such file, and one node.
    let online = fs::read_to_string("/sys/devices/system/node/online").unwrap_or_else(|_| "0".into());
    let (wanted, there) = (numbers(&host.cpuset_mems), numbers(online.trim()));
    if wanted.iter().all(|node| there.contains(node)) {
        return Ok(());
    }
    Err(invalid(format!(
        "Requested memory nodes are not available - requested {}, available: {}",
        host.cpuset_mems,
        online.trim()
    )))
}

/// The numbers of a list such as `0-2,7`; what is malformed is left out.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(8191))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Names that are no capability, or one that this engine does not have to give.
fn capabilities(host: &HostConfig) -> Result<(), Error> {
    for (field, list) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        for name in list.iter().flatten().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let Ok(found) = capability::parse(&full) else {
                return Err(invalid(format!("invalid {field}: unknown capability: \"{full}\"")));
            };
            if !held(capability::number(found)) {
                return Err(invalid(format!(
                    "invalid {field}: capability not supported by your kernel or not available in the current environment: \"{full}\""
                )));
            }
        }
    }
    Ok(())
}

/// Whether the capability with this number is in the engine's own bounding set.
fn held(number: u8) -> bool {
    let set = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
    rustix::thread::capability_is_in_bounding_set(set).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::ThrottleDevice;

    const NOTHING: Kernel = Kernel {
        real_time: false,
        block_weight: false,
        block_limits: false,
        swappiness: false,
        oom_kill_disable: false,
        selinux: false,
    };
    const ALL: Kernel = Kernel {
        real_time: true,
        block_weight: true,
        block_limits: true,
        swappiness: true,
        oom_kill_disable: true,
        selinux: true,
    };

    fn check(
        kernel: Kernel,
        change: impl FnOnce(&mut HostConfig),
    ) -> Result<(HostConfig, Vec<String>), String> {
        let mut host = HostConfig::default();
        change(&mut host);
        let mut warnings = Vec::new();
        validate(&mut host, kernel, &mut warnings).map_err(|error| error.to_string())?;
        Ok((host, warnings))
    }

    #[test]
    fn what_the_kernel_lacks_is_discarded_with_a_warning() {
        let wish = |host: &mut HostConfig| {
            host.blkio_weight = 300;
            host.blkio_device_read_bps = Some(vec![ThrottleDevice { path: "/dev/x".into(), rate: 1 }]);
            host.memory_swappiness = Some(5);
            host.oom_kill_disable = Some(true);
        };
        let (host, warnings) = check(NOTHING, wish).unwrap();
        assert_eq!((host.blkio_weight, host.memory_swappiness, host.oom_kill_disable), (0, None, None));
        assert!(host.blkio_device_read_bps.is_none());
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        assert_eq!(
            warnings[0],
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        );
        let (host, warnings) = check(ALL, wish).unwrap();
        assert_eq!((host.blkio_weight, warnings.len()), (300, 0));
    }

    #[test]
    fn labels_are_discarded_with_a_warning_where_they_mean_something() {
        for (kernel, option, count) in [
            (ALL, "label=type:spc_t", 1),
            (ALL, "label:level:s0:c1", 1),
            (ALL, "label=disable", 0),
            (ALL, "no-new-privileges", 0),
            (NOTHING, "label=type:spc_t", 0),
        ] {
            let (_, warnings) = check(kernel, |host| host.security_opt = Some(vec![option.into()])).unwrap();
            assert_eq!(warnings.len(), count, "{option}: {warnings:?}");
        }
    }

    #[test]
    fn real_time_needs_a_kernel_that_has_it() {
        let wish = |runtime| {
            move |host: &mut HostConfig| {
                (host.cpu_realtime_period, host.cpu_realtime_runtime) = (1000, runtime);
            }
        };
        assert_eq!(check(NOTHING, wish(5)).unwrap_err(), "kernel does not support CPU real-time scheduler");
        assert!(check(ALL, wish(1001)).unwrap_err().contains("cannot be higher"));
        assert!(check(ALL, wish(1000)).is_ok());
    }

    #[test]
    fn swappiness_of_the_host_is_none() {
        let (host, _) = check(ALL, |host| host.memory_swappiness = Some(-1)).unwrap();
        assert_eq!(host.memory_swappiness, None);
        assert!(check(ALL, |host| host.memory_swappiness = Some(101)).is_err());
        assert!(check(ALL, |host| host.memory_swappiness = Some(-2)).is_err());
    }

    #[test]
    fn foreign_settings_are_refused() {
        assert!(check(ALL, |host| host.isolation = "hyperv".into()).is_err());
        assert!(check(ALL, |host| host.isolation = "Default".into()).is_ok());
        assert!(check(ALL, |host| host.io_maximum_iops = 1).is_err());
        assert!(check(ALL, |host| host.cpuset_mems = "512".into()).unwrap_err().contains("memory nodes"));
    }

    #[test]
    fn capabilities_are_named_in_full() {
        let add = |name: &str| {
            let name = name.to_owned();
            check(ALL, move |host| host.cap_add = Some(vec![name]))
        };
        for good in ["chown", "CAP_CHOWN", "cap_chown", "ALL", "all"] {
            assert!(add(good).is_ok(), "{good}");
        }
        assert_eq!(add("fly").unwrap_err(), "invalid CapAdd: unknown capability: \"CAP_FLY\"");
        assert_eq!(add("CAP_ALL").unwrap_err(), "invalid CapAdd: unknown capability: \"CAP_ALL\"");
        let drop = check(ALL, |host| host.cap_drop = Some(vec!["x".into()])).unwrap_err();
        assert_eq!(drop, "invalid CapDrop: unknown capability: \"CAP_X\"");
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,7"), [0, 1, 2, 7]);
        assert_eq!(numbers(""), Vec::<usize>::new());
    }
}
