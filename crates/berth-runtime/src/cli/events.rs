//! `events`: what a container uses, in runc's form.

use serde_json::{Value, json};

use super::arguments::{Events, Global};
use super::error::{Error, Result};
use super::report::print;
use super::state::{Directory, await_end};
use crate::cgroup::{IoStats, Stats};

/// Prints figures once, or again and again until the container ends.
pub(super) fn events(global: &Global, events: &Events) -> Result<()> {
    let directory = Directory::new(&global.root, &events.id)?;
    let state = directory.read()?;
    let cgroup = state.cgroup()?;
    let process = state.process().ok_or(Error::NotRunning)?;
    let mut killed = cgroup.oom_count()?;
    loop {
        print(&format!("{}\n", event(&events.id, "stats", figures(&cgroup.stats()?))))?;
        if events.stats || await_end(&process, events.interval) {
            return Ok(());
        }
        let now = cgroup.oom_count()?;
        if now > killed {
            killed = now;
            print(&format!("{}\n", event(&events.id, "oom", Value::Null)))?;
        }
    }
}

fn event(id: &str, kind: &str, data: Value) -> Value {
    match data {
        Value::Null => json!({ "type": kind, "id": id }),
        data => json!({ "type": kind, "id": id, "data": data }),
    }
}

/// An operation's name, and its figure of a device.
type Operation = (&'static str, fn(&IoStats) -> u64);

fn figures(stats: &Stats) -> Value {
    let Stats { cpu, memory, pids, io, .. } = stats;
    let entries = |operations: [Operation; 2]| -> Vec<Value> {
        io.iter()
            .flat_map(|device| {
                operations.map(|(name, value)| {
                    json!({ "major": device.major, "minor": device.minor, "op": name, "value": value(device) })
                })
            })
            .collect()
    };
    json!({
        "cpu": {
            "usage": { "total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled,
            },
        },
        "memory": {
            "usage": {
                "usage": memory.usage,
                "max": memory.peak.unwrap_or_default(),
                "limit": memory.limit.unwrap_or(u64::MAX),
                "failcnt": memory.failures,
            },
            "swap": { "usage": memory.swap },
            "raw": memory.details,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or_default() },
        "blkio": {
            "ioServiceBytesRecursive": entries([("Read", |device| device.read_bytes), ("Write", |device| device.write_bytes)]),
            "ioServicedRecursive": entries([("Read", |device| device.reads), ("Write", |device| device.writes)]),
        },
    })
}
