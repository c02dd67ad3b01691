//! What a request for a container means in its version, beyond its mounts, and what the client is warned of.

use berth_api::container::CreateRequest;
use berth_api::network::{EndpointSettings, PortBinding};
use berth_api::version::ApiVersion;

use crate::failure::Failure;

/// The option of an endpoint that holds kernel parameters of its link.
const LINK_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What `POST /containers/create` of a version before 1.41 has to know of the host.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// All cgroups are of version 2.
    pub unified: bool,
}

/// Whether a network mode has endpoints of its own: the default bridge, or a network that a user made.
fn has_endpoint(mode: &str) -> bool {
    !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// The default of the namespace that older clients expect, and what they did not have.
pub fn namespaces(version: ApiVersion, request: &mut CreateRequest, host: Host) {
    let before = |minor| version < ApiVersion::new(1, minor);
    let config = request.host_config.get_or_insert_default();
    if before(40) && config.ipc_mode.is_empty() {
        config.ipc_mode = "shareable".into();
    }
    if before(41) && config.cgroupns_mode.is_empty() && !host.unified {
        config.cgroupns_mode = "host".into();
    }
}

/// `HostConfig.Capabilities`, which there was in 1.40 alone, and which must not be left out of account.
pub fn capabilities(version: ApiVersion, request: &mut CreateRequest) -> Result<(), Failure> {
    let given = request.host_config.as_mut().and_then(|host| host.capabilities.take());
    if version == ApiVersion::new(1, 40) && given.is_some_and(|list| !list.is_empty()) {
        return Err(Failure::invalid(
            "the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities",
        ));
    }
    Ok(())
}

/// The endpoint of the container's network mode; made if there is none at all.
fn main_endpoint<'a>(mode: &str, request: &'a mut CreateRequest) -> Option<&'a mut EndpointSettings> {
    let endpoints =
        request.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
    let name = if matches!(mode, "" | "default") { "bridge" } else { mode };
    let only = (endpoints.len() == 1).then(|| endpoints.keys().next().cloned()).flatten();
    let name = match only {
        Some(only) if !endpoints.contains_key(name) => only,
        _ => name.to_owned(),
    };
    Some(endpoints.entry(name).or_default().get_or_insert_default())
}

/// The MAC address, which belonged to the container first, then to an endpoint as well, then to that alone.
pub fn mac_address(version: ApiVersion, request: &mut CreateRequest) -> Result<(), Failure> {
    let before = |minor| version < ApiVersion::new(1, minor);
    let address = request.config.mac_address.clone();
    let mode = request.host_config.as_ref().map(|host| host.network_mode.clone()).unwrap_or_default();
    if before(44) && address.is_empty() {
        let endpoints = request.networking_config.iter_mut().filter_map(|n| n.endpoints_config.as_mut());
        endpoints.flatten().filter_map(|(_, endpoint)| endpoint.as_mut()).for_each(|endpoint| {
            endpoint.mac_address.clear();
        });
        return Ok(());
    }
    if address.is_empty() {
        return Ok(());
    }
    if !before(52) {
        return Err(Failure::invalid(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address instead",
        ));
    }
    if !has_endpoint(&mode) {
        if before(44) {
            return Err(Failure::invalid("conflicting options: mac-address and the network mode"));
        }
        return Ok(());
    }
    if let Some(endpoint) = main_endpoint(&mode, request) {
        if !before(44) && !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
            return Err(Failure::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or \
                 be left empty",
            ));
        }
        endpoint.mac_address = address;
    }
    Ok(())
}

/// Kernel parameters of one link belong to its endpoint. Since 1.48 they have to be given there; before, those of `eth0` are
/// moved there, and the client is told.
pub fn link_sysctls(version: ApiVersion, request: &mut CreateRequest) -> Result<Option<String>, Failure> {
    let Some(host) = &mut request.host_config else { return Ok(None) };
    let Some(given) = host.sysctls.as_mut().filter(|_| has_endpoint(&host.network_mode)) else {
        return Ok(None);
    };
    let mut moved = Vec::new();
    for key in given.keys() {
        let parts: Vec<&str> = key.splitn(5, '.').collect();
        let ["net", family, table, link, parameter] = parts[..] else { continue };
        if !link.starts_with("eth") {
            continue;
        }
        if version >= ApiVersion::new(1, 48) {
            return Err(Failure::invalid(format!(
                "interface specific sysctl setting {key:?} must be supplied using driver option '{LINK_SYSCTLS}'"
            )));
        }
        if link != "eth0" {
            return Err(Failure::invalid(format!(
                "unable to determine network endpoint for sysctl {key}, use driver option '{LINK_SYSCTLS}' to set \
                 per-interface sysctls"
            )));
        }
        moved.push((key.clone(), format!("net.{family}.{table}.IFNAME.{parameter}")));
    }
    if moved.is_empty() {
        return Ok(None);
    }
    let values: Vec<String> =
        moved.iter().filter_map(|(key, name)| Some(format!("{name}={}", given.remove(key)?))).collect();
    let (mode, values) = (host.network_mode.clone(), values.join(","));
    let keys: Vec<&str> = moved.iter().map(|(key, _)| key.as_str()).collect();
    let told = format!("Migrated sysctl {:?} to DriverOpts{{{LINK_SYSCTLS:?}:{values:?}}}.", keys.join(","));
    if let Some(endpoint) = main_endpoint(&mode, request) {
        let options = endpoint.driver_opts.get_or_insert_default();
        // What was given for the endpoint itself comes last, and wins.
        let all = match options.get(LINK_SYSCTLS) {
            Some(own) => format!("{values},{own}"),
            None => values,
        };
        options.insert(LINK_SYSCTLS.into(), all);
    }
    Ok(Some(told))
}

