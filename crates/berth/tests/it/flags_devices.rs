//! Devices given to a container: by path, by rule, and by name through CDI files.

use std::fs;

use serde_json::json;

use crate::daemon::{Client, Daemon};
use crate::flags::{inside, refused};

with_both_clients! {
    fn devices_by_path(daemon: &Daemon, client: Client) {
        let seen = inside(daemon, client, &["--device", "/dev/fuse:/dev/burn", "--device", "/dev/loop0:r"], "stat -c '%F %t:%T' /dev/burn /dev/loop0; exec 3<>/dev/burn && echo opened");
        assert_eq!(seen, "character special file a:e5\nblock special file 7:0\nopened");
        let denied = inside(daemon, client, &["--device", "/dev/loop0:/dev/disk:r"], "dd if=/dev/zero of=/dev/disk count=1 2>&1 | head -1");
        assert!(denied.to_lowercase().contains("not permitted"), "{denied}");
        let tree = inside(daemon, client, &["--device", "/dev/net"], "ls /dev/net; stat -c %F /dev/net/tun");
        assert_eq!(tree, "tun\ncharacter special file");
        let moved = inside(daemon, client, &["--device", "/dev/net:/dev/wire"], "ls /dev/wire");
        assert_eq!(moved, "tun");
        // The code that clients give for these words.
        daemon.with(client, &["run", "--rm", "--device", "/dev/absent", "busybox"]).fails(127, "error gathering device information while adding custom device \"/dev/absent\": no such file or directory");
        refused(daemon, client, &["--device", "/etc/passwd"], "error gathering device information while adding custom device \"/etc/passwd\": not a device node");
        refused(daemon, client, &["--device", "/dev/fuse:rx"], "rx is not an absolute path");
        refused(daemon, client, &["--device", "/dev/fuse:/a:b"], "bad mode specified: b");
    }

    fn a_link_to_a_device(daemon: &Daemon, client: Client) {
        let link = daemon.root.path().join("link");
        std::os::unix::fs::symlink("/dev/fuse", &link).unwrap();
        let flag = format!("{}:/dev/linked", link.display());
        assert_eq!(inside(daemon, client, &["--device", &flag], "stat -c %t:%T /dev/linked"), "a:e5");
    }

    fn rules_for_devices(daemon: &Daemon, client: Client) {
        let script = "mknod /dev/loopy b 7 1; exec 3</dev/loopy && echo opened || echo refused";
        let output = daemon.with(client, &["run", "--rm", "busybox", "sh", "-c", script]);
        assert!(!output.stdout.contains("opened"), "{output:?}");
        assert_eq!(inside(daemon, client, &["--device-cgroup-rule", "b 7:* rwm"], script), "opened");
        for bad in ["x 7:* rwm", "b 7 rwm", "b 7:* q", "nonsense"] {
            refused(daemon, client, &["--device-cgroup-rule", bad], &format!("invalid device cgroup format '{bad}'"));
        }
    }
}

