//! Commands that change a container: kill, delete, pause, resume, update.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use serde_json::Value;

use super::arguments::{Delete, Global, Kill, Update};
use super::error::{Context as _, Error, Result};
use super::state::{Directory, Status, await_end};
use super::{create, signals};

/// `SIGKILL`.
const KILL: i32 = 9;
/// How long a killed container may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a signal.
pub(super) fn kill(global: &Global, kill: &Kill) -> Result<()> {
    let directory = Directory::new(&global.root, &kill.id)?;
    let state = directory.read()?;
    let signal = signals::parse(&kill.signal)?;
    if kill.all {
        let cgroup = state.cgroup()?;
        if signal == KILL {
            return Ok(cgroup.kill()?);
        }
        for pid in cgroup.pids()? {
            // One that has ended in the meantime needs no signal.
            if let Some(pidfd) = rustix::process::Pid::from_raw(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
            {
                let _ = berth_sys::signal::send(&pidfd, signal);
            }
        }
        return Ok(());
    }
    let process = state.process().ok_or(Error::NotRunning)?;
    berth_sys::signal::send(&process, signal)
        .context(|| format!("send signal {signal} to container {:?}", kill.id))?;
    // A frozen process could not even end.
    if signal == KILL && state.status(&directory)? == Status::Paused {
        state.cgroup()?.thaw()?;
    }
    Ok(())
}

/// Deletes a container that has stopped, or with force one in any state.
pub(super) fn delete(global: &Global, delete: &Delete) -> Result<()> {
    let directory = Directory::new(&global.root, &delete.id)?;
    if delete.force && !directory.exists() {
        return Ok(());
    }
    let _lock = directory.lock()?;
    let state = match directory.read() {
        // Its creation was interrupted: there is nothing but the directory.
        Err(Error::NotFound(_)) if delete.force => return directory.remove(),
        other => other?,
    };
    match state.status(&directory)? {
        Status::Stopped => {}
        // As with runc, a container that never ran need not be stopped.
        Status::Created => end(&state)?,
        _ if delete.force => end(&state)?,
        status => return Err(Error::Status { action: "delete", id: delete.id.clone(), status }),
    }
    create::remove(global, &directory, &state)
}

/// Kills a container and waits for its end.
fn end(state: &super::state::State) -> Result<()> {
    let Some(process) = state.process() else { return Ok(()) };
    berth_sys::signal::send(&process, KILL).context(|| format!("kill container {:?}", state.id))?;
    state.cgroup()?.kill()?;
    if await_end(&process, PATIENCE) {
        return Ok(());
    }
    Err(Error::Invalid(format!("container {:?} does not end although it was killed", state.id)))
}

/// Freezes a container.
pub(super) fn pause(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let _lock = directory.lock()?;
    let state = directory.read()?;
    match state.status(&directory)? {
        Status::Running | Status::Created => Ok(state.cgroup()?.freeze()?),
        status => Err(Error::Status { action: "pause", id: id.to_owned(), status }),
    }
}

/// Lets a frozen container go on.
pub(super) fn resume(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let _lock = directory.lock()?;
    let state = directory.read()?;
    match state.status(&directory)? {
        Status::Paused => Ok(state.cgroup()?.thaw()?),
        status => Err(Error::Status { action: "resume", id: id.to_owned(), status }),
    }
}

/// Changes resources.
pub(super) fn update(global: &Global, update: &Update) -> Result<()> {
    let directory = Directory::new(&global.root, &update.id)?;
    let _lock = directory.lock()?;
    let mut state = directory.read()?;
    if let status @ Status::Stopped = state.status(&directory)? {
        return Err(Error::Status { action: "update", id: update.id.clone(), status });
    }
    let resources = match &update.resources {
        Some(path) => read(path)?,
        None => from_flags(update)?,
    };
    state.cgroup()?.update(&resources)?;
    let mut linux = state.config.linux().clone().unwrap_or_default();
    linux.set_resources(Some(merged(linux.resources().clone(), &resources)?));
    state.config.set_linux(Some(linux));
    directory.write(&state)
}

/// `before`, with what `change` says in place of the same.
fn merged(before: Option<LinuxResources>, change: &LinuxResources) -> Result<LinuxResources> {
    let invalid = |error: serde_json::Error| Error::Invalid(format!("resources: {error}"));
    let mut all = serde_json::to_value(before.unwrap_or_default()).map_err(invalid)?;
    overlay(&mut all, serde_json::to_value(change).map_err(invalid)?);
    serde_json::from_value(all).map_err(invalid)
}

/// Objects are merged; everything else is replaced, but not by nothing.
fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (below, above) => *below = above,
    }
}

fn read(path: &Path) -> Result<LinuxResources> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context(|| "read standard input".to_owned())?;
        bytes
    } else {
        fs::read(path).at("read", path)?
    };
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}

fn from_flags(update: &Update) -> Result<LinuxResources> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(update.cpu_share)
        .set_quota(update.cpu_quota)
        .set_period(update.cpu_period)
        .set_realtime_period(update.cpu_rt_period)
        .set_realtime_runtime(update.cpu_rt_runtime)
        .set_idle(update.cpu_idle)
        .set_burst(update.cpu_burst)
        .set_cpus(update.cpuset_cpus.clone())
        .set_mems(update.cpuset_mems.clone());
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes(update.memory.as_deref())?)
        .set_reservation(bytes(update.memory_reservation.as_deref())?)
        .set_swap(bytes(update.memory_swap.as_deref())?);
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_devices(None);
    if let Some(limit) = update.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = update.blkio_weight {
        let mut io = oci_spec::runtime::LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    Ok(resources)
}

/// Reads `64m`, `1G`, `-1` and the like.
fn bytes(text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let invalid = || Error::Invalid(format!("invalid size {text:?}"));
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(invalid()),
    };
    let number: i64 = number.parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).map(Some).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_leaves_what_it_does_not_name() {
        let read = |text: &str| serde_json::from_str::<LinuxResources>(text).unwrap();
        let before = read(r#"{"memory":{"limit":5,"swap":6},"pids":{"limit":7},"devices":[]}"#);
        let after = merged(Some(before), &read(r#"{"memory":{"limit":8},"cpu":{"shares":9}}"#)).unwrap();
        let expected =
            read(r#"{"memory":{"limit":8,"swap":6},"pids":{"limit":7},"cpu":{"shares":9},"devices":[]}"#);
        assert_eq!(after, expected);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(Some("64m")).unwrap(), Some(64 << 20));
        assert_eq!(bytes(Some("-1")).unwrap(), Some(-1));
        assert_eq!(bytes(Some("100")).unwrap(), Some(100));
        assert_eq!(bytes(None).unwrap(), None);
        for bad in ["", "m", "1x", "99999999999g", "1.5g"] {
            assert!(bytes(Some(bad)).is_err(), "{bad}");
        }
    }
}
