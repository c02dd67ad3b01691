//! The engine inside a privileged container: of its own, and of Debian's Docker.

use std::fs;

use crate::daemon::{Client, Daemon, binary};
use crate::files::{self, Image, Layer};

/// What is done inside, in the busybox image with the engine and an archive. The data root is `$1`.
pub const SCRIPT: &str = "
    mkdir -p /run /var/log
    berth daemon --data-root $1 > /var/log/berth 2>&1 &
    for i in $(seq 200); do berth version > /dev/null 2>&1 && break; sleep 0.1; done
    berth load -q -i /busybox.tar > /dev/null || cat /var/log/berth
    echo \"driver $(berth info --format '{{.Driver}}')\"
    berth info 2>&1 | grep 'overlayfs cannot work' | tee /dev/stderr | sed 's/ (.*//'
    berth run --rm --memory 32m --pids-limit 50 busybox sh -c 'echo hello from $(hostname | wc -c)'
    berth run --rm busybox sh -c 'ip -o -4 addr show dev eth0 | wc -l'
    berth run -d --name web -p 8080:80 busybox sh -c 'mkdir /www; echo served > /www/index.html; httpd -f -p 80 -h /www' > /dev/null
    for i in $(seq 100); do wget -q -O - http://127.0.0.1:8080/ 2>/dev/null && break; sleep 0.1; done
    berth exec web cat /www/index.html
    berth diff web | grep -c www
    berth commit web kept > /dev/null && berth run --rm kept cat /www/index.html
    berth rm -f web
    berth ps -aq | wc -l
    kill %1; wait
    ";

/// An image with the engine in it, and an archive for it to load.
pub fn image() -> Image {
    let mut image = files::busybox();
    let layer = Layer::new().file("bin/berth", 0o755, fs::read(binary()).unwrap()).file(
        "busybox.tar",
        0o644,
        fs::read(files::busybox_archive()).unwrap(),
    );
    image.layers.push(layer.bytes());
    image
}

/// What [`SCRIPT`] prints.
pub fn expected(driver: &str, data_root: &str) -> String {
    let warning = match driver {
        "vfs" => format!("WARNING: overlayfs cannot work in {data_root}\n"),
        _ => String::new(),
    };
    format!("driver {driver}\n{warning}hello from 13\n1\nserved\nserved\n2\nserved\nweb\n0")
}

fn nest(daemon: &Daemon, client: Client, flags: &[&str], data_root: &str) -> String {
    // With cgroups of version 2 it is the default. Without a namespace they would be read-only, whatever is allowed (R8).
    let run = [
        &["run", "--rm", "--privileged", "--cgroupns", "private"],
        flags,
        &["nested", "sh", "-c", SCRIPT, "sh", data_root],
    ]
    .concat();
    let output = daemon.with(client, &run);
    // Why overlays cannot work there, shown when an assertion fails.
    eprintln!("{}", output.stderr);
    output.ok()
}

with_both_clients! {
    fn the_engine_runs_in_a_container_of_its_own(daemon: &Daemon, client: Client) {
        let path = files::write(daemon.root.path(), "nested.tar", &image().docker_archive("nested:latest"));
        daemon.with(client, &["load", "-q", "-i", &path]).ok();
        // Its root is an overlay, on which another cannot lie; a volume is not.
        assert_eq!(nest(daemon, client, &[], "/var/lib/berth"), expected("vfs", "/var/lib/berth"));
        let volume = ["-v", "/var/lib/berth"];
        assert_eq!(nest(daemon, client, &volume, "/var/lib/berth"), expected("overlay2", "/var/lib/berth"));
        let tmpfs = ["--tmpfs", "/data:exec,dev"];
        assert_eq!(nest(daemon, client, &tmpfs, "/data/root"), expected("overlay2", "/data/root"));
    }
}

#[test]
fn without_a_cgroup_namespace_it_says_what_is_missing() {
    let daemon = Daemon::start();
    let path = files::write(daemon.root.path(), "nested.tar", &image().docker_archive("nested:latest"));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    let script = "berth daemon --data-root /data > /log 2>&1 & while ! berth version > /dev/null 2>&1; do sleep 0.1; done; \
                  berth info 2>&1 | grep cgroups; kill %1; wait; grep cgroups /log";
    let host = ["run", "--rm", "--privileged", "--cgroupns", "host", "nested", "sh", "-c", script];
    let said = daemon.berth(&host).ok();
    let count = said.matches("cgroups are read-only").count();
    assert_eq!(count, 2, "in info and in the log: {said}");
    assert!(said.contains("needs --privileged --cgroupns private"), "{said}");
}