/// A daemon that looks for CDI files in a folder of its own.
fn with_cdi(files: &[(&str, String)]) -> Daemon {
    let folder = tempfile::Builder::new().prefix("berth-cdi-").tempdir().unwrap().keep();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    let daemon = Daemon::empty(&["--cdi-spec-dir", folder.to_str().unwrap()]);
    daemon.berth(&["load", "-q", "-i", crate::files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

fn vendor_json() -> String {
    json!({
        "cdiVersion": "0.6.0",
        "kind": "vendor.test/gadget",
        "containerEdits": {"env": ["KIND=gadget"]},
        "devices": [
            {"name": "one", "containerEdits": {
                "env": ["ONE=1"],
                "deviceNodes": [{"path": "/dev/gadget", "hostPath": "/dev/fuse", "permissions": "rw"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/opt/vendor/name", "options": ["ro", "bind"]}],
                "additionalGids": [4321],
            }},
            {"name": "0", "containerEdits": {"env": ["ZERO=0"]}},
        ],
    })
    .to_string()
}

const GPU_YAML: &str = r#"
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
  - name: all
    containerEdits:
      env:
        - GPU=all
      deviceNodes:
        - path: /dev/fuse
  - name: "0"
    containerEdits:
      env: [ "GPU=0" ]
"#;

fn cdi(client: Client) {
    let hooks = json!({"cdiVersion": "0.3.0", "kind": "vendor.test/hooked", "devices": [{"name": "h", "containerEdits": {
        "hooks": [{"hookName": "poststop", "path": "/bin/true"}]}}]});
    let files = [
        ("vendor.json", vendor_json()),
        ("gpu.yaml", GPU_YAML.to_owned()),
        ("hooks.json", hooks.to_string()),
        ("broken.json", "{".to_owned()),
    ];
    let daemon = with_cdi(&files);
    let script = "echo $KIND $ONE $ZERO; stat -c %t:%T /dev/gadget; exec 3<>/dev/gadget && echo opened; cat /opt/vendor/name; id -G";
    let seen = inside(
        &daemon,
        client,
        &["--device", "vendor.test/gadget=one", "--device", "vendor.test/gadget=0"],
        script,
    );
    let name = fs::read_to_string("/etc/hostname").unwrap();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..4], ["gadget 1 0", "a:e5", "opened", name.trim()], "{seen}");
    assert!(lines[4].split(' ').any(|group| group == "4321"), "{seen}");
    let written = daemon.with(
        client,
        &[
            "run",
            "--rm",
            "--device",
            "vendor.test/gadget=one",
            "busybox",
            "sh",
            "-c",
            "echo x > /opt/vendor/name",
        ],
    );
    assert!(written.code != 0 && written.stderr.contains("Read-only file system"), "{written:?}");
    assert_eq!(
        inside(&daemon, client, &["--gpus", "all"], "echo $GPU; stat -c %t:%T /dev/fuse"),
        "all\na:e5"
    );
    assert_eq!(inside(&daemon, client, &["--gpus", "device=0"], "echo $GPU"), "0");
    let id = daemon.with(client, &["create", "--device", "vendor.test/gadget=0", "busybox"]).ok();
    assert_eq!(daemon.inspect(&id, "{{(index .HostConfig.DeviceRequests 0).Driver}} {{(index .HostConfig.DeviceRequests 0).DeviceIDs}}"), "cdi [vendor.test/gadget=0]");
    refused(
        &daemon,
        client,
        &["--device", "vendor.test/gadget=absent"],
        "CDI device injection failed: unresolvable CDI devices vendor.test/gadget=absent",
    );
    refused(
        &daemon,
        client,
        &["--device", "vendor.test/hooked=h"],
        "hook poststop /bin/true: only createContainer",
    );
    let info = daemon.with(client, &["info", "--format", "{{json .CDISpecDirs}}"]).ok();
    assert!(info.contains("berth-cdi-"), "{info}");
    let answer = crate::output::run(
        std::process::Command::new("curl")
            .args(["-s", "--unix-socket"])
            .arg(daemon.socket())
            .arg("http://localhost/info"),
    );
    assert!(answer.ok().contains(r#"{"Source":"cdi","ID":"vendor.test/gadget=0"}"#));
}

#[test]
fn cdi_devices_through_berth() {
    cdi(Client::Berth);
}

#[test]
fn cdi_devices_through_docker() {
    cdi(Client::Docker);
}

#[test]
fn gpus_without_files_are_refused() {
    let daemon = with_cdi(&[]);
    for client in [Client::Berth, Client::Docker] {
        refused(
            &daemon,
            client,
            &["--gpus", "all"],
            "could not select device driver \"\" with capabilities: [[gpu]]",
        );
        refused(
            &daemon,
            client,
            &["--device", "vendor.test/none=one"],
            "CDI device injection failed: unresolvable CDI devices vendor.test/none=one",
        );
    }
}

/// What a vendor's hook does: it finds the container by the state that it reads, changes its files with the host's
/// programs, and mounts something there.
const HOOK: &str = r#"
bundle=$(sed -n 's/.*"bundle":"\([^"]*\)".*/\1/p')
grep -q '"root":{"path":"rootfs"' "$bundle/config.json" || { echo "no configuration" >&2; exit 1; }
root=$bundle/rootfs
echo "$GREETING" > "$root/hooked"
mkdir -p "$root/opt/mounted"
mount -t tmpfs hooks-tmpfs "$root/opt/mounted"
echo inner > "$root/opt/mounted/file"
"#;

#[test]
fn hooks_of_devices_change_the_container() {
    let hook = |hook: &str, path: &str, args: &[&str]| json!({"hookName": hook, "path": path, "args": args});
    let mut first = hook("createContainer", "/bin/sh", &["sh", "-e", "-c", HOOK]);
    first["env"] = json!(["PATH=/usr/bin:/bin", "GREETING=hello"]);
    let second = hook("startContainer", "/bin/sh", &["sh", "-c", "echo started > /started"]);
    let failing = hook("createContainer", "/bin/sh", &["sh", "-c", "echo out of gadgets >&2; exit 3"]);
    let device =
        |name: &str, hooks: &[serde_json::Value]| json!({"name": name, "containerEdits": {"hooks": hooks}});
    let file = json!({"cdiVersion": "0.6.0", "kind": "vendor.test/hooked", "devices": [
        device("good", &[first, second]),
        device("bad", &[failing]),
    ]});
    let daemon = with_cdi(&[("hooks.json", file.to_string())]);
    let script =
        "cat /hooked /opt/mounted/file /started; stat -c %a /hooked; grep -c bundle /proc/self/mountinfo";
    for client in [Client::Berth, Client::Docker] {
        let seen = daemon.with(
            client,
            &[
                "run",
                "--name",
                "hooked",
                "--device",
                "vendor.test/hooked=good",
                "busybox",
                "sh",
                "-c",
                script,
            ],
        );
        // Nothing of the host is left inside.
        assert_eq!(seen.stdout, "hello\ninner\nstarted\n644\n0\n", "{seen:?}");
        // It starts again as well.
        let again = daemon.with(client, &["start", "-a", "hooked"]);
        assert_eq!(again.stdout, seen.stdout, "{again:?}");
        daemon.with(client, &["rm", "hooked"]).ok();
        let refused =
            daemon.with(client, &["run", "--rm", "--device", "vendor.test/hooked=bad", "busybox", "true"]);
        assert!(refused.code != 0 && refused.stderr.contains("out of gadgets"), "{refused:?}");
    }
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains("hooks-tmpfs"), "{host}");
}
