//! Binds of what has mounts below it, and of the daemon's own directory.

use serde_json::{Value, json};

use crate::api::ask;
use crate::daemon::{Client, Daemon};
use crate::flags::{inside, refused};

/// The attributes of what is mounted on the host's `/dev/pts`, where a container has it.
const BELOW: &str = "grep ' /host/pts ' /proc/self/mountinfo | cut -d ' ' -f 6";

with_both_clients! {
    fn read_only_goes_all_the_way_down(daemon: &Daemon, client: Client) {
        let mount = "type=bind,source=/dev,target=/host,readonly";
        assert!(inside(daemon, client, &["-v", "/dev:/host"], BELOW).starts_with("rw,"));
        assert!(inside(daemon, client, &["-v", "/dev:/host:ro"], BELOW).starts_with("ro,"));
        assert!(inside(daemon, client, &["--mount", mount], BELOW).starts_with("ro,"));
    }

    fn binds_of_the_data_root_follow_the_host(daemon: &Daemon, client: Client) {
        let root = daemon.data_root().display().to_string();
        let shown = |bind: &str| {
            let id = daemon.with(client, &["create", "-v", bind, "busybox"]).ok();
            daemon.inspect(&id, "{{(index .Mounts 0).Propagation}}")
        };
        assert_eq!(shown(&format!("{root}:/m")), "rslave");
        assert_eq!(shown("/:/m:ro"), "rslave");
        assert_eq!(shown(&format!("{root}/x:/m:rshared")), "rshared");
        assert_eq!(shown("/usr:/m"), "rprivate");
        assert_eq!(inside(daemon, client, &["-v", &format!("{root}:/m:ro")], "test -d /m && echo there"), "there");
        refused(daemon, client, &["-v", &format!("{root}:/m:rprivate")], "within the daemon root");
        let mount = "type=bind,source=/,target=/m,bind-propagation=shared";
        refused(daemon, client, &["--mount", mount], "propagation: \"shared\"");
    }
}

#[test]
fn a_read_only_bind_of_an_older_client_is_read_only_at_its_top_alone() {
    let daemon = Daemon::start();
    let below = |version: &str, host: Value| {
        let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", BELOW], "HostConfig": host });
        let (code, answer) = ask(&daemon, &format!("/v{version}/containers/create"), Some(&body));
        assert_eq!(code, 201, "{version}: {answer}");
        let shown = daemon.berth(&["start", "-a", answer["Id"].as_str().unwrap()]).ok();
        shown.split(',').next().unwrap_or_default().to_owned()
    };
    let short = json!({ "Binds": ["/dev:/host:ro"] });
    let mount = |options: Value| json!({ "Mounts": [{ "Type": "bind", "Source": "/dev", "Target": "/host", "ReadOnly": true, "BindOptions": options }] });
    for (version, host, expected) in [
        ("1.43", short.clone(), "rw"),
        ("1.43", mount(json!({})), "rw"),
        ("1.44", short, "ro"),
        ("1.44", mount(json!({})), "ro"),
        ("1.44", mount(json!({ "ReadOnlyNonRecursive": true })), "rw"),
        ("1.44", mount(json!({ "ReadOnlyForceRecursive": true })), "ro"),
    ] {
        assert_eq!(below(version, host.clone()), expected, "{version} {host}");
    }
    let both = mount(json!({ "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true }));
    let body = json!({ "Image": "busybox", "HostConfig": both });
    assert_eq!(ask(&daemon, "/v1.55/containers/create", Some(&body)).0, 400);
}
