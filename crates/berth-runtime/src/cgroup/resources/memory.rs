//! Memory and swap.

use oci_spec::runtime::LinuxMemory;

use super::super::error::{Error, Result};
use super::super::layout::Version;
use super::super::setting::{Setting, limit};

pub(super) fn settings(version: Version, memory: &LinuxMemory, out: &mut Vec<Setting>) -> Result<()> {
    match version {
        Version::V1 => v1(memory, out),
        Version::V2 => v2(memory, out)?,
    }
    Ok(())
}

fn v1(memory: &LinuxMemory, out: &mut Vec<Setting>) {
    let amount = memory.limit().filter(|&limit| limit != 0);
    // Without a limit, swap cannot have one either; unlimited memory implies unlimited swap.
    let swap = memory.swap().filter(|&swap| swap != 0).or(amount.filter(|&limit| limit == -1));
    if let Some(amount) = amount {
        out.push(Setting::new("memory", "memory.limit_in_bytes", amount));
    }
    if let Some(swap) = swap {
        // A kernel without swap accounting lacks the file; the memory limit holds all the same.
        out.push(Setting::new("memory", "memory.memsw.limit_in_bytes", swap).optional());
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        out.push(Setting::new("memory", "memory.soft_limit_in_bytes", reservation));
    }
    if let Some(tcp) = memory.kernel_tcp().filter(|&tcp| tcp != 0) {
        out.push(Setting::new("memory", "memory.kmem.tcp.limit_in_bytes", tcp).optional());
    }
    if memory.disable_oom_killer() == Some(true) {
        out.push(Setting::new("memory", "memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness() {
        out.push(Setting::new("memory", "memory.swappiness", swappiness));
    }
}

fn v2(memory: &LinuxMemory, out: &mut Vec<Setting>) -> Result<()> {
    let amount = memory.limit().filter(|&limit| limit != 0);
    let swap = match memory.swap().filter(|&swap| swap != 0) {
        None => amount.filter(|&limit| limit == -1),
        Some(total) => Some(swap_alone(total, amount)?),
    };
    // Swap goes first: lowering memory below what is used pushes pages out, and they should stay within bounds.
    if let Some(swap) = swap {
        out.push(Setting::new("memory", "memory.swap.max", limit(Version::V2, swap)).optional());
    }
    if let Some(amount) = amount {
        out.push(Setting::new("memory", "memory.max", limit(Version::V2, amount)));
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        out.push(Setting::new("memory", "memory.low", limit(Version::V2, reservation)));
    }
    // Version 2 has neither swappiness nor a switch for the OOM killer.
    Ok(())
}

/// The configuration counts memory and swap together, version 2 counts swap alone.
fn swap_alone(total: i64, memory: Option<i64>) -> Result<i64> {
    let refuse = |why: &str| Err(Error::Unsupported(format!("memory and swap limit {total}: {why}")));
    match memory {
        _ if total < 0 => Ok(-1),
        None => refuse("needs a memory limit beside it"),
        Some(memory) if memory < 0 => refuse("needs a finite memory limit"),
        Some(memory) if total < memory => refuse("is less than the memory limit"),
        Some(memory) => Ok(total - memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: Version, json: &str) -> Result<Vec<String>> {
        let mut out = Vec::new();
        settings(version, &serde_json::from_str(json).unwrap(), &mut out)?;
        Ok(out.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect())
    }

    #[test]
    fn version_1_has_its_files() {
        let json =
            r#"{"limit":1048576,"swap":2097152,"reservation":4096,"swappiness":10,"disableOOMKiller":true}"#;
        assert_eq!(
            plan(Version::V1, json).unwrap(),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "memory.soft_limit_in_bytes=4096",
                "memory.oom_control=1",
                "memory.swappiness=10",
            ]
        );
    }

    #[test]
    fn version_2_counts_swap_alone() {
        let both = r#"{"limit":1000,"swap":3000,"reservation":500}"#;
        assert_eq!(
            plan(Version::V2, both).unwrap(),
            ["memory.swap.max=2000", "memory.max=1000", "memory.low=500"]
        );
        let none = r#"{"limit":1000,"swap":1000}"#;
        assert_eq!(plan(Version::V2, none).unwrap(), ["memory.swap.max=0", "memory.max=1000"]);
        let unlimited = r#"{"limit":1000,"swap":-1}"#;
        assert_eq!(plan(Version::V2, unlimited).unwrap(), ["memory.swap.max=max", "memory.max=1000"]);
    }

    #[test]
    fn unlimited_memory_implies_unlimited_swap() {
        assert_eq!(plan(Version::V2, r#"{"limit":-1}"#).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        let v1 = ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"];
        assert_eq!(plan(Version::V1, r#"{"limit":-1}"#).unwrap(), v1);
    }

    #[test]
    fn contradictory_swap_is_refused() {
        for json in [r#"{"swap":1000}"#, r#"{"limit":2000,"swap":1000}"#, r#"{"limit":-1,"swap":1000}"#] {
            assert!(matches!(plan(Version::V2, json), Err(Error::Unsupported(_))), "{json}");
        }
    }

    #[test]
    fn an_oom_killer_that_stays_is_not_written() {
        assert!(plan(Version::V1, r#"{"disableOOMKiller":false}"#).unwrap().is_empty());
    }
}
