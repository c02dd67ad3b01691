//! What files of Compose ask for: services extended, profiles, links, secrets, namespaces shared, things that exist already.

use std::fs;

use crate::compose_versions::{Compose, Stack};
use crate::daemon::{Client, Daemon};

const FEATURES: [(&str, &str); 5] = [
    ("compose.yaml", include_str!("compose/features.yaml")),
    ("base.yaml", include_str!("compose/base.yaml")),
    ("full.env", "FILE=of variables\n"),
    ("word.txt", "sesame"),
    ("override.yaml", "services:\n  full:\n    environment:\n      FROM: override\n"),
];

/// What else files of Compose ask for.
fn features_work(version: Compose, client: Client) {
    let plugin = version.fetch();
    let daemon = Daemon::start();
    let stack = Stack::new(&daemon, client, version, plugin.as_deref(), &FEATURES);
    let given = daemon.root.path().join("stack/given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "given").unwrap();
    daemon.with(client, &["create", "--name", "maker", "busybox"]).ok();
    daemon.with(client, &["commit", "-c", "VOLUME /ofimage", "maker", "furnished"]).ok();
    daemon.with(client, &["rm", "maker"]).ok();
    stack.run(&["up", "-d"]).fails(1, "outside");
    daemon.with(client, &["network", "create", "--subnet", "10.66.7.0/24", "outside"]).ok();
    daemon.with(client, &["volume", "create", "kept"]).ok();
    stack.ok(&["up", "-d"]);
    assert_eq!(stack.containers(None).len(), 3, "a profile that was not asked for");

    one_service_has_it_all(&stack);
    others_share_with_it(version, &daemon, &stack);

    stack.ok(&["--profile", "debug", "up", "-d"]);
    assert_eq!(stack.containers(Some("debug")).len(), 1);
    // What changed is made again, with its anonymous volumes.
    let old = stack.container("full");
    stack.ok(&["-f", "override.yaml", "up", "-d", "full"]);
    assert_ne!(stack.container("full"), old);
    let show = |script: &str| stack.exec("full", &["sh", "-c", script]);
    assert_eq!(show("echo $FROM; ls /anonymous /ofimage"), "override\n/anonymous:\nx\n\n/ofimage:\nx");

    stack.ok(&["--profile", "debug", "down", "-v"]);
    assert_eq!(stack.containers(None), [""; 0]);
    // External ones stay.
    daemon.with(client, &["volume", "inspect", "kept"]).ok();
    daemon.with(client, &["network", "inspect", "outside"]).ok();
}

fn one_service_has_it_all(stack: &Stack) {
    let show = |script: &str| stack.exec("full", &["sh", "-c", script]);
    assert_eq!(show("echo $FROM $FILE; cat /run/secrets/word /given/file"), "base of variables\nsesamegiven");
    assert_eq!(
        show("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/1/comm"),
        "80\ndocker-init"
    );
    assert_eq!(
        show("grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status | awk '{print $2}'"),
        "0000000000000400\n1"
    );
    assert_eq!(
        show("grep -c -E '^tmpfs (/scratch|/memory) ' /proc/mounts; touch /x || touch /scratch/x && id -G"),
        "2\n0 4242"
    );
    assert_eq!(show("touch /given/x 2>/dev/null || touch /kept/x /anonymous/x /ofimage/x && echo ok"), "ok");
    assert_eq!(
        show("grep -c -E '192.0.2.7.*far|host.docker.internal' /etc/hosts; grep ^search /etc/resolv.conf"),
        "2\nsearch example.test"
    );
    assert_eq!(show("hostname -i"), "10.66.7.20");
}

fn others_share_with_it(version: Compose, daemon: &Daemon, stack: &Stack) {
    let resolved = stack.exec(
        "linked",
        &["sh", "-c", "for n in alias-of-full other-name full; do nslookup $n | grep -c 10.66.7.20; done"],
    );
    assert_eq!(resolved, "1\n1\n1");
    assert_eq!(stack.exec("linked", &["ls", "/kept", "/anonymous"]), "/anonymous:\nx\n\n/kept:\nx");
    // Version 2 does not tell the daemon that they are to be read-only.
    let read_only = stack.run(&["exec", "-T", "linked", "touch", "/kept/y"]);
    assert_eq!(read_only.code, i32::from(version.is_one()), "{read_only:?}");
    assert_eq!(stack.exec("neighbour", &["hostname", "-i"]), "10.66.7.20");
    assert_eq!(
        daemon.inspect(
            "full",
            "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig.Type}}"
        ),
        "67108864 50 json-file"
    );
}

#[test]
fn features_work_with_version_1() {
    features_work(Compose::One, Client::Docker);
}

#[test]
fn features_work_with_version_2() {
    features_work(Compose::Two, Client::Berth);
}

#[test]
fn features_work_with_the_newest_version() {
    features_work(Compose::Newest, Client::Docker);
}
