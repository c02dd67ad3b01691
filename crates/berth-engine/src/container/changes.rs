//! What updates change of a container. Zero, nothing and an empty name mean: as it was.

use std::path::Path;

use berth_api::container::{HostConfig, UpdateRequest, WeightDevice};

/// Puts changes into a host configuration.
pub fn apply(changes: &UpdateRequest, host: &mut HostConfig) {
    let number = |new: i64, target: &mut i64| {
        if new != 0 {
            *target = new;
        }
    };
    number(changes.cpu_shares, &mut host.cpu_shares);
    number(changes.memory, &mut host.memory);
    number(changes.nano_cpus, &mut host.nano_cpus);
    number(changes.cpu_period, &mut host.cpu_period);
    number(changes.cpu_quota, &mut host.cpu_quota);
    number(changes.cpu_realtime_period, &mut host.cpu_realtime_period);
    number(changes.cpu_realtime_runtime, &mut host.cpu_realtime_runtime);
    number(changes.memory_reservation, &mut host.memory_reservation);
    number(changes.memory_swap, &mut host.memory_swap);
    if changes.blkio_weight != 0 {
        host.blkio_weight = changes.blkio_weight;
    }
    let text = |new: &String, target: &mut String| {
        if !new.is_empty() {
            target.clone_from(new);
        }
    };
    text(&changes.cpuset_cpus, &mut host.cpuset_cpus);
    text(&changes.cpuset_mems, &mut host.cpuset_mems);
    if !changes.restart_policy.name.is_empty() {
        host.restart_policy.clone_from(&changes.restart_policy);
    }
    given(&changes.pids_limit, &mut host.pids_limit);
    given(&changes.blkio_weight_device, &mut host.blkio_weight_device);
    given(&changes.blkio_device_read_bps, &mut host.blkio_device_read_bps);
    given(&changes.blkio_device_write_bps, &mut host.blkio_device_write_bps);
    given(&changes.blkio_device_read_iops, &mut host.blkio_device_read_iops);
    given(&changes.blkio_device_write_iops, &mut host.blkio_device_write_iops);
}

fn given<T: Clone>(new: &Option<T>, target: &mut Option<T>) {
    if new.is_some() {
        target.clone_from(new);
    }
}

/// Two updates, one after the other, as one.
pub fn merge(first: Option<&UpdateRequest>, second: &UpdateRequest) -> UpdateRequest {
    let mut host = HostConfig::default();
    if let Some(first) = first {
        apply(first, &mut host);
    }
    apply(second, &mut host);
    UpdateRequest {
        cpu_shares: host.cpu_shares,
        memory: host.memory,
        nano_cpus: host.nano_cpus,
        blkio_weight: host.blkio_weight,
        blkio_weight_device: host.blkio_weight_device,
        blkio_device_read_bps: host.blkio_device_read_bps,
        blkio_device_write_bps: host.blkio_device_write_bps,
        blkio_device_read_iops: host.blkio_device_read_iops,
        blkio_device_write_iops: host.blkio_device_write_iops,
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        cpu_realtime_period: host.cpu_realtime_period,
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus,
        cpuset_mems: host.cpuset_mems,
        memory_reservation: host.memory_reservation,
        memory_swap: host.memory_swap,
        pids_limit: host.pids_limit,
        restart_policy: host.restart_policy,
    }
}

/// What of `host` must be written anew for `changes`: what they name, and what the kernel or the runtime takes only
/// together with it.
pub fn touched(changes: &UpdateRequest, host: &HostConfig) -> HostConfig {
    let mut touched = HostConfig::default();
    apply(changes, &mut touched);
    if changes.memory != 0 || changes.memory_swap != 0 {
        (touched.memory, touched.memory_swap) = (host.memory, host.memory_swap);
    }
    if changes.nano_cpus != 0 || changes.cpu_period != 0 || changes.cpu_quota != 0 {
        touched.nano_cpus = host.nano_cpus;
        (touched.cpu_period, touched.cpu_quota) = (host.cpu_period, host.cpu_quota);
    }
    // The kernel takes a weight for all devices, whatever was said about one of them. One that is gone has none any more.
    if changes.blkio_weight != 0 {
        let is_there = |device: &WeightDevice| Path::new(&device.path).exists();
        let devices = host.blkio_weight_device.clone();
        touched.blkio_weight_device = devices.map(|devices| devices.into_iter().filter(is_there).collect());
    }
    touched
}

#[cfg(test)]
mod tests {
    use berth_api::container::{RestartPolicy, ThrottleDevice};

    use super::*;

    /// Every field has another value than the default.
    fn everything() -> UpdateRequest {
        let device = || Some(vec![ThrottleDevice { path: "/dev/null".into(), rate: 5 }]);
        UpdateRequest {
            cpu_shares: 1,
            memory: 2,
            nano_cpus: 3,
            blkio_weight: 4,
            blkio_weight_device: Some(Vec::new()),
            blkio_device_read_bps: device(),
            blkio_device_write_bps: device(),
            blkio_device_read_iops: device(),
            blkio_device_write_iops: device(),
            cpu_period: 5,
            cpu_quota: 6,
            cpu_realtime_period: 7,
            cpu_realtime_runtime: 8,
            cpuset_cpus: "0".into(),
            cpuset_mems: "1".into(),
            memory_reservation: 9,
            memory_swap: 10,
            pids_limit: Some(0),
            restart_policy: RestartPolicy { name: "always".into(), maximum_retry_count: 0 },
        }
    }

    #[test]
    fn no_field_is_forgotten() {
        assert_eq!(merge(None, &everything()), everything());
        assert_eq!(merge(Some(&everything()), &UpdateRequest::default()), everything());
    }

    #[test]
    fn the_later_update_counts() {
        let later = UpdateRequest { memory: 20, cpuset_cpus: "2".into(), ..Default::default() };
        let both = merge(Some(&everything()), &later);
        assert_eq!((both.memory, both.cpuset_cpus.as_str(), both.cpu_shares), (20, "2", 1));
    }

    #[test]
    fn what_belongs_together_is_written_together() {
        let host =
            HostConfig { memory: 5, memory_swap: 7, cpu_period: 100, cpu_shares: 9, ..Default::default() };
        let swap = touched(&UpdateRequest { memory_swap: 7, ..Default::default() }, &host);
        assert_eq!((swap.memory, swap.memory_swap, swap.cpu_period), (5, 7, 0));
        let quota = touched(&UpdateRequest { cpu_quota: 50, ..Default::default() }, &host);
        assert_eq!((quota.cpu_period, quota.memory, quota.cpu_shares), (100, 0, 0));
        let weights = Some(vec![WeightDevice { path: "/dev/null".into(), weight: 20 }]);
        let host = HostConfig { blkio_weight_device: weights.clone(), ..Default::default() };
        let weight = touched(&UpdateRequest { blkio_weight: 30, ..Default::default() }, &host);
        assert_eq!((weight.blkio_weight, weight.blkio_weight_device), (30, weights));
    }
}
