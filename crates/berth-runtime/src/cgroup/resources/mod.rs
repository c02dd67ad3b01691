//! Resources of the OCI configuration as values for files. Nothing here touches the kernel.

mod cpu;
mod io;
mod memory;

use oci_spec::runtime::LinuxResources;

use super::error::{Error, Result};
use super::layout::{Layout, Version};
use super::setting::{Setting, limit};

/// Everything that `resources` sets, but the devices, for the hierarchies of `layout`, in the order to write.
pub(super) fn settings(layout: &Layout, resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut out = Vec::new();
    let version = |controller: &'static str| layout.find(controller).map(|at| layout.hierarchies[at].version);
    // A missing controller is reported when its file is written, so here any version will do.
    let version_or_unified = |controller| version(controller).unwrap_or(Version::V2);
    if let Some(memory) = resources.memory() {
        memory::settings(version_or_unified("memory"), memory, &mut out)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::settings(version_or_unified("cpu"), cpu, &mut out);
        cpu::set(cpu, &mut out);
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() != 0) {
        // Both versions spell it alike.
        out.push(Setting::new("pids", "pids.max", limit(Version::V2, pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        io::settings(version_or_unified("blkio"), io, &mut out);
    }
    huge_pages(version_or_unified("hugetlb"), resources, &mut out);
    remote_dma(resources, &mut out);
    network(version("net_cls"), version("net_prio"), resources, &mut out);
    unified(layout, resources, &mut out)?;
    Ok(out)
}

fn huge_pages(version: Version, resources: &LinuxResources, out: &mut Vec<Setting>) {
    let suffix = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    for page in resources.hugepage_limits().iter().flatten() {
        let (size, value) = (page.page_size(), limit(version, page.limit()));
        out.push(Setting::new("hugetlb", format!("hugetlb.{size}.{suffix}"), &value));
        // Reservations are charged apart since Linux 5.7, and would get around the limit.
        out.push(Setting::new("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), value).optional());
    }
}

fn remote_dma(resources: &LinuxResources, out: &mut Vec<Setting>) {
    for (device, limits) in resources.rdma().iter().flatten() {
        let mut line = device.clone();
        for (key, value) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        out.push(Setting::new("rdma", "rdma.max", line));
    }
}

/// The network controllers exist in version 1 only; version 2 leaves classes to the firewall.
fn network(
    class: Option<Version>,
    priority: Option<Version>,
    resources: &LinuxResources,
    out: &mut Vec<Setting>,
) {
    let Some(network) = resources.network() else { return };
    if let Some(id) = network.class_id().filter(|&id| id != 0)
        && class.is_some()
    {
        out.push(Setting::new("net_cls", "net_cls.classid", id));
    }
    for interface in network.priorities().iter().flatten() {
        if priority.is_some() {
            let value = format!("{} {}", interface.name(), interface.priority());
            out.push(Setting::new("net_prio", "net_prio.ifpriomap", value));
        }
    }
}

/// The files that the configuration names itself.
fn unified(layout: &Layout, resources: &LinuxResources, out: &mut Vec<Setting>) -> Result<()> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let controller = file.split('.').next().unwrap_or_default();
        if file.contains('/') || controller.is_empty() || !file.contains('.') {
            return Err(Error::Unsupported(format!("unified: {file:?} is no file of a cgroup")));
        }
        let known = CONTROLLERS.iter().find(|name| **name == controller);
        let on_v2 =
            |name: &str| layout.find(name).is_some_and(|at| layout.hierarchies[at].version == Version::V2);
        let controller = match known {
            Some(name) if *name == "cgroup" => "freezer",
            Some(name) => name,
            None => return Err(Error::Unsupported(format!("unified: {file:?} has an unknown controller"))),
        };
        if !on_v2(controller) {
            let why = format!("unified: {file:?} needs the controller on the unified hierarchy of cgroup v2");
            return Err(Error::Unsupported(why));
        }
        out.push(Setting::new(controller, file.clone(), value));
    }
    Ok(())
}

/// First parts of file names in the unified hierarchy; `cgroup` is the hierarchy's own.
const CONTROLLERS: &[&str] =
    &["cgroup", "cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::super::layout::Hierarchy;
    use super::*;

    fn layout(version: Version, controllers: &[&str]) -> Layout {
        let controllers: BTreeSet<_> = controllers.iter().map(|name| (*name).to_owned()).collect();
        Layout { hierarchies: vec![Hierarchy { version, mount: PathBuf::from("/c"), controllers }] }
    }

    fn plan(layout: &Layout, json: &str) -> Result<Vec<String>> {
        let settings = settings(layout, &serde_json::from_str(json).unwrap())?;
        Ok(settings.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect())
    }

    #[test]
    fn pids_have_a_word_for_no_limit() {
        let v1 = layout(Version::V1, &["pids"]);
        assert_eq!(plan(&v1, r#"{"pids":{"limit":-1}}"#).unwrap(), ["pids.max=max"]);
        assert_eq!(plan(&v1, r#"{"pids":{"limit":7}}"#).unwrap(), ["pids.max=7"]);
        assert!(plan(&v1, r#"{"pids":{"limit":0}}"#).unwrap().is_empty());
    }

    #[test]
    fn huge_pages_limit_reservations_too() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        let v1 = layout(Version::V1, &["hugetlb"]);
        assert_eq!(
            plan(&v1, json).unwrap(),
            ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"]
        );
        let v2 = layout(Version::V2, &["hugetlb"]);
        assert_eq!(plan(&v2, json).unwrap(), ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]);
    }

    #[test]
    fn remote_dma_limits_are_one_line_for_each_device() {
        let json = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#;
        let line = "rdma.max=mlx5_1 hca_handle=3 hca_object=10000";
        assert_eq!(plan(&layout(Version::V2, &["rdma"]), json).unwrap(), [line]);
    }

    #[test]
    fn unified_entries_need_the_unified_hierarchy() {
        let json = r#"{"unified":{"memory.high":"1000","cpu.weight":"5"}}"#;
        let v2 = layout(Version::V2, &["cpu", "memory"]);
        assert_eq!(plan(&v2, json).unwrap(), ["cpu.weight=5", "memory.high=1000"]);
        assert!(plan(&layout(Version::V1, &["cpu", "memory"]), json).is_err());
    }

    #[test]
    fn unified_entries_stay_in_the_directory() {
        let v2 = layout(Version::V2, &["memory"]);
        for name in ["../memory.max", "memory", ".", "memory./x", "shadow.file", ""] {
            let json = serde_json::json!({ "unified": { name: "1" } }).to_string();
            assert!(plan(&v2, &json).is_err(), "{name}");
        }
    }

    #[test]
    fn network_classes_are_version_1_only() {
        let json = r#"{"network":{"classID":5,"priorities":[{"name":"eth0","priority":3}]}}"#;
        let v1 = layout(Version::V1, &["net_cls", "net_prio"]);
        assert_eq!(plan(&v1, json).unwrap(), ["net_cls.classid=5", "net_prio.ifpriomap=eth0 3"]);
        assert!(plan(&layout(Version::V2, &["cpu"]), json).unwrap().is_empty());
    }
}
