//! Fields that newer versions of the API dropped, for clients that still ask with an older one.

use berth_api::container::{Inspect, Summary};
use berth_api::system::Info;
use berth_api::version::ApiVersion;
use berth_api::{event, image};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::answer;
use crate::body::Body;

/// Answers with `value`, changed by `change` first.
fn changed<T: Serialize>(value: &T, change: impl FnOnce(&mut Value)) -> Response<Body> {
    match serde_json::to_value(value) {
        Ok(mut value) => {
            change(&mut value);
            answer::ok(&value)
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            answer::status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn extend(target: Option<&mut Value>, fields: Value) {
    if let (Some(Value::Object(target)), Value::Object(fields)) = (target, fields) {
        for (name, value) in fields {
            target.entry(name).or_insert(value);
        }
    }
}

/// A container's inspection. The image's manifest came with 1.48. Before 1.52 its configuration had the address of its link, and the
/// default bridge's endpoint is repeated in `NetworkSettings`; before 1.45 networks that users made tell the container's own names among its aliases.
pub fn container(version: ApiVersion, mut container: Inspect) -> Response<Body> {
    if version >= ApiVersion::new(1, 52) {
        container.config.mac_address.clear();
        return answer::ok(&container);
    }
    if version < ApiVersion::new(1, 45) {
        add_aliases(&mut container);
    }
    changed(&container, |value| {
        if version < ApiVersion::new(1, 48)
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("ImageManifestDescriptor");
        }
        let settings = value.get_mut("NetworkSettings");
        let bridge = settings.as_ref().and_then(|settings| settings.pointer("/Networks/bridge")).cloned();
        let bridge = bridge.unwrap_or_else(|| Value::Object(Map::new()));
        let text = |name: &str| bridge.get(name).cloned().unwrap_or_else(|| json!(""));
        let number = |name: &str| bridge.get(name).cloned().unwrap_or_else(|| json!(0));
        extend(
            settings,
            json!({
                "Bridge": "",
                "HairpinMode": false,
                "LinkLocalIPv6Address": "",
                "LinkLocalIPv6PrefixLen": 0,
                "SecondaryIPAddresses": null,
                "SecondaryIPv6Addresses": null,
                "EndpointID": text("EndpointID"),
                "Gateway": text("Gateway"),
                "GlobalIPv6Address": text("GlobalIPv6Address"),
                "GlobalIPv6PrefixLen": number("GlobalIPv6PrefixLen"),
                "IPAddress": text("IPAddress"),
                "IPPrefixLen": number("IPPrefixLen"),
                "IPv6Gateway": text("IPv6Gateway"),
                "MacAddress": text("MacAddress"),
            }),
        );
    })
}

fn add_aliases(container: &mut Inspect) {
    let names = [container.id.chars().take(12).collect(), container.config.hostname.clone()];
    for (network, endpoint) in &mut container.network_settings.networks {
        // Compose 1 takes its own names for a sign that a network was joined with all links and addresses: before a start
        // there must be none, as in Docker 20.10.
        let joined = !endpoint.endpoint_id.is_empty();
        if !joined || matches!(network.as_str(), "bridge" | "host" | "none" | "default") {
            continue;
        }
        let aliases = endpoint.aliases.get_or_insert_default();
        for name in &names {
            if !aliases.contains(name) {
                aliases.push(name.clone());
            }
        }
    }
}

/// The list of containers. Annotations came with 1.46, the image's manifest with 1.48, health with 1.52.
pub fn containers(version: ApiVersion, mut containers: Vec<Summary>) -> Response<Body> {
    for container in &mut containers {
        if version < ApiVersion::new(1, 46) {
            container.host_config.annotations = None;
        }
        if version < ApiVersion::new(1, 48) {
            container.image_manifest_descriptor = None;
        }
        if version < ApiVersion::new(1, 52) {
            container.health = None;
        }
    }
    answer::ok(&containers)
}

/// What there is to know of the engine.
pub fn info(version: ApiVersion, mut info: Info) -> Response<Body> {
    let before = |minor| version < ApiVersion::new(1, minor);
    if before(44) {
        info.runtimes.values_mut().for_each(|runtime| runtime.status = None);
    }
    if before(46) {
        info.containerd = None;
    }
    if before(49) {
        info.firewall_backend = None;
    }
    if !before(50) {
        return answer::ok(&info);
    }
    info.discovered_devices = None;
    changed(&info, |value| {
        extend(Some(value), json!({ "BridgeNfIptables": false, "BridgeNfIp6tables": false }));
        if before(49) {
            for name in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
                let id = value.pointer(&format!("/{name}/ID")).cloned();
                extend(value.get_mut(name), json!({ "Expected": id }));
            }
        }
        if before(47) {
            let lists = json!({
                "AllowNondistributableArtifactsCIDRs": null,
                "AllowNondistributableArtifactsHostnames": null,
            });
            extend(value.get_mut("RegistryConfig"), lists);
        }
    })
}

/// The list of images. Before 1.51 containers were not counted, before 1.44 the size was also called the virtual size, and
/// before 1.43 an image without names was called so.
pub fn images(version: ApiVersion, mut images: Vec<image::Summary>) -> Response<Body> {
    for image in &mut images {
        if version < ApiVersion::new(1, 51) {
            image.containers = -1;
        }
        if version < ApiVersion::new(1, 43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
            image.repo_tags.push("<none>:<none>".into());
            image.repo_digests.push("<none>@<none>".into());
        }
    }
    if version >= ApiVersion::new(1, 44) {
        return answer::ok(&images);
    }
    changed(&images, |value| {
        for image in value.as_array_mut().into_iter().flatten() {
            let size = image.get("Size").cloned();
            extend(Some(image), json!({ "VirtualSize": size }));
        }
    })
}

/// An image's inspection, with the fields of images that were built by committing containers. Before 1.52 fields without a
/// value were told.
pub fn image(version: ApiVersion, image: &image::Inspect) -> Response<Body> {
    let before = |minor| version < ApiVersion::new(1, minor);
    if !before(52) {
        return answer::ok(image);
    }
    changed(image, |value| {
        extend(Some(value), json!({ "Parent": "", "Comment": "", "DockerVersion": "", "Author": "" }));
        let empty = json!({
            "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "",
            "Volumes": null, "WorkingDir": "",
        });
        extend(value.get_mut("Config"), empty);
        if before(50) {
            let of_containers = json!({
                "AttachStderr": false, "AttachStdin": false, "AttachStdout": false, "Domainname": "", "Hostname": "",
                "Image": "", "OpenStdin": false, "StdinOnce": false, "Tty": false,
            });
            extend(value.get_mut("Config"), of_containers);
        }
        if before(45) {
            // Docker leaves it null, which Compose 1 fails at: it looks here for volumes of the image to be kept.
            let config = value.get("Config").filter(|config| config.is_object()).cloned();
            let config = config.unwrap_or_else(|| json!({}));
            extend(Some(value), json!({ "Container": "", "ContainerConfig": config }));
        }
        if before(44) {
            extend(Some(value), json!({ "VirtualSize": image.size, "Created": "0001-01-01T00:00:00Z" }));
        }
    })
}

/// Whether a version knows an event: that an image was created is told since 1.46.
pub fn knows(version: ApiVersion, event: &event::Message) -> bool {
    version >= ApiVersion::new(1, 46) || event.kind != "image" || event.action != "create"
}

/// An event. Before 1.52 containers' and images' events repeat the action and the actor at the top.
pub fn event(version: ApiVersion, mut event: event::Message) -> event::Message {
    if version >= ApiVersion::new(1, 52) {
        for repeated in [&mut event.status, &mut event.id, &mut event.from] {
            repeated.clear();
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use berth_api::network::EndpointSettings;

    use super::*;

    fn document(response: Response<Body>) -> Value {
        match response.into_body() {
            Body::Full(bytes) => serde_json::from_slice(&bytes).unwrap(),
            _ => panic!("a document is sent whole"),
        }
    }

    #[test]
    fn old_clients_find_the_address_where_it_was() {
        let mut inspected = Inspect::default();
        let endpoint = EndpointSettings {
            ip_address: "172.17.0.2".into(),
            ip_prefix_len: 16,
            ..EndpointSettings::default()
        };
        inspected.network_settings.networks.insert("bridge".into(), endpoint);
        let old = document(container(ApiVersion::new(1, 45), inspected.clone()));
        assert_eq!(old["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert_eq!(old["NetworkSettings"]["IPPrefixLen"], 16);
        let new = document(container(ApiVersion::NEWEST, inspected));
        assert!(new["NetworkSettings"].get("IPAddress").is_none());
        let mut addressed = Inspect::default();
        addressed.config.mac_address = "02:42:ac:11:00:02".into();
        for (minor, there) in [(51, true), (52, false)] {
            let shown = document(container(ApiVersion::new(1, minor), addressed.clone()));
            assert_eq!(shown["Config"].get("MacAddress").is_some(), there, "{minor}");
        }
        let without = document(container(ApiVersion::new(1, 45), Inspect::default()));
        assert_eq!(without["NetworkSettings"]["IPAddress"], "");
    }

    #[test]
    fn old_clients_find_the_containers_own_names_among_its_aliases() {
        let all = json!(["mine", "0123456789ab", "host"]);
        for (minor, id, expected) in
            [(44, "joined", all), (44, "", json!(["mine"])), (45, "joined", json!(["mine"]))]
        {
            let mut inspected = Inspect { id: "0123456789abcdef".into(), ..Inspect::default() };
            inspected.config.hostname = "host".into();
            for network in ["bridge", "made"] {
                let aliases = Some(vec!["mine".to_owned()]);
                let endpoint =
                    EndpointSettings { aliases, endpoint_id: id.into(), ..EndpointSettings::default() };
                inspected.network_settings.networks.insert(network.into(), endpoint);
            }
            let shown = document(container(ApiVersion::new(1, minor), inspected));
            assert_eq!(shown["NetworkSettings"]["Networks"]["made"]["Aliases"], expected, "{minor} {id}");
            assert_eq!(shown["NetworkSettings"]["Networks"]["bridge"]["Aliases"], json!(["mine"]));
        }
    }

    #[test]
    fn old_clients_hear_of_what_they_know() {
        let created = event::Message { kind: "image".into(), action: "create".into(), ..Default::default() };
        let pulled = event::Message { action: "pull".into(), ..created.clone() };
        for (minor, known) in [(45, false), (46, true)] {
            assert_eq!(knows(ApiVersion::new(1, minor), &created), known, "{minor}");
            assert!(knows(ApiVersion::new(1, minor), &pulled));
        }
    }

    #[test]
    fn runtimes_have_a_status_since_a_version() {
        for (minor, there) in [(43, false), (44, true)] {
            let mut asked = Info::default();
            let runtime =
                berth_api::system::Runtime { status: Some(Default::default()), ..Default::default() };
            asked.runtimes.insert("berth".into(), runtime);
            let shown = document(info(ApiVersion::new(1, minor), asked));
            assert_eq!(shown["Runtimes"]["berth"].get("status").is_some(), there, "{minor}");
        }
    }

    #[test]
    fn old_clients_find_the_virtual_size() {
        let list = [image::Summary { size: 7, ..image::Summary::default() }];
        assert_eq!(document(images(ApiVersion::new(1, 43), list.to_vec()))[0]["VirtualSize"], 7);
        assert!(document(images(ApiVersion::new(1, 44), list.to_vec()))[0].get("VirtualSize").is_none());
        let inspected = image::Inspect { size: 9, ..image::Inspect::default() };
        assert_eq!(document(image(ApiVersion::new(1, 43), &inspected))["VirtualSize"], 9);
        assert!(document(image(ApiVersion::new(1, 49), &inspected)).get("ContainerConfig").is_none());
        assert!(document(image(ApiVersion::new(1, 44), &inspected))["ContainerConfig"].is_object());
    }

    #[test]
    fn old_clients_find_what_info_told() {
        let mut info_of = Info::default();
        info_of.runc_commit.id = "abc".into();
        info_of.registry_config = Some(Default::default());
        let old = document(info(ApiVersion::new(1, 46), info_of.clone()));
        assert_eq!(old["RuncCommit"]["Expected"], "abc");
        assert_eq!(old["BridgeNfIptables"], false);
        assert!(old["RegistryConfig"].get("AllowNondistributableArtifactsCIDRs").is_some());
        let new = document(info(ApiVersion::NEWEST, info_of));
        assert!(new.get("BridgeNfIptables").is_none() && new["RuncCommit"].get("Expected").is_none());
    }

    #[test]
    fn old_clients_get_events_in_both_forms() {
        let new = event::Message { kind: "container".into(), action: "die".into(), ..Default::default() };
        let [status, id, from] = ["die", "abc", "busybox"].map(str::to_owned);
        let both = event::Message { status, id, from, ..new.clone() };
        assert_eq!(event(ApiVersion::new(1, 51), both.clone()), both);
        assert_eq!(event(ApiVersion::NEWEST, both), new);
    }
}
