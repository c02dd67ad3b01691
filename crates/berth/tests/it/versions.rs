//! The same request in different versions of the API.

use serde_json::json;

use crate::api::{ask, refused, request};
use crate::daemon::{Client, Daemon};
use crate::raw;

#[test]
fn requests_mean_what_they_meant_in_their_version() {
    let daemon = Daemon::start();
    let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": "none" } });
    for (version, parameters, expected) in [
        ("1.40", "name=v40&platform=linux/s390x", 201),
        ("1.41", "platform=linux/s390x", 404),
        ("1.55", "name=v55", 201),
    ] {
        let path = format!("/v{version}/containers/create?{parameters}");
        let (code, answer) = ask(&daemon, &path, Some(&body));
        assert_eq!(code, expected, "{version}: {answer}");
    }
    let modes = |name: &str| daemon.inspect(name, "{{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}}");
    let version = daemon.with(Client::Docker, &["info", "-f", "{{.CgroupVersion}}"]).ok();
    assert_eq!(modes("v40"), if version == "1" { "private host" } else { "private private" });
    assert_eq!(modes("v55"), if version == "1" { "private host" } else { "private private" });

    let mac = json!({ "Image": "busybox", "MacAddress": "02:42:ac:11:00:0a" });
    assert_eq!(ask(&daemon, "/v1.51/containers/create", Some(&mac)).0, 201);
    let (code, answer) = ask(&daemon, "/v1.52/containers/create", Some(&mac));
    assert!(code == 400 && answer["message"].as_str().unwrap().starts_with("container-wide MAC"), "{answer}");
    let capabilities = json!({ "Image": "busybox", "HostConfig": { "Capabilities": ["CAP_CHOWN"] } });
    assert_eq!(ask(&daemon, "/v1.40/containers/create", Some(&capabilities)).0, 400);
    assert_eq!(ask(&daemon, "/v1.41/containers/create", Some(&capabilities)).0, 201);
    assert_eq!(ask(&daemon, "/v1.53/images/json?identity=1", None).0, 200);
    let (code, answer) = ask(&daemon, "/v1.54/images/json?identity=1", None);
    assert!(code == 400 && answer["message"] == "identity requires manifests=1", "{answer}");
    let ports = json!({ "Image": "busybox", "HostConfig": { "PortBindings": { "80/tcp": [] } } });
    for (version, count) in [("1.51", 0), ("1.52", 1)] {
        let (_, answer) = ask(&daemon, &format!("/v{version}/containers/create"), Some(&ports));
        assert_eq!(answer["Warnings"].as_array().unwrap().len(), count, "{version}: {answer}");
    }
}

#[test]
fn answers_have_the_form_of_their_version() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sh", "-c", "exit 3"]);
    assert_eq!(daemon.wait(&id), 3);
    for (version, condition, expected) in
        [("1.29", "nonsense", 200), ("1.30", "nonsense", 400), ("1.30", "", 200)]
    {
        let path = format!("/v{version}/containers/{id}/wait?condition={condition}");
        let (code, answer) = request(&daemon, "POST", &path, None);
        assert_eq!(code, expected, "{version}: {answer}");
        assert!(code == 400 || answer["StatusCode"] == 3, "{version}: {answer}");
    }
    for (version, accept, expected) in [
        ("1.51", "", "application/json"),
        ("1.52", "", "application/jsonl"),
        ("1.55", "Accept: application/json-seq\r\n", "application/json-seq"),
    ] {
        let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
        let past = format!("/v{version}/events?since=1&until={soon}");
        let answer = raw::exchange(&daemon, &raw::request("GET", &past, accept, b""));
        assert!(answer.contains(&format!("Content-Type: {expected}\r\n")), "{version}: {answer}");
        let old = ["\"status\":\"die\"", "\"from\":\"busybox\"", &format!("\"id\":\"{id}\"")];
        for field in old {
            assert_eq!(answer.contains(field), version == "1.51", "{version}: {answer}");
        }
    }
}

