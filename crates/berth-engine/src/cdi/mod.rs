//! Devices by name: `--device vendor.com/class=name` and `--gpus`, through files of the Container Device Interface.

mod file;
mod yaml;

use std::path::{Path, PathBuf};

use berth_api::container::DeviceRequest;

pub use file::{Devices, Edits, Hook, Mount, Node};

use crate::Error;

/// Vendors whose class `gpu` answers `--gpus`, in their order.
const GPU_VENDORS: [&str; 2] = ["nvidia.com", "amd.com"];
/// What may be asked of a GPU in `DeviceRequest.Capabilities`.
const GPU_CAPABILITIES: [&str; 9] =
    ["gpu", "nvidia", "amd", "compute", "compat32", "graphics", "utility", "video", "display"];

/// The edits for some requests, in the order in which they apply.
pub fn edits(requests: &[DeviceRequest], directories: &[PathBuf]) -> Result<Vec<Edits>, Error> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let devices = Devices::read(directories);
    let mut all = Vec::new();
    let mut files: Vec<&Path> = Vec::new();
    for request in requests {
        let names = names(request, &devices)?;
        let missing: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| devices.resolve(name).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(failed(&format!("unresolvable CDI devices {missing}")));
        }
        for (name, device) in names.iter().filter_map(|name| Some((name, devices.resolve(name)?))) {
            for edits in [device.common, device.own] {
                if let Some(what) = edits.unsupported() {
                    return Err(failed(&format!("device {name} needs {what}, which are not supported")));
                }
            }
            if !files.contains(&device.path) {
                files.push(device.path);
                all.push(device.common.clone());
            }
            all.push(device.own.clone());
        }
    }
    Ok(all)
}

fn failed(why: &str) -> Error {
    Error::InvalidParameter(format!("CDI device injection failed: {why}"))
}

/// The full names of the devices that a request means.
fn names(request: &DeviceRequest, devices: &Devices) -> Result<Vec<String>, Error> {
    let ids = request.device_ids.clone().unwrap_or_default();
    if request.driver == "cdi" {
        let unexpected =
            |what| Err(Error::InvalidParameter(format!("unexpected {what} in CDI device request")));
        return match request {
            _ if request.count != 0 => unexpected("count"),
            _ if request.options.as_ref().is_some_and(|options| !options.is_empty()) => unexpected("options"),
            _ => Ok(ids),
        };
    }
    let kind = gpu_kind(request, devices).ok_or_else(|| {
        let lists = request.capabilities.iter().flatten().map(|list| format!("[{}]", list.join(" ")));
        let lists = lists.collect::<Vec<_>>().join(" ");
        let driver = &request.driver;
        Error::InvalidParameter(format!(
            "could not select device driver \"{driver}\" with capabilities: [{lists}]"
        ))
    })?;
    if request.count != 0 && !ids.is_empty() {
        return Err(Error::InvalidParameter("cannot set both Count and DeviceIDs on device request".into()));
    }
    let ids = match request.count {
        0 => ids,
        count if count < 0 => vec!["all".to_owned()],
        count => (0..count).map(|number| number.to_string()).collect(),
    };
    Ok(ids.into_iter().map(|id| if file::is_full_name(&id) { id } else { format!("{kind}={id}") }).collect())
}

/// The kind of device that answers a request for GPUs.
fn gpu_kind(request: &DeviceRequest, devices: &Devices) -> Option<String> {
    let vendors = GPU_VENDORS.iter().filter(|vendor| match request.driver.as_str() {
        "" => true,
        driver => vendor.strip_suffix(".com") == Some(driver),
    });
    let able = !request.driver.is_empty()
        || request.capabilities.iter().flatten().any(|list| {
            !list.is_empty() && list.iter().all(|name| GPU_CAPABILITIES.contains(&name.as_str()))
        });
    let mut kinds = vendors.map(|vendor| format!("{vendor}/gpu"));
    kinds.find(|kind| able && devices.has_kind(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let text = "kind: amd.com/gpu\ncontainerEdits: {env: [KIND=1]}\ndevices:\n- {name: all, containerEdits: {env: [ALL=1]}}\n- {name: '0'}\n- {name: '1'}\n";
        std::fs::write(directory.path().join("amd.yaml"), text).unwrap();
        let paths = vec![directory.path().to_owned()];
        (directory, paths)
    }

    fn gpus(count: i64, ids: &[&str]) -> DeviceRequest {
        DeviceRequest {
            count,
            device_ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..Default::default()
        }
    }

    fn named(names: &[&str]) -> DeviceRequest {
        let ids = names.iter().map(|name| (*name).to_owned()).collect();
        DeviceRequest { driver: "cdi".into(), device_ids: Some(ids), ..Default::default() }
    }

    #[test]
    fn gpus_are_those_of_the_first_vendor_with_files() {
        let (_kept, paths) = directory();
        let devices = Devices::read(&paths);
        assert_eq!(names(&gpus(-1, &[]), &devices).unwrap(), ["amd.com/gpu=all"]);
        assert_eq!(names(&gpus(2, &[]), &devices).unwrap(), ["amd.com/gpu=0", "amd.com/gpu=1"]);
        assert_eq!(names(&gpus(0, &["1", "x.y/z=a"]), &devices).unwrap(), ["amd.com/gpu=1", "x.y/z=a"]);
        let both = names(&gpus(1, &["1"]), &devices).unwrap_err().to_string();
        assert_eq!(both, "cannot set both Count and DeviceIDs on device request");
        let other = DeviceRequest { driver: "nvidia".into(), ..gpus(1, &[]) };
        assert_eq!(
            names(&other, &devices).unwrap_err().to_string(),
            "could not select device driver \"nvidia\" with capabilities: [[gpu]]"
        );
    }

    #[test]
    fn common_edits_come_once() {
        let (_kept, paths) = directory();
        let found = edits(&[named(&["amd.com/gpu=all", "amd.com/gpu=0"])], &paths).unwrap();
        let env: Vec<_> = found.iter().flat_map(|edits| edits.env.clone()).collect();
        assert_eq!(env, ["KIND=1", "ALL=1"]);
    }

    #[test]
    fn absent_devices_are_named() {
        let (_kept, paths) = directory();
        let error = edits(&[named(&["amd.com/gpu=7", "amd.com/gpu=0", "b.c/d=e"])], &paths).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CDI device injection failed: unresolvable CDI devices amd.com/gpu=7, b.c/d=e"
        );
        let counted = DeviceRequest { count: 1, ..named(&[]) };
        assert_eq!(
            edits(&[counted], &paths).unwrap_err().to_string(),
            "unexpected count in CDI device request"
        );
    }
}
