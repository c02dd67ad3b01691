//! What a request means in the version of the API that it was made with.

mod create;

use berth_api::container::{CreateRequest, HostConfig, Mount};
use berth_api::version::ApiVersion;

use crate::failure::Failure;
pub use create::{Host, fill_bindings, link_sysctls, warnings};

/// Takes out of a request for a container what its version did not have, and refuses what would be misunderstood.
pub fn create(version: ApiVersion, request: &mut CreateRequest, kernel: Host) -> Result<(), Failure> {
    create::namespaces(version, request, kernel);
    create::capabilities(version, request)?;
    create::mac_address(version, request)?;
    create::priorities(version, request);
    let host = request.host_config.get_or_insert_default();
    let before = |minor| version < ApiVersion::new(1, minor);
    if before(42) {
        host.console_size = [0, 0];
    }
    if before(43) {
        host.annotations = None;
    }
    if before(44) {
        if let Some(check) = &mut request.config.healthcheck {
            check.start_interval = 0;
        }
        let endpoints = request.networking_config.iter().filter_map(|n| n.endpoints_config.as_ref());
        let names: Vec<&str> = endpoints.flat_map(|e| e.keys()).map(String::as_str).collect();
        if names.len() > 1 {
            return Err(Failure::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    mounts(version, host)
}

fn mounts(version: ApiVersion, host: &mut HostConfig) -> Result<(), Failure> {
    let before = |minor| version < ApiVersion::new(1, minor);
    for mount in host.mounts.iter_mut().flatten() {
        if before(42) {
            old_options(version, mount);
        } else {
            own_options(mount)?;
        }
        let bind = mount.bind_options.as_ref();
        if before(44) && bind.is_some_and(|bind| bind.read_only_force_recursive) {
            return Err(Failure::invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
        }
        let volume = mount.volume_options.as_ref();
        if before(45) && volume.is_some_and(|volume| !volume.subpath.is_empty()) {
            return Err(Failure::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
        }
        if before(48) && mount.kind == "image" {
            return Err(Failure::invalid("Mount type \"Image\" needs API v1.48 or newer"));
        }
    }
    Ok(())
}

/// Options that did not exist are not seen, and those of another type of mount are not complained about.
fn old_options(version: ApiVersion, mount: &mut Mount) {
    if let Some(bind) = &mut mount.bind_options {
        bind.create_mountpoint = false;
        if version < ApiVersion::new(1, 40) {
            bind.non_recursive = false;
        }
    }
    if mount.kind != "volume" {
        mount.volume_options = None;
    }
    if mount.kind != "tmpfs" {
        mount.tmpfs_options = None;
    }
}

fn own_options(mount: &Mount) -> Result<(), Failure> {
    let options = [
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
    ];
    match options.iter().find(|(_, given, kind)| *given && mount.kind != *kind) {
        Some((name, ..)) => {
            Err(Failure::invalid(format!("{name} must not be specified on mount type {:?}", mount.kind)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { unified: true };

    fn request(json: serde_json::Value) -> CreateRequest {
        berth_api::json::from_value(json).unwrap()
    }

    fn refused(minor: u16, json: serde_json::Value) -> String {
        create(ApiVersion::new(1, minor), &mut request(json), HOST).unwrap_err().message
    }

    #[test]
    fn old_versions_do_not_have_new_fields() {
        let json = serde_json::json!({
            "Image": "i",
            "Healthcheck": { "StartInterval": 5 },
            "HostConfig": { "Annotations": { "a": "b" }, "ConsoleSize": [1, 2] },
        });
        let mut old = request(json.clone());
        create(ApiVersion::new(1, 39), &mut old, Host { unified: false }).unwrap();
        let host = old.host_config.unwrap();
        assert_eq!(host.cgroupns_mode, "host");
        assert_eq!(
            (host.ipc_mode.as_str(), host.annotations, host.console_size),
            ("shareable", None, [0, 0])
        );
        assert_eq!(old.config.healthcheck.unwrap().start_interval, 0);
        let mut new = request(json.clone());
        create(ApiVersion::NEWEST, &mut new, HOST).unwrap();
        assert_eq!(new, request(json));
    }

    #[test]
    fn mounts_have_the_options_of_their_type() {
        let mount = |mount| serde_json::json!({ "Image": "i", "HostConfig": { "Mounts": [mount] } });
        let wrong = mount(serde_json::json!({ "Type": "bind", "VolumeOptions": {} }));
        assert_eq!(refused(55, wrong.clone()), "VolumeOptions must not be specified on mount type \"bind\"");
        create(ApiVersion::new(1, 41), &mut request(wrong), HOST).unwrap();
        let image = mount(serde_json::json!({ "Type": "image" }));
        assert_eq!(refused(47, image), "Mount type \"Image\" needs API v1.48 or newer");
    }

    #[test]
    fn old_versions_have_one_network() {
        let json = serde_json::json!({
            "Image": "i",
            "NetworkingConfig": { "EndpointsConfig": { "a": null, "b": null } },
        });
        assert_eq!(refused(43, json), "Container cannot be created with multiple network endpoints: a, b");
    }
}
