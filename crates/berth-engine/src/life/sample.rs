//! One sample of what a container uses: from the kernel's figures to the API's, as dockerd fills them in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_api::container::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use berth_api::time::Time;
use berth_runtime::cgroup::{self, IoEntry, Manager, Mode};

use crate::Error;

/// The kind of system that figures come from.
pub const OS_TYPE: &str = "linux";

/// Nanoseconds in a tick of `/proc/stat`: a hundred ticks a second, on every architecture.
const TICK: u64 = 10_000_000;

/// Keys of `memory.stat` that are shown on version 1.
const LEGACY_MEMORY: [&str; 32] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "total_cache",
    "total_rss",
    "total_rss_huge",
    "total_mapped_file",
    "total_dirty",
    "total_writeback",
    "total_pgpgin",
    "total_pgpgout",
    "total_pgfault",
    "total_pgmajfault",
    "total_inactive_anon",
    "total_active_anon",
    "total_inactive_file",
    "total_active_file",
    "total_unevictable",
];

/// The same on version 2.
const UNIFIED_MEMORY: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

/// Reads a running container's figures, without its ID and name; those of the network if `pid`, its init, is given.
/// Blocks.
pub fn take(cgroup: &Manager, pid: Option<i32>) -> Result<Stats, Error> {
    let found = cgroup.stats()?;
    let read = Time::now();
    let io = |source| Error::Io { operation: "read /proc/stat".into(), source };
    // Right after the container's own: the two are compared with each other.
    let (system, cpus) = host_cpu(&fs::read_to_string("/proc/stat").map_err(io)?);
    let unified = cgroup.mode() == Mode::Unified;
    let machine = u64::try_from(crate::information::memory_bytes()).unwrap_or(0);
    Ok(Stats {
        os_type: OS_TYPE.into(),
        read,
        pids_stats: pids(found.pids, unified),
        blkio_stats: block_io(found.io_entries, unified),
        cpu_stats: CpuStats { system_cpu_usage: Some(system), online_cpus: Some(cpus), ..cpu(found.cpu) },
        memory_stats: memory(&found.memory, unified, machine),
        networks: pid.and_then(networks),
        ..Stats::default()
    })
}

/// Go leaves out numbers that are zero in most places.
fn nonzero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
}

fn pids(found: cgroup::PidsStats, unified: bool) -> PidsStats {
    // Without a limit Docker shows the largest number on version 2, and none on version 1.
    let unlimited = unified.then_some(u64::MAX).filter(|_| found.current != 0);
    PidsStats { current: nonzero(found.current), limit: found.limit.or(unlimited) }
}

fn cpu(found: cgroup::CpuStats) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: found.total,
            percpu_usage: Some(found.per_cpu).filter(|list| !list.is_empty()),
            usage_in_kernelmode: found.system,
            usage_in_usermode: found.user,
        },
        throttling_data: ThrottlingData {
            periods: found.periods,
            throttled_periods: found.throttled_periods,
            throttled_time: found.throttled,
        },
        ..CpuStats::default()
    }
}

/// `machine` is the host's memory, which is the limit of what has none.
fn memory(found: &cgroup::MemoryStats, unified: bool, machine: u64) -> MemoryStats {
    if found.details.is_empty() {
        // There is no controller for memory.
        return MemoryStats::default();
    }
    let keys: &[&str] = if unified { &UNIFIED_MEMORY } else { &LEGACY_MEMORY };
    let value = |key: &str| found.details.get(key).copied().unwrap_or(0);
    let limit = found.limit.unwrap_or(u64::MAX);
    MemoryStats {
        usage: nonzero(found.usage),
        max_usage: if unified { None } else { found.peak.and_then(nonzero) },
        stats: Some(keys.iter().map(|key| ((*key).to_owned(), value(key))).collect()),
        failcnt: nonzero(if unified { found.oom_events } else { found.failures }),
        limit: Some(if machine > 0 { limit.min(machine) } else { limit }),
    }
}

fn block_io(found: cgroup::IoEntries, unified: bool) -> BlkioStats {
    let entry = |e: IoEntry| BlkioEntry { major: e.major, minor: e.minor, op: e.operation, value: e.value };
    let list = |entries: Vec<IoEntry>| entries.into_iter().map(entry).collect::<Vec<_>>();
    if unified {
        let bytes = Some(list(found.bytes)).filter(|bytes| !bytes.is_empty());
        return BlkioStats { io_service_bytes_recursive: bytes, ..BlkioStats::default() };
    }
    // The other counters are those of a scheduler that kernels no longer have.
    let none = || Some(Vec::new());
    BlkioStats {
        io_service_bytes_recursive: Some(list(found.bytes)),
        io_serviced_recursive: Some(list(found.operations)),
        io_queue_recursive: none(),
        io_service_time_recursive: none(),
        io_wait_time_recursive: none(),
        io_merged_recursive: none(),
        io_time_recursive: none(),
        sectors_recursive: none(),
    }
}

/// The host's CPU time in nanoseconds, without that of guests, which is part of the others; and its CPUs.
fn host_cpu(text: &str) -> (u64, u32) {
    let (mut ticks, mut cpus) = (0_u64, 0);
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        match line.strip_prefix("cpu ") {
            Some(numbers) => {
                ticks = numbers.split_whitespace().take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
            }
            None => cpus += 1,
        }
    }
    (ticks.saturating_mul(TICK), cpus)
}