#[test]
fn routes_begin_with_a_version_and_refusals_are_dockers() {
    let daemon = Daemon::start();
    for (method, path, code, message) in [
        ("POST", "/v1.24/containers/prune", 400, "POST /containers/prune requires minimum API version 1.25"),
        ("POST", "/v1.30/build/prune", 400, "POST /build/prune requires minimum API version 1.31"),
        ("GET", "/v1.29/configs", 400, "GET /configs requires minimum API version 1.30"),
        ("GET", "/v1.30/configs", 503, "This node is not a swarm manager."),
        ("POST", "/swarm/leave?force=1", 503, "This node is not part of a swarm"),
        ("GET", "/plugins/some/one/json", 404, "plugin \"some/one\" not found"),
        ("POST", "/plugins/some/enable", 404, "plugin \"some\" not found"),
        ("DELETE", "/plugins/some", 404, "plugin \"some\" not found"),
        ("GET", "/plugins?filters=%7B%22name%22%3A%5B%22a%22%5D%7D", 400, "invalid filter 'name'"),
        ("PATCH", "/plugins/some", 404, "page not found"),
    ] {
        let (found, text) = refused(&daemon, method, path);
        assert!(found == code && text.starts_with(message), "{method} {path}: {found} {text}");
    }
    for path in ["/anything", "/v1.40/containers/json", "/containers/x/start"] {
        assert_eq!(request(&daemon, "OPTIONS", path, None).0, 200, "{path}");
    }
    let id = daemon.with(Client::Docker, &["create", "busybox", "true"]).ok();
    let body = json!({ "Binds": ["/a:/b"] });
    let (code, answer) = ask(&daemon, &format!("/containers/{id}/start"), Some(&body));
    let message = answer["message"].as_str().unwrap();
    assert!(code == 400 && message.starts_with("starting container with non-empty request body"), "{answer}");
    assert_eq!(ask(&daemon, &format!("/containers/{id}/start"), Some(&json!({}))).0, 204);
}

#[test]
fn what_belongs_to_a_link_is_told_and_taken_as_in_its_version() {
    let daemon = Daemon::start();
    let key = "net.ipv4.conf.eth0.log_martians";
    let body = json!({
        "Image": "busybox", "Cmd": ["cat", "/proc/sys/net/ipv4/conf/eth0/log_martians"],
        "HostConfig": { "Sysctls": { key: "1" } },
    });
    let (code, answer) = ask(&daemon, "/v1.48/containers/create", Some(&body));
    assert!(code == 400, "{answer}");
    assert!(answer["message"].as_str().unwrap().starts_with("interface specific sysctl setting"), "{answer}");
    let (code, answer) = ask(&daemon, "/v1.47/containers/create?name=old", Some(&body));
    assert!(
        code == 201 && answer["Warnings"][0].as_str().unwrap().starts_with("Migrated sysctl"),
        "{answer}"
    );
    assert_eq!(daemon.berth(&["start", "-a", "old"]).ok(), "1");

    let mac = "02:42:ac:11:00:0a";
    daemon.with(Client::Docker, &["create", "--name", "mac", "--mac-address", mac, "busybox"]).ok();
    for (version, there) in [("1.51", true), ("1.52", false)] {
        let (_, answer) = ask(&daemon, &format!("/v{version}/containers/mac/json"), None);
        assert_eq!(answer["Config"].get("MacAddress").is_some(), there, "{version}: {answer}");
    }
}

#[test]
fn the_oldest_version_is_the_administrators_choice() {
    let daemon = Daemon::start_with("DOCKER_MIN_API_VERSION", "1.44");
    let (code, message) = refused(&daemon, "GET", "/v1.43/info");
    assert!(code == 400 && message.contains("Minimum supported API version is 1.44"), "{code} {message}");
    assert_eq!(ask(&daemon, "/v1.44/info", None).0, 200);
    assert_eq!(ask(&daemon, "/version", None).1["MinAPIVersion"], "1.44");
    daemon.with(Client::Docker, &["ps"]).ok();
}

#[test]
fn what_builders_kept_is_told_to_be_removed() {
    let daemon = Daemon::start();
    for client in [Client::Berth, Client::Docker] {
        let began = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        daemon.with(client, &["builder", "prune", "-f"]).ok();
        let until = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1).to_string();
        let seen = daemon
            .with(
                client,
                &["events", "--since", &began.to_string(), "--until", &until, "--filter", "type=builder"],
            )
            .ok();
        assert!(seen.contains("builder prune") && seen.contains("reclaimed=0"), "{seen}");
    }
}

#[test]
fn info_tells_the_pools_that_were_chosen() {
    let daemon = Daemon::empty(&["--default-address-pool", "base=10.77.0.0/16,size=24"]);
    let (_, info) = ask(&daemon, "/info", None);
    assert_eq!(info["DefaultAddressPools"], json!([{ "Base": "10.77.0.0/16", "Size": 24 }]));
    assert_eq!(ask(&Daemon::empty(&[]), "/info", None).1.get("DefaultAddressPools"), None);
}
