//! From a sample to a row: the figures are computed as Docker's client computes them.

use berth_api::container::{BlkioStats, CpuStats, MemoryStats, NetworkStats, Stats};
use serde_json::{Map, Value, json};

use crate::format::human::{binary_size, short_id, size};
use crate::format::template::{self, Column};

/// The columns of the table.
pub const DEFAULT: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t\
                           {{.BlockIO}}\t{{.PIDs}}";

/// All fields and their headings.
pub const COLUMNS: [Column; 9] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Percent of the time of one CPU.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Most bytes of memory.
    pub limit: u64,
    /// Bytes that came over networks.
    pub received: u64,
    /// Bytes that went over networks.
    pub sent: u64,
    /// Bytes read from devices.
    pub read: u64,
    /// Bytes written to devices.
    pub written: u64,
    /// Processes and threads.
    pub processes: u64,
}

impl Figures {
    /// The figures of a sample with the one before it.
    pub fn of(stats: &Stats) -> Self {
        let (received, sent) = traffic(stats.networks.iter().flat_map(|all| all.values()));
        let (read, written) = block_io(&stats.blkio_stats);
        Self {
            cpu: cpu_percent(&stats.precpu_stats, &stats.cpu_stats),
            memory: memory_used(&stats.memory_stats),
            limit: stats.memory_stats.limit.unwrap_or_default(),
            received,
            sent,
            read,
            written,
            processes: stats.pids_stats.current.unwrap_or_default(),
        }
    }
}

/// The row of a container that was named `container`; without a sample, of one whose figures are not known.
pub fn row(container: &str, sample: Option<&Stats>, whole: bool) -> Map<String, Value> {
    let Some(stats) = sample else {
        return template::fields(json!({
            "Container": container, "ID": "--", "Name": "--", "CPUPerc": "--", "MemUsage": "-- / --",
            "MemPerc": "--", "NetIO": "--", "BlockIO": "--", "PIDs": "--",
        }));
    };
    let Figures { cpu, memory, limit, received, sent, read, written, processes } = Figures::of(stats);
    let id = if whole { &stats.id } else { short_id(&stats.id) };
    template::fields(json!({
        "Container": container,
        "ID": id,
        "Name": stats.name.trim_start_matches('/'),
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(signed(memory)), binary_size(signed(limit))),
        "MemPerc": format!("{:.2}%", percent(memory, limit)),
        "NetIO": format!("{} / {}", size(signed(received)), size(signed(sent))),
        "BlockIO": format!("{} / {}", size(signed(read)), size(signed(written))),
        "PIDs": processes.to_string(),
    }))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The share of the host's time that the container had since the sample before, times the number of CPUs.
fn cpu_percent(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let passed =
        now.system_cpu_usage.unwrap_or_default() as f64 - before.system_cpu_usage.unwrap_or_default() as f64;
    let cpus = match now.online_cpus {
        Some(cpus) if cpus > 0 => f64::from(cpus),
        _ => now.cpu_usage.percpu_usage.as_ref().map_or(0, Vec::len) as f64,
    };
    if used > 0.0 && passed > 0.0 { used / passed * cpus * 100.0 } else { 0.0 }
}

/// Memory in use without the part of the page cache that the kernel would give up first.
fn memory_used(memory: &MemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or_default();
    let detail = |key: &str| memory.stats.as_ref()?.get(key).copied();
    // Version 1 has it for the container with all below under a name of its own.
    let inactive = detail("total_inactive_file").filter(|bytes| *bytes < usage);
    let inactive = inactive.or_else(|| detail("inactive_file").filter(|bytes| *bytes < usage));
    usage - inactive.unwrap_or_default()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn traffic<'a>(interfaces: impl Iterator<Item = &'a NetworkStats>) -> (u64, u64) {
    interfaces.fold((0, 0), |(received, sent), interface| {
        (received + interface.rx_bytes, sent + interface.tx_bytes)
    })
}