/// Traffic of a process's network namespace; none for the host's own, which is not the container's.
fn networks(pid: i32) -> Option<BTreeMap<String, NetworkStats>> {
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|m| m.ino()).ok();
    let process = pid.to_string();
    if namespace(&process)? == namespace("self")? {
        return None;
    }
    let found = interfaces(&fs::read_to_string(format!("/proc/{process}/net/dev")).ok()?);
    Some(found).filter(|found| !found.is_empty())
}

/// Devices that the kernel puts into every namespace by itself.
fn is_built_in(name: &str) -> bool {
    let built_in =
        ["lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"];
    built_in.contains(&name)
}

/// Reads `/proc/net/dev`: two lines of headings, then a line for each interface with eight figures of what came and
/// eight of what went.
fn interfaces(text: &str) -> BTreeMap<String, NetworkStats> {
    let one = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = figures[..]
        else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    text.lines().filter_map(one).filter(|(name, _)| !is_built_in(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries() -> cgroup::IoEntries {
        let entry =
            |operation: &str, value| IoEntry { major: 8, minor: 1, operation: operation.into(), value };
        cgroup::IoEntries { bytes: vec![entry("Read", 5)], operations: vec![entry("Read", 1)] }
    }

    #[test]
    fn block_io_looks_as_in_docker() {
        let legacy = serde_json::to_value(block_io(entries(), false)).unwrap();
        assert_eq!(
            legacy["io_service_bytes_recursive"],
            json!([{"major": 8, "minor": 1, "op": "Read", "value": 5}])
        );
        assert_eq!((&legacy["io_queue_recursive"], &legacy["sectors_recursive"]), (&json!([]), &json!([])));
        let unified = serde_json::to_value(block_io(entries(), true)).unwrap();
        assert_eq!(unified["io_service_bytes_recursive"][0]["value"], 5);
        assert_eq!(unified["io_serviced_recursive"], json!(null), "version 2 has bytes alone");
        let nothing = serde_json::to_value(block_io(cgroup::IoEntries::default(), true)).unwrap();
        assert_eq!(nothing["io_service_bytes_recursive"], json!(null));
    }

    #[test]
    fn memory_without_a_limit_has_the_hosts() {
        let details = |key: &str| BTreeMap::from([(key.to_owned(), 3), ("something_new".to_owned(), 4)]);
        let found = cgroup::MemoryStats {
            usage: 10,
            peak: Some(20),
            failures: 7,
            oom_events: 2,
            details: details("total_inactive_file"),
            ..Default::default()
        };
        let legacy = memory(&found, false, 1000);
        assert_eq!((legacy.usage, legacy.max_usage, legacy.limit), (Some(10), Some(20), Some(1000)));
        assert_eq!(legacy.failcnt, Some(7));
        let stats = legacy.stats.unwrap();
        assert_eq!((stats.len(), stats["total_inactive_file"], stats["cache"]), (32, 3, 0));
        let limited = cgroup::MemoryStats { limit: Some(500), details: details("inactive_file"), ..found };
        let unified = memory(&limited, true, 1000);
        assert_eq!((unified.max_usage, unified.failcnt, unified.limit), (None, Some(2), Some(500)));
        let stats = unified.stats.unwrap();
        assert_eq!((stats.len(), stats["inactive_file"], stats.get("something_new")), (31, 3, None));
        let absent = memory(&cgroup::MemoryStats::default(), true, 1000);
        assert_eq!(serde_json::to_value(absent).unwrap(), json!({}));
    }

    #[test]
    fn an_unlimited_number_of_processes_differs_by_version() {
        let found = cgroup::PidsStats { current: 2, limit: None };
        assert_eq!(pids(found, false), PidsStats { current: Some(2), limit: None });
        assert_eq!(pids(found, true).limit, Some(u64::MAX));
        assert_eq!(pids(cgroup::PidsStats { limit: Some(5), ..found }, true).limit, Some(5));
        assert_eq!(pids(cgroup::PidsStats::default(), true), PidsStats::default());
    }

    #[test]
    fn the_hosts_time_is_counted_once() {
        let text = "cpu  1 2 3 4 5 6 7 100 200 300\ncpu0 1 2 3\ncpu1 0 0 0\nintr 5\ncpu9 0\n";
        assert_eq!(host_cpu(text), (28 * TICK, 2));
        assert_eq!(host_cpu(""), (0, 0));
        let (time, cpus) = host_cpu(&fs::read_to_string("/proc/stat").unwrap());
        assert!(time > 0 && cpus > 0);
    }

    #[test]
    fn interfaces_are_told_apart() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1006      13    1    2    0     0          0         0      126       3    4    5    0     0       0          0
 tunl0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth1: 5 short
";
        let found = interfaces(text);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["eth0"]);
        let expected = NetworkStats {
            rx_bytes: 1006,
            rx_packets: 13,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 126,
            tx_packets: 3,
            tx_errors: 4,
            tx_dropped: 5,
        };
        assert_eq!(found["eth0"], expected);
        assert_eq!(networks(std::process::id() as i32), None, "the host's own namespace is not shown");
        assert_eq!(networks(i32::MAX), None);
    }
}
