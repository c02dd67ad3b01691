//! Everything about one container.

use berth_api::StringMap;
use berth_api::container::{
    GraphDriver, HostConfig, Inspect, MountPoint, NetworkSettings, State as ApiState,
};
use berth_api::time::Time;

use crate::blocking::blocking;
use crate::container::health::Health;
use crate::container::{Container, Kept};
use crate::create::mounts::{MountPlan, MountSource};
use crate::create::{Definition, NetworkPlan};
use crate::engine::Parts;
use crate::{Engine, Error, logging, networks};

impl Engine {
    /// Everything about a container; with `size`, also the size of its writable layer.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<Inspect, Error> {
        let container = self.parts.containers.find(name)?;
        let parts = std::sync::Arc::clone(&self.parts);
        // The database is read, and with `size` the container's directory walked.
        blocking(move || inspect(&parts, &container, size)).await
    }
}

fn inspect(parts: &Parts, container: &Container, size: bool) -> Result<Inspect, Error> {
    let definition = &container.definition;
    let kept = container.kept();
    let directory = parts.storage.container_dir(container.id())?;
    let file = |name: &str| directory.join(name).display().to_string();
    let (size_rw, size_root_fs) = match size {
        true => sizes(parts, definition)?,
        false => (None, None),
    };
    let exec_ids = parts.execs.of(container.id());
    Ok(Inspect {
        id: definition.id.clone(),
        created: Time(definition.created),
        path: definition.path.clone(),
        args: definition.args.clone(),
        state: ApiState { health: kept.health.as_deref().map(Health::to_api), ..kept.state.to_api() },
        image: definition.image.clone(),
        image_manifest_descriptor: definition.image_manifest.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        // As with Docker, the other drivers' files are not for others to read.
        log_path: match definition.host.log_config.driver.as_str() {
            "json-file" => logging::json_path(&directory, container.id()).display().to_string(),
            _ => String::new(),
        },
        name: format!("/{}", kept.name),
        restart_count: i64::from(kept.restarts),
        driver: parts.storage.driver().name().into(),
        platform: "linux".into(),
        mount_label: String::new(),
        process_label: String::new(),
        app_armor_profile: parts.apparmor.profile(&definition.host),
        exec_ids: Some(exec_ids).filter(|ids| !ids.is_empty()),
        host_config: HostConfig { links: parts.shown_links(&kept), ..container.current().host.clone() },
        graph_driver: Some(graph_driver(parts, definition)),
        size_rw,
        size_root_fs,
        mounts: mount_points(parts, definition),
        config: parts.effective(definition).config.clone(),
        network_settings: network_settings(definition, &kept),
    })
}

fn network_settings(definition: &Definition, kept: &Kept) -> NetworkSettings {
    let running = kept.state.running();
    let own = running.filter(|_| !matches!(definition.network, NetworkPlan::Container(_)));
    NetworkSettings {
        sandbox_id: own.map(|_| networks::sandbox_id(&definition.id)).unwrap_or_default(),
        sandbox_key: own.map(|running| format!("/proc/{}/ns/net", running.pid)).unwrap_or_default(),
        ports: match running {
            Some(_) if definition.network.has_endpoints() => {
                networks::port_map(definition, kept.state.endpoints())
            }
            _ => Default::default(),
        },
        networks: networks::endpoints(definition, kept),
    }
}

/// The container's layers. What is mounted from them is seen in its own mount namespace alone, so there is no
/// directory of the merged view. As with Docker, there is nothing to tell of a whole copy.
fn graph_driver(parts: &Parts, definition: &Definition) -> GraphDriver {
    let name = parts.storage.driver().name().to_owned();
    let mut data = StringMap::from([("ID".to_owned(), definition.id.clone())]);
    // A container that is being removed may have no layers any more.
    if let Ok(snapshot) = parts.storage.snapshots().mounts(&definition.id) {
        let Some(work) = snapshot.work else { return GraphDriver { name, data: None } };
        let lower: Vec<_> = snapshot.lower.iter().map(|path| path.display().to_string()).collect();
        data.insert("LowerDir".into(), lower.join(":"));
        data.insert("UpperDir".into(), snapshot.upper.display().to_string());
        data.insert("WorkDir".into(), work.display().to_string());
    }
    GraphDriver { name, data: Some(data) }
}

