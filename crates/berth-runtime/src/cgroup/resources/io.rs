//! Block I/O: weights and throttles.

use std::fmt::Write as _;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::super::layout::Version;
use super::super::setting::Setting;

pub(super) fn settings(version: Version, io: &LinuxBlockIo, out: &mut Vec<Setting>) {
    match version {
        Version::V1 => v1(io, out),
        Version::V2 => v2(io, out),
    }
}

fn throttles(io: &LinuxBlockIo) -> [(&'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    let list = |devices: &'static str, key, list| (devices, key, list);
    [
        list("read_bps_device", "rbps", io.throttle_read_bps_device().as_deref().unwrap_or_default()),
        list("write_bps_device", "wbps", io.throttle_write_bps_device().as_deref().unwrap_or_default()),
        list("read_iops_device", "riops", io.throttle_read_iops_device().as_deref().unwrap_or_default()),
        list("write_iops_device", "wiops", io.throttle_write_iops_device().as_deref().unwrap_or_default()),
    ]
}

fn v1(io: &LinuxBlockIo, out: &mut Vec<Setting>) {
    // Weights exist only while the BFQ scheduler is there; Docker warns and goes on as well.
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        out.push(Setting::new("blkio", "blkio.bfq.weight", weight).optional());
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            out.push(Setting::new("blkio", "blkio.bfq.weight_device", value).optional());
        }
    }
    for (file, _, devices) in throttles(io) {
        for device in devices {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            out.push(Setting::new("blkio", format!("blkio.throttle.{file}"), value));
        }
    }
}

fn v2(io: &LinuxBlockIo, out: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        // BFQ takes the weight as it is; the other schedulers have a wider scale.
        out.push(Setting::new("io", "io.bfq.weight", weight).optional());
        out.push(Setting::new("io", "io.weight", format!("default {}", weight_of(weight))).optional());
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            out.push(Setting::new("io", "io.bfq.weight", value).optional());
        }
    }
    // One line for each device with all its limits: every write sends the device through a queue freeze.
    let mut devices: Vec<((i64, i64), String)> = Vec::new();
    for (_, key, list) in throttles(io) {
        for device in list {
            let number = (device.major(), device.minor());
            let at = devices.iter().position(|(known, _)| *known == number).unwrap_or_else(|| {
                devices.push((number, format!("{}:{}", number.0, number.1)));
                devices.len() - 1
            });
            // Zero lifts a limit in version 1.
            let _ = match device.rate() {
                0 => write!(devices[at].1, " {key}=max"),
                rate => write!(devices[at].1, " {key}={rate}"),
            };
        }
    }
    out.extend(devices.into_iter().map(|(_, line)| Setting::new("io", "io.max", line)));
}

/// A weight of 10 to 1000 on the scale of 1 to 10000, in a straight line.
fn weight_of(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: Version, json: &str) -> Vec<String> {
        let mut out = Vec::new();
        settings(version, &serde_json::from_str(json).unwrap(), &mut out);
        out.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    const JSON: &str = r#"{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":300}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7},{"major":8,"minor":16,"rate":0}]}"#;

    #[test]
    fn version_1_has_a_file_for_each_kind() {
        assert_eq!(
            plan(Version::V1, JSON),
            [
                "blkio.bfq.weight=500",
                "blkio.bfq.weight_device=8:0 300",
                "blkio.throttle.read_bps_device=8:0 1024",
                "blkio.throttle.write_iops_device=8:0 7",
                "blkio.throttle.write_iops_device=8:16 0",
            ]
        );
    }

    #[test]
    fn version_2_joins_the_limits_of_a_device() {
        assert_eq!(
            plan(Version::V2, JSON),
            [
                "io.bfq.weight=500",
                "io.weight=default 4950",
                "io.bfq.weight=8:0 300",
                "io.max=8:0 rbps=1024 wiops=7",
                "io.max=8:16 wiops=max",
            ]
        );
    }

    #[test]
    fn weights_keep_both_ends() {
        assert_eq!((weight_of(10), weight_of(1000)), (1, 10_000));
    }
}