/// The endpoints' priorities, which there are since 1.48.
pub fn priorities(version: ApiVersion, request: &mut CreateRequest) {
    if version < ApiVersion::new(1, 48) {
        let endpoints = request.networking_config.iter_mut().filter_map(|n| n.endpoints_config.as_mut());
        for (_, endpoint) in endpoints.flatten() {
            if let Some(endpoint) = endpoint {
                endpoint.gw_priority = 0;
            }
        }
    }
}

/// A port with an empty list of bindings is published at a free port of the host: it has one, without address and port.
pub fn fill_bindings(request: &mut CreateRequest) {
    let host = request.host_config.iter_mut();
    for bindings in host.filter_map(|host| host.port_bindings.as_mut()).flat_map(|ports| ports.values_mut()) {
        if bindings.as_ref().is_none_or(Vec::is_empty) {
            *bindings = Some(vec![PortBinding::default()]);
        }
    }
}

/// What the client is warned of in its version.
pub fn warnings(version: ApiVersion, request: &CreateRequest) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(host) = &request.host_config else { return warnings };
    let undecided = host.mounts.iter().flatten().filter(|mount| mount.kind == "volume").any(|mount| {
        let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        driver.is_none_or(|driver| driver.name.is_empty())
    });
    if version >= ApiVersion::new(1, 48) && !host.volume_driver.is_empty() && undecided {
        warnings.push(
            "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use \
             '--mount type=volume,volume-driver=...' instead"
                .into(),
        );
    }
    let ports = host.port_bindings.iter().flatten();
    let empty: Vec<&str> = ports
        .filter(|(_, bindings)| bindings.as_ref().is_none_or(Vec::is_empty))
        .map(|(port, _)| port.as_str())
        .collect();
    if version >= ApiVersion::new(1, 52) && !empty.is_empty() {
        warnings.push(format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings will be discarded in a \
             future version.",
            empty.join(", ")
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(json: &Value) -> CreateRequest {
        berth_api::json::from_value(json.clone()).unwrap()
    }

    fn version(minor: u16) -> ApiVersion {
        ApiVersion::new(1, minor)
    }

    #[test]
    fn namespaces_have_the_default_of_their_version() {
        for (minor, unified, ipc, cgroup) in [
            (39, false, "shareable", "host"),
            (39, true, "shareable", ""),
            (40, false, "", "host"),
            (41, false, "", ""),
        ] {
            let mut asked = request(&json!({ "Image": "i" }));
            namespaces(version(minor), &mut asked, Host { unified });
            let host = asked.host_config.unwrap();
            assert_eq!(
                (host.ipc_mode.as_str(), host.cgroupns_mode.as_str()),
                (ipc, cgroup),
                "{minor} {unified}"
            );
        }
        let mut asked = request(&json!({ "HostConfig": { "CgroupnsMode": "private", "IpcMode": "none" } }));
        namespaces(version(24), &mut asked, Host { unified: false });
        let host = asked.host_config.unwrap();
        assert_eq!((host.ipc_mode.as_str(), host.cgroupns_mode.as_str()), ("none", "private"));
    }

    #[test]
    fn capabilities_are_refused_where_they_meant_something() {
        let json = json!({ "Image": "i", "HostConfig": { "Capabilities": ["CAP_CHOWN"] } });
        for (minor, refused) in [(39, false), (40, true), (41, false), (55, false)] {
            let mut asked = request(&json);
            assert_eq!(capabilities(version(minor), &mut asked).is_err(), refused, "{minor}");
            assert_eq!(asked.host_config.unwrap().capabilities, None);
        }
    }

    #[test]
    fn the_mac_address_moves_to_the_endpoint() {
        const A: &str = "02:42:ac:11:00:0a";
        let wide = |mode: &str| json!({ "MacAddress": A, "HostConfig": { "NetworkMode": mode } });
        let both = json!({ "MacAddress": A, "NetworkingConfig": { "EndpointsConfig": { "n": { "MacAddress": "x" } } } });
        let own = json!({ "NetworkingConfig": { "EndpointsConfig": { "bridge": { "MacAddress": A } } } });
        for (minor, json, expected) in [
            (43, wide("default"), Ok(A)),
            (43, wide("host"), Err("conflicting options: mac-address and the network mode")),
            (43, own.clone(), Ok("")),
            (44, own, Ok(A)),
            (44, wide("mine"), Ok(A)),
            (51, wide("none"), Ok("")),
            (51, both.clone(), Err("the container-wide MAC address must match the endpoint-specific")),
            (43, both, Ok(A)),
            (52, wide("bridge"), Err("container-wide MAC address no longer supported")),
        ] {
            let mut asked = request(&json);
            let outcome = mac_address(version(minor), &mut asked).map_err(|failure| failure.message);
            let endpoints = asked.networking_config.and_then(|n| n.endpoints_config).unwrap_or_default();
            let found = endpoints.into_values().flatten().next().map(|endpoint| endpoint.mac_address);
            match (outcome, expected) {
                (Ok(()), Ok(address)) => assert_eq!(found.unwrap_or_default(), address, "{minor} {json}"),
                (Err(message), Err(words)) => {
                    assert!(message.starts_with(words), "{minor} {json}: {message}")
                }
                (outcome, _) => panic!("{minor} {json}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn parameters_of_a_link_move_to_its_endpoint_or_are_refused() {
        let with = |mode: &str, key: &str| {
            json!({
                "HostConfig": { "NetworkMode": mode, "Sysctls": { key: "1", "net.ipv4.ip_forward": "1" } },
                "NetworkingConfig": { "EndpointsConfig": { "n": { "DriverOpts": { LINK_SYSCTLS: "a=2" } } } },
            })
        };
        let key = "net.ipv4.conf.eth0.log_martians";
        let mut asked = request(&with("n", key));
        let told = link_sysctls(version(47), &mut asked).unwrap().unwrap();
        let value = "net.ipv4.conf.IFNAME.log_martians=1";
        assert_eq!(
            told,
            format!("Migrated sysctl \"{key}\" to DriverOpts{{\"{LINK_SYSCTLS}\":\"{value}\"}}.")
        );
        let kept = asked.host_config.unwrap().sysctls.unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["net.ipv4.ip_forward"]);
        let endpoints = asked.networking_config.unwrap().endpoints_config.unwrap();
        let options = endpoints["n"].as_ref().unwrap().driver_opts.as_ref().unwrap();
        assert_eq!(options[LINK_SYSCTLS], format!("{value},a=2"));
        for (minor, mode, key, expected) in [
            (48, "n", key, Err("interface specific sysctl setting")),
            (47, "n", "net.ipv4.conf.eth1.log_martians", Err("unable to determine network endpoint")),
            (48, "n", "net.ipv4.conf.all.log_martians", Ok(())),
            (48, "host", key, Ok(())),
        ] {
            let outcome = link_sysctls(version(minor), &mut request(&with(mode, key)));
            match (outcome, expected) {
                (Ok(None), Ok(())) => {}
                (Err(failure), Err(words)) => {
                    assert!(failure.message.starts_with(words), "{}", failure.message)
                }
                (outcome, _) => {
                    panic!("{minor} {mode} {key}: {:?}", outcome.map_err(|failure| failure.message))
                }
            }
        }
    }

    #[test]
    fn priorities_of_old_clients_do_not_count() {
        for (minor, expected) in [(47, 0), (48, 7)] {
            let mut asked = request(
                &json!({ "NetworkingConfig": { "EndpointsConfig": { "n": { "GwPriority": 7 }, "m": null } } }),
            );
            priorities(version(minor), &mut asked);
            let endpoints = asked.networking_config.unwrap().endpoints_config.unwrap();
            assert_eq!(endpoints["n"].as_ref().unwrap().gw_priority, expected, "{minor}");
        }
    }

    #[test]
    fn clients_are_warned_since_a_version() {
        let json = json!({ "HostConfig": {
            "VolumeDriver": "d", "Mounts": [{ "Type": "volume", "Target": "/x" }], "PortBindings": { "80/tcp": [] },
        } });
        for (minor, count) in [(47, 0), (48, 1), (51, 1), (52, 2), (55, 2)] {
            assert_eq!(warnings(version(minor), &request(&json)).len(), count, "{minor}");
        }
        let chosen = json!({ "HostConfig": {
            "VolumeDriver": "d",
            "Mounts": [{ "Type": "volume", "Target": "/x", "VolumeOptions": { "DriverConfig": { "Name": "e" } } }],
            "PortBindings": { "80/tcp": [{ "HostPort": "1" }] },
        } });
        assert!(warnings(version(55), &request(&chosen)).is_empty());
    }
}
