//! What a cgroup has used.

use std::collections::BTreeMap;

use super::directory::{Directory, value_of};
use super::error::Result;
use super::io_entries::IoEntries;
use super::layout::Version;

/// Usage of one cgroup with all below it. A controller that is missing leaves zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block I/O, by device.
    pub io: Vec<IoStats>,
    /// The same as the kernel lists it.
    pub io_entries: IoEntries,
}

/// CPU time in nanoseconds since the cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By CPU; empty on version 2, which does not tell.
    pub per_cpu: Vec<u64>,
    /// Periods in which the cgroup wanted to run.
    pub periods: u64,
    /// Periods in which it reached its quota.
    pub throttled_periods: u64,
    /// Time it was held back.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Charged now, the page cache included.
    pub usage: u64,
    /// The most that was charged; version 2 knows it since Linux 5.19.
    pub peak: Option<u64>,
    /// The limit, if there is one.
    pub limit: Option<u64>,
    /// Swap used now, without memory.
    pub swap: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// How often an allocation failed for want of memory; version 2 only.
    pub oom_events: u64,
    /// The lines of `memory.stat`, whose names differ between the versions.
    pub details: BTreeMap<String, u64>,
}

/// Number of processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// The limit, if there is one.
    pub limit: Option<u64>,
}

/// Block I/O of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Discard operations.
    pub discards: u64,
}

/// Version 1 has no word for "no limit": it shows the largest multiple of the page size.
const V1_UNLIMITED: u64 = i64::MAX as u64 - (1 << 20);

/// CPU usage. In version 1 `accounting` is the directory of cpuacct, and `cpu` that of the scheduler.
pub(super) fn cpu(cpu: Option<&Directory>, accounting: Option<&Directory>) -> Result<CpuStats> {
    let mut stats = CpuStats::default();
    if let Some(directory) = cpu {
        let text = directory.read_if_present("cpu.stat")?.unwrap_or_default();
        let value = |key| value_of(&text, key).unwrap_or(0);
        stats.periods = value("nr_periods");
        stats.throttled_periods = value("nr_throttled");
        stats.throttled = match directory.version {
            Version::V1 => value("throttled_time"),
            Version::V2 => value("throttled_usec") * 1000,
        };
    }
    let Some(directory) = accounting else { return Ok(stats) };
    match directory.version {
        Version::V1 => {
            let number =
                |file| Ok(directory.read_if_present(file)?.and_then(|text| text.parse().ok()).unwrap_or(0));
            stats.total = number("cpuacct.usage")?;
            stats.user = number("cpuacct.usage_user")?;
            stats.system = number("cpuacct.usage_sys")?;
            let by_cpu = directory.read_if_present("cpuacct.usage_percpu")?.unwrap_or_default();
            stats.per_cpu = by_cpu.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        }
        Version::V2 => {
            let text = directory.read_if_present("cpu.stat")?.unwrap_or_default();
            let value = |key| value_of(&text, key).unwrap_or(0) * 1000;
            (stats.total, stats.user, stats.system) =
                (value("usage_usec"), value("user_usec"), value("system_usec"));
        }
    }
    Ok(stats)
}

/// Memory usage.
pub(super) fn memory(directory: &Directory) -> Result<MemoryStats> {
    let number = |file| number(directory, file);
    let details = directory.read_if_present("memory.stat")?.unwrap_or_default();
    let details = details
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect();
    Ok(match directory.version {
        Version::V1 => {
            let usage = number("memory.usage_in_bytes")?.unwrap_or(0);
            MemoryStats {
                usage,
                peak: number("memory.max_usage_in_bytes")?,
                limit: number("memory.limit_in_bytes")?.filter(|&limit| limit < V1_UNLIMITED),
                swap: number("memory.memsw.usage_in_bytes")?.unwrap_or(0).saturating_sub(usage),
                failures: number("memory.failcnt")?.unwrap_or(0),
                oom_events: 0,
                details,
            }
        }
        Version::V2 => {
            let events = directory.read_if_present("memory.events")?.unwrap_or_default();
            MemoryStats {
                usage: number("memory.current")?.unwrap_or(0),
                peak: number("memory.peak")?,
                limit: number("memory.max")?,
                swap: number("memory.swap.current")?.unwrap_or(0),
                failures: value_of(&events, "max").unwrap_or(0),
                oom_events: value_of(&events, "oom").unwrap_or(0),
                details,
            }
        }
    })
}

/// Number of tasks.
pub(super) fn pids(directory: &Directory) -> Result<PidsStats> {
    Ok(PidsStats {
        current: number(directory, "pids.current")?.unwrap_or(0),
        limit: number(directory, "pids.max")?,
    })
}

