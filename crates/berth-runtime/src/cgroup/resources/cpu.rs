//! CPU time, and the CPUs and memory nodes to run on.

use oci_spec::runtime::LinuxCpu;

use super::super::layout::Version;
use super::super::setting::Setting;

/// The kernel's period when none is given, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn settings(version: Version, cpu: &LinuxCpu, out: &mut Vec<Setting>) {
    match version {
        Version::V1 => v1(cpu, out),
        Version::V2 => v2(cpu, out),
    }
}

/// The CPU set, whose files have the same names in both versions.
pub(super) fn set(cpu: &LinuxCpu, out: &mut Vec<Setting>) {
    let nonempty = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    if let Some(cpus) = nonempty(cpu.cpus()) {
        out.push(Setting::new("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = nonempty(cpu.mems()) {
        out.push(Setting::new("cpuset", "cpuset.mems", mems));
    }
}

fn v1(cpu: &LinuxCpu, out: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        out.push(Setting::new("cpu", "cpu.shares", shares));
    }
    // The period goes first: a burst or a quota is checked against it.
    if let Some(period) = cpu.period().filter(|&period| period != 0) {
        out.push(Setting::new("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        out.push(Setting::new("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        out.push(Setting::new("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        out.push(Setting::new("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        out.push(Setting::new("cpu", "cpu.rt_runtime_us", runtime));
    }
    if let Some(idle) = cpu.idle() {
        out.push(Setting::new("cpu", "cpu.idle", idle));
    }
}

fn v2(cpu: &LinuxCpu, out: &mut Vec<Setting>) {
    // An idle cgroup has no weight of its own: writing one afterwards would fail.
    if let Some(idle) = cpu.idle() {
        out.push(Setting::new("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0 && cpu.idle() != Some(1)) {
        out.push(Setting::new("cpu", "cpu.weight", weight(shares)));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        out.push(Setting::new("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))));
    }
    if let Some(burst) = cpu.burst() {
        out.push(Setting::new("cpu", "cpu.max.burst", burst));
    }
}

/// Version 1 shares (2 to 262144, normally 1024) as a version 2 weight (1 to 10000, normally 100).
///
/// The curve goes through the ends and the normal values of both scales, as runc's does since 1.3.2: with l the
/// binary logarithm of the shares, the weight is ten to the power of (l² + 125 l) / 612 − 7 / 34, rounded up.
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // A hair less, lest a rounding error in the exponent lift an exact weight to the next one.
            ((10_f64.powf(exponent) - 1e-9).ceil() as u64).clamp(1, 10_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: Version, json: &str) -> Vec<(String, String)> {
        let cpu: LinuxCpu = serde_json::from_str(json).unwrap();
        let mut out = Vec::new();
        settings(version, &cpu, &mut out);
        set(&cpu, &mut out);
        out.into_iter().map(|setting| (setting.file.into_owned(), setting.value)).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn weights_follow_the_curve() {
        let table = [(2, 1), (1024, 100), (262_144, 10_000), (512, 59), (2048, 174), (3, 2), (1, 1)];
        for (shares, expected) in table {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
    }

    #[test]
    fn weights_grow_with_shares() {
        let weights: Vec<_> = (2..262_200).step_by(37).map(weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn version_1_writes_the_period_before_the_quota() {
        let json =
            r#"{"shares":512,"quota":50000,"period":200000,"burst":1000,"idle":0,"cpus":"0-1","mems":"0"}"#;
        assert_eq!(
            plan(Version::V1, json),
            pairs(&[
                ("cpu.shares", "512"),
                ("cpu.cfs_period_us", "200000"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_burst_us", "1000"),
                ("cpu.idle", "0"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
            ])
        );
    }

    #[test]
    fn version_2_joins_quota_and_period() {
        assert_eq!(plan(Version::V2, r#"{"quota":50000}"#), pairs(&[("cpu.max", "50000 100000")]));
        assert_eq!(plan(Version::V2, r#"{"quota":-1,"period":1000}"#), pairs(&[("cpu.max", "max 1000")]));
        assert_eq!(plan(Version::V2, r#"{"shares":1024}"#), pairs(&[("cpu.weight", "100")]));
        assert_eq!(plan(Version::V2, r#"{"shares":1024,"idle":1}"#), pairs(&[("cpu.idle", "1")]));
    }

    #[test]
    fn zero_means_not_set() {
        assert_eq!(plan(Version::V1, r#"{"shares":0,"quota":0,"period":0,"cpus":""}"#), []);
        assert_eq!(plan(Version::V2, r#"{"shares":0,"quota":0,"period":0,"mems":""}"#), []);
    }
}