/// Bytes read and written. The words for both begin with the letter that counts, in either case.
fn block_io(io: &BlkioStats) -> (u64, u64) {
    let entries = || io.io_service_bytes_recursive.iter().flatten();
    let of = |letter: char| {
        entries()
            .filter(|entry| entry.op.to_ascii_lowercase().starts_with(letter))
            .map(|entry| entry.value)
            .sum()
    };
    (of('r'), of('w'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_api::container::{BlkioEntry, CpuUsage};

    use super::*;

    fn cpu(total: u64, system: u64, online: Option<u32>) -> CpuStats {
        CpuStats {
            cpu_usage: CpuUsage {
                total_usage: total,
                percpu_usage: Some(vec![1, 2, 3, 4]),
                ..Default::default()
            },
            system_cpu_usage: Some(system),
            online_cpus: online,
            ..Default::default()
        }
    }

    #[test]
    fn the_share_of_cpu_time_counts_each_cpu_as_a_hundred() {
        assert_eq!(cpu_percent(&cpu(100, 1000, Some(2)), &cpu(200, 1400, Some(2))), 50.0);
        assert_eq!(cpu_percent(&cpu(100, 1000, None), &cpu(200, 1400, None)), 100.0);
        assert_eq!(cpu_percent(&cpu(200, 1000, Some(2)), &cpu(100, 1400, Some(2))), 0.0, "it was restarted");
        assert_eq!(cpu_percent(&cpu(1, 5, Some(1)), &cpu(2, 5, Some(1))), 0.0);
    }

    fn memory(usage: u64, details: &[(&str, u64)]) -> MemoryStats {
        let stats: BTreeMap<_, _> = details.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        MemoryStats { usage: Some(usage), stats: Some(stats), ..Default::default() }
    }

    #[test]
    fn the_cache_is_not_counted_as_used() {
        assert_eq!(memory_used(&memory(500, &[("total_inactive_file", 400), ("inactive_file", 1)])), 100);
        assert_eq!(memory_used(&memory(500, &[("inactive_file", 400)])), 100);
        assert_eq!(
            memory_used(&memory(500, &[("inactive_file", 600)])),
            500,
            "the two were not read at once"
        );
        assert_eq!(memory_used(&MemoryStats::default()), 0);
    }

    #[test]
    fn a_row_reads_as_dockers() {
        let entry = |op: &str, value| BlkioEntry { op: op.into(), value, ..Default::default() };
        let interface = NetworkStats { rx_bytes: 1006, tx_bytes: 126, ..Default::default() };
        let stats = Stats {
            id: "0123456789abcdef".into(),
            name: "/web".into(),
            cpu_stats: cpu(200, 1400, Some(2)),
            precpu_stats: cpu(100, 1000, Some(2)),
            memory_stats: MemoryStats { limit: Some(32 << 20), ..memory(8 << 20, &[]) },
            networks: Some(BTreeMap::from([("eth0".into(), interface.clone()), ("eth1".into(), interface)])),
            blkio_stats: BlkioStats {
                io_service_bytes_recursive: Some(vec![
                    entry("Read", 4096),
                    entry("write", 10),
                    entry("Write", 1_000_000),
                    entry("Total", 9),
                ]),
                ..Default::default()
            },
            ..Default::default()
        };
        let shown = Value::Object(row("we", Some(&stats), false));
        let expected = json!({
            "Container": "we", "ID": "0123456789ab", "Name": "web", "CPUPerc": "50.00%", "MemUsage": "8MiB / 32MiB",
            "MemPerc": "25.00%", "NetIO": "2.01kB / 252B", "BlockIO": "4.1kB / 1MB", "PIDs": "0",
        });
        assert_eq!(shown, expected);
        assert_eq!(row("we", Some(&stats), true)["ID"], "0123456789abcdef");
        assert_eq!(row("we", None, false)["MemUsage"], "-- / --");
    }

    #[test]
    fn the_table_has_dockers_headings() {
        let table = template::rows(DEFAULT, &COLUMNS, []).unwrap();
        assert_eq!(
            table,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS\n"
        );
    }
}
