//! Limits of a container, from Docker's numbers to the OCI runtime's.

use std::path::Path;

use berth_api::container::{HostConfig, ThrottleDevice};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::fs::{major, minor};

use super::{invalid, spec_error};
use crate::Error;

/// Period in which a `--cpus` limit is counted, in microseconds, as Docker's.
const PERIOD: u64 = 100_000;

/// The limits of a container, with its device rules.
pub fn resources(host: &HostConfig, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources, Error> {
    let mut builder = LinuxResourcesBuilder::default().devices(devices).memory(memory(host)?).cpu(cpu(host)?);
    // Unlimited is said in words: a limit inherited from an earlier life of the cgroup must not stay.
    if let Some(limit) = host.pids_limit.filter(|limit| *limit > 0) {
        builder = builder.pids(LinuxPidsBuilder::default().limit(limit).build().map_err(spec_error)?);
    }
    if let Some(block_io) = block_io(host)? {
        builder = builder.block_io(block_io);
    }
    builder.build().map_err(spec_error)
}

/// The limits that an update names: no limit of processes is a value too.
pub fn changed(host: &HostConfig) -> Result<LinuxResources, Error> {
    let mut changed = resources(host, Vec::new())?;
    if host.pids_limit.is_some_and(|limit| limit <= 0) {
        changed.set_pids(Some(LinuxPidsBuilder::default().limit(-1).build().map_err(spec_error)?));
    }
    Ok(changed)
}

fn memory(host: &HostConfig) -> Result<LinuxMemory, Error> {
    let mut builder = LinuxMemoryBuilder::default();
    if host.memory > 0 {
        builder = builder.limit(host.memory);
    }
    if host.memory_swap != 0 {
        builder = builder.swap(host.memory_swap);
    }
    if host.memory_reservation > 0 {
        builder = builder.reservation(host.memory_reservation);
    }
    if let Some(swappiness) = host.memory_swappiness.and_then(|s| u64::try_from(s).ok()) {
        builder = builder.swappiness(swappiness);
    }
    if host.oom_kill_disable == Some(true) {
        builder = builder.disable_oom_killer(true);
    }
    builder.build().map_err(spec_error)
}

fn cpu(host: &HostConfig) -> Result<LinuxCpu, Error> {
    let mut builder = LinuxCpuBuilder::default();
    let positive = |number: i64| u64::try_from(number).ok().filter(|n| *n > 0);
    if let Some(shares) = positive(host.cpu_shares) {
        builder = builder.shares(shares);
    }
    if host.nano_cpus > 0 {
        // 100,000 µs a period for each 10^9: one ten-thousandth.
        builder = builder.period(PERIOD).quota((host.nano_cpus / 10_000).max(1_000));
    }
    if let Some(period) = positive(host.cpu_period) {
        builder = builder.period(period);
    }
    if host.cpu_quota != 0 {
        builder = builder.quota(host.cpu_quota);
    }
    if let Some(period) = positive(host.cpu_realtime_period) {
        builder = builder.realtime_period(period);
    }
    if host.cpu_realtime_runtime != 0 {
        builder = builder.realtime_runtime(host.cpu_realtime_runtime);
    }
    if !host.cpuset_cpus.is_empty() {
        builder = builder.cpus(host.cpuset_cpus.clone());
    }
    if !host.cpuset_mems.is_empty() {
        builder = builder.mems(host.cpuset_mems.clone());
    }
    builder.build().map_err(spec_error)
}

fn block_io(host: &HostConfig) -> Result<Option<LinuxBlockIo>, Error> {
    let mut builder = LinuxBlockIoBuilder::default();
    let mut any = host.blkio_weight != 0;
    if any {
        builder = builder.weight(host.blkio_weight);
    }
    let mut weights = Vec::new();
    for device in host.blkio_weight_device.iter().flatten() {
        let (major, minor) = number_of(&device.path)?;
        let weight = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(device.weight);
        weights.push(weight.build().map_err(spec_error)?);
    }
    if !weights.is_empty() {
        (any, builder) = (true, builder.weight_device(weights));
    }
    let mut limits = |list: &Option<Vec<ThrottleDevice>>| -> Result<Vec<LinuxThrottleDevice>, Error> {
        let found = list.iter().flatten().map(throttle).collect::<Result<Vec<_>, _>>()?;
        any |= !found.is_empty();
        Ok(found)
    };
    builder = builder
        .throttle_read_bps_device(limits(&host.blkio_device_read_bps)?)
        .throttle_write_bps_device(limits(&host.blkio_device_write_bps)?)
        .throttle_read_iops_device(limits(&host.blkio_device_read_iops)?)
        .throttle_write_iops_device(limits(&host.blkio_device_write_iops)?);
    if any { builder.build().map(Some).map_err(spec_error) } else { Ok(None) }
}

fn throttle(device: &ThrottleDevice) -> Result<LinuxThrottleDevice, Error> {
    let (major, minor) = number_of(&device.path)?;
    let builder = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(device.rate);
    builder.build().map_err(spec_error)
}

fn number_of(path: &str) -> Result<(i64, i64), Error> {
    let status = rustix::fs::stat(Path::new(path)).map_err(|errno| {
        invalid(format!("stat {path}: {}", berth_runtime::launch::describe(&errno.into())))
    })?;
    Ok((i64::from(major(status.st_rdev)), i64::from(minor(status.st_rdev))))
}

/// `--ulimit`, by the kernel's names.
pub fn rlimits(host: &HostConfig) -> Result<Vec<PosixRlimit>, Error> {
    let number = |value: i64| if value < 0 { u64::MAX } else { value.unsigned_abs() };
    let mut limits = Vec::new();
    for ulimit in host.ulimits.iter().flatten() {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::String(name))
            .map_err(|_| invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
        let builder =
            PosixRlimitBuilder::default().typ(kind).soft(number(ulimit.soft)).hard(number(ulimit.hard));
        limits.push(builder.build().map_err(spec_error)?);
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::Ulimit;

    #[test]
    fn cpus_become_a_quota_of_dockers_period() {
        let host = HostConfig { nano_cpus: 1_500_000_000, ..Default::default() };
        let cpu = cpu(&host).unwrap();
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
    }

    #[test]
    fn the_smallest_limit_is_one_the_kernel_takes() {
        let host = HostConfig { nano_cpus: 1, ..Default::default() };
        assert_eq!(cpu(&host).unwrap().quota(), Some(1_000));
    }

    #[test]
    fn what_is_not_asked_for_is_not_set() {
        let found = resources(&HostConfig::default(), Vec::new()).unwrap();
        assert_eq!(*found.memory(), Some(LinuxMemory::default()));
        assert!(found.pids().is_none() && found.block_io().is_none());
        let unlimited = HostConfig { pids_limit: Some(-1), ..Default::default() };
        assert!(resources(&unlimited, Vec::new()).unwrap().pids().is_none());
    }

    #[test]
    fn memory_and_processes_are_limited() {
        let host =
            HostConfig { memory: 64 << 20, memory_swap: -1, pids_limit: Some(7), ..Default::default() };
        let found = resources(&host, Vec::new()).unwrap();
        let memory = found.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(-1)));
        assert_eq!(found.pids().unwrap().limit(), 7);
    }

    #[test]
    fn an_update_takes_the_limit_of_processes_away() {
        let of = |limit| changed(&HostConfig { pids_limit: limit, ..Default::default() }).unwrap();
        assert!(of(None).pids().is_none());
        assert_eq!(of(Some(0)).pids().unwrap().limit(), -1);
        assert_eq!(of(Some(7)).pids().unwrap().limit(), 7);
    }

    #[test]
    fn devices_are_looked_up() {
        let limit = ThrottleDevice { path: "/dev/null".into(), rate: 5 };
        let host = HostConfig { blkio_device_read_bps: Some(vec![limit]), ..Default::default() };
        let io = block_io(&host).unwrap().unwrap();
        let device = &io.throttle_read_bps_device().as_ref().unwrap()[0];
        assert_eq!((device.major(), device.minor(), device.rate()), (1, 3, 5));
        let gone = ThrottleDevice { path: "/dev/not-there".into(), rate: 5 };
        let host = HostConfig { blkio_device_read_bps: Some(vec![gone]), ..Default::default() };
        assert!(block_io(&host).is_err());
    }

    #[test]
    fn ulimits_by_name() {
        let one = |name: &str| HostConfig {
            ulimits: Some(vec![Ulimit { name: name.into(), soft: 5, hard: -1 }]),
            ..Default::default()
        };
        let limits = rlimits(&one("nofile")).unwrap();
        assert_eq!((limits[0].soft(), limits[0].hard()), (5, u64::MAX));
        assert_eq!(rlimits(&one("nonsense")).unwrap_err().to_string(), "invalid ulimit type: nonsense");
    }
}