/// Bytes that a container wrote, and bytes of its whole file system. Blocks.
pub(crate) fn sizes(parts: &Parts, definition: &Definition) -> Result<(Option<i64>, Option<i64>), Error> {
    let written = match parts.storage.snapshots().size(&definition.id) {
        Ok(bytes) => to_signed(bytes),
        // Removed meanwhile.
        Err(berth_storage::Error::NotFound { .. }) => return Ok((None, None)),
        Err(error) => return Err(error.into()),
    };
    let image = match definition.image.parse() {
        Ok(id) => parts.storage.images().get(&id)?.map_or(0, |image| to_signed(image.size)),
        Err(_) => 0,
    };
    Ok((Some(written), Some(written.saturating_add(image))))
}

/// A number of bytes as the API has it.
pub(crate) fn to_signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A container's mounts as clients see them.
pub(crate) fn mount_points(parts: &Parts, definition: &Definition) -> Vec<MountPoint> {
    let by_flag = |plan: &MountPlan| {
        matches!(plan.source, MountSource::Tmpfs { .. })
            && definition.host.tmpfs.iter().flatten().any(|(path, _)| same_path(path, &plan.destination))
    };
    // As in Docker, `--tmpfs` shows in the host configuration only.
    definition.mounts.iter().filter(|plan| !by_flag(plan)).map(|plan| mount_point(parts, plan)).collect()
}

fn same_path(given: &str, normal: &str) -> bool {
    std::path::Path::new(given) == std::path::Path::new(normal)
}

fn mount_point(parts: &Parts, plan: &MountPlan) -> MountPoint {
    let mut point = MountPoint {
        destination: plan.destination.clone(),
        mode: plan.mode.clone(),
        rw: !plan.read_only,
        propagation: plan.propagation.clone(),
        ..MountPoint::default()
    };
    match &plan.source {
        MountSource::Bind { path, .. } => {
            point.kind = "bind".into();
            point.source = path.display().to_string();
        }
        MountSource::Volume { name, .. } => {
            point.kind = "volume".into();
            point.name.clone_from(name);
            point.source = parts.volume_dir(name).display().to_string();
            point.driver = parts.volumes.drivers.of(name);
        }
        MountSource::Image { name, id, .. } => {
            point.kind = "image".into();
            point.name.clone_from(name);
            point.source.clone_from(id);
        }
        MountSource::Tmpfs { .. } => point.kind = "tmpfs".into(),
        MountSource::Lent { .. } => point.kind = "build".into(),
    }
    point
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_saturate() {
        assert_eq!(to_signed(7), 7);
        assert_eq!(to_signed(u64::MAX), i64::MAX);
    }

    #[test]
    fn paths_are_compared_by_their_parts() {
        assert!(same_path("/a//b/", "/a/b"));
        assert!(!same_path("/a/b", "/a/c"));
    }

    #[test]
    fn the_namespace_is_shown_while_there_is_one() {
        use crate::container::state::{Running, State};
        let definition = crate::create::tests::definition();
        let mut kept = Kept::new("web".into());
        let shown = network_settings(&definition, &kept);
        assert_eq!((shown.sandbox_key.as_str(), shown.sandbox_id.as_str()), ("", ""));
        assert!(shown.networks.contains_key("bridge"));
        kept.state = State::Running(Running {
            pid: 7,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            paused: false,
            endpoints: vec![],
            oom_killed: false,
            resolver: None,
        });
        let shown = network_settings(&definition, &kept);
        assert_eq!(shown.sandbox_key, "/proc/7/ns/net");
        assert_eq!(shown.sandbox_id.len(), 64);
    }
}