/// A file with one number; none for `max` and for a missing file.
fn number(directory: &Directory, file: &str) -> Result<Option<u64>> {
    Ok(directory.read_if_present(file)?.and_then(|text| text.parse().ok()))
}

/// Block I/O.
pub(super) fn io(directory: &Directory) -> Result<Vec<IoStats>> {
    let read = |file| Ok(directory.read_if_present(file)?.unwrap_or_default());
    let mut devices = BTreeMap::new();
    match directory.version {
        Version::V1 => {
            for (file, bytes) in [
                ("blkio.throttle.io_service_bytes_recursive", true),
                ("blkio.throttle.io_serviced_recursive", false),
            ] {
                add_v1(&mut devices, &read(file)?, bytes);
            }
        }
        Version::V2 => add_v2(&mut devices, &read("io.stat")?),
    }
    Ok(devices.into_values().collect())
}

type Devices = BTreeMap<(u32, u32), IoStats>;

fn device<'a>(devices: &'a mut Devices, number: &str) -> Option<&'a mut IoStats> {
    let (major, minor) = number.split_once(':')?;
    let key = (major.parse().ok()?, minor.parse().ok()?);
    Some(devices.entry(key).or_insert(IoStats { major: key.0, minor: key.1, ..IoStats::default() }))
}

/// Lines like `8:0 Read 4096`, and totals, which add nothing.
fn add_v1(devices: &mut Devices, text: &str, bytes: bool) {
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(number), Some(operation), Some(value)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(value) = value.parse() else { continue };
        let Some(stats) = device(devices, number) else { continue };
        match (operation, bytes) {
            ("Read", true) => stats.read_bytes = value,
            ("Write", true) => stats.write_bytes = value,
            ("Discard", true) => stats.discard_bytes = value,
            ("Read", false) => stats.reads = value,
            ("Write", false) => stats.writes = value,
            ("Discard", false) => stats.discards = value,
            _ => {}
        }
    }
}

/// Lines like `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn add_v2(devices: &mut Devices, text: &str) {
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(stats) = fields.next().and_then(|number| device(devices, number)) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => stats.read_bytes = value,
                "wbytes" => stats.write_bytes = value,
                "rios" => stats.reads = value,
                "wios" => stats.writes = value,
                "dbytes" => stats.discard_bytes = value,
                "dios" => stats.discards = value,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        for (file, content) in files {
            fs::write(temporary.path().join(file), content).unwrap();
        }
        let directory = Directory { version, path: temporary.path().to_path_buf() };
        (temporary, directory)
    }

    #[test]
    fn version_1_figures() {
        let (_keep, directory) = directory(
            Version::V1,
            &[
                ("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 77\n"),
                ("cpuacct.usage", "1000\n"),
                ("cpuacct.usage_percpu", "600 400 \n"),
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.memsw.usage_in_bytes", "5000\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "cache 1\ntotal_inactive_file 2\n"),
                ("pids.current", "5\n"),
                ("pids.max", "max\n"),
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
                ),
                ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
            ],
        );
        let cpu = cpu(Some(&directory), Some(&directory)).unwrap();
        assert_eq!((cpu.total, cpu.per_cpu.as_slice(), cpu.throttled), (1000, [600, 400].as_slice(), 77));
        let memory = memory(&directory).unwrap();
        assert_eq!((memory.usage, memory.swap, memory.limit, memory.peak), (4096, 904, None, None));
        assert_eq!(memory.details["total_inactive_file"], 2);
        assert_eq!(pids(&directory).unwrap(), PidsStats { current: 5, limit: None });
        let io = io(&directory).unwrap();
        assert_eq!(io.len(), 1);
        assert_eq!(
            (io[0].major, io[0].read_bytes, io[0].write_bytes, io[0].reads, io[0].writes),
            (8, 10, 20, 1, 2)
        );
    }

    #[test]
    fn version_2_figures() {
        let (_keep, directory) = directory(
            Version::V2,
            &[
                ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nthrottled_usec 4\n"),
                ("memory.current", "4096\n"),
                ("memory.max", "max\n"),
                ("memory.peak", "8192\n"),
                ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n"),
                ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:32\nbroken\n"),
            ],
        );
        let cpu = cpu(Some(&directory), Some(&directory)).unwrap();
        assert_eq!(
            (cpu.total, cpu.user, cpu.system, cpu.periods, cpu.throttled),
            (5000, 3000, 2000, 9, 4000)
        );
        let memory = memory(&directory).unwrap();
        assert_eq!((memory.usage, memory.limit, memory.peak, memory.failures), (4096, None, Some(8192), 6));
        assert_eq!(memory.oom_events, 1);
        let io = io(&directory).unwrap();
        assert_eq!((io[0].minor, io[0].reads, io[0].discards), (16, 3, 6));
        assert_eq!(pids(&directory).unwrap(), PidsStats::default());
    }
}
