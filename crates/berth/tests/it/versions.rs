//! The same request in different versions of the API.

use serde_json::json;

use crate::api::{ask, request};
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
