//! `system df`, `ps -s`, `inspect -s`: sizes that agree with each other and with the disk.

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::prune::api;

/// Bytes of all files below a folder of the data root, as `find` counts them, files with several names once.
fn on_disk(daemon: &Daemon, folder: &str) -> i64 {
    let script = "find $1 -type f -printf '%i %s\\n' | sort -u | awk '{ sum += $2 } END { print sum + 0 }'";
    let mut command = std::process::Command::new("sh");
    let command = command.args(["-c", script, "sh", folder]).current_dir(daemon.data_root());
    crate::output::run(command).ok().parse().unwrap()
}

fn df(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = api(daemon, "GET", path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Two images on one base, a stopped container, a running one with a volume.
fn furnish(daemon: &Daemon) -> (String, String) {
    let base = || Layer::new().file("base", 0o644, vec![1; 300_000]).hardlink("twin", "base");
    for (name, size) in [("one:v1", 1000), ("two:v1", 2000)] {
        let top = Layer::new().file("top", 0o644, vec![2; size]);
        let image = Image::new(vec![base(), top]).docker_archive(name);
        let path = files::write(daemon.root.path(), "image.tar", &image);
        daemon.berth(&["load", "-q", "-i", &path]).ok();
    }
    let stopped = daemon.background(&["busybox", "sh", "-c", "head -c 5000 /dev/zero > /f; ln /f /g"]);
    daemon.wait(&stopped);
    let script = "head -c 70000 /dev/zero > /data/f; head -c 900 /dev/zero > /f; exec sleep 1000";
    let running = daemon.background(&["-v", "named:/data", "busybox", "sh", "-c", script]);
    crate::output::eventually("it wrote", || (on_disk(daemon, "volumes") == 70_000).then_some(()));
    crate::output::eventually("it wrote", || {
        (on_disk(daemon, &format!("containers/{running}/upper")) == 900).then_some(())
    });
    (stopped, running)
}

with_both_clients! {
    fn df_agrees_with_the_disk(daemon: &Daemon, client: Client) {
        let (stopped, running) = furnish(daemon);
        let layers = on_disk(daemon, "layers/*/fs");
        let text = daemon.with(client, &["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}"]).ok();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Images|3|1|"), "{text}");
        assert_eq!(lines[1], "Containers|2|1|5.9kB|5kB (84%)");
        assert_eq!(lines[2], "Local Volumes|1|1|70kB|0B (0%)");
        assert_eq!(lines[3], "Build Cache|0|0|0B|0B");
        let document = df(daemon, "/v1.55/system/df?verbose=1");
        assert_eq!(document["ImageUsage"]["TotalSize"].as_i64(), Some(layers));
        // Both of the images on one base could go, but the base is counted with neither.
        assert_eq!(document["ImageUsage"]["Reclaimable"], 3000);
        daemon.with(client, &["rm", "-f", &running, &stopped]).ok();
        let text = daemon.with(client, &["system", "df", "--format", "{{.Active}} {{.Reclaimable}}"]).ok();
        assert_eq!(text.lines().nth(1), Some("0 0B"));
        assert_eq!(text.lines().nth(2), Some("0 70kB (100%)"));
    }

    fn sizes_show_in_lists_and_inspections(daemon: &Daemon, client: Client) {
        let (stopped, _) = furnish(daemon);
        let image: i64 = daemon.with(client, &["inspect", "-f", "{{.Size}}", "busybox"]).ok().parse().unwrap();
        let sizes = daemon.with(client, &["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", &stopped]).ok();
        assert_eq!(sizes, format!("5000 {}", 5000 + image));
        let size = daemon.with(client, &["ps", "-as", "--filter", "status=exited", "--format", "{{.Size}}"]).ok();
        assert!(size.starts_with("5kB (virtual "), "{size}");
    }
}

#[test]
fn both_clients_print_the_same() {
    let daemon = Daemon::start();
    for arguments in [&["system", "df"][..], &["system", "df", "-v"]] {
        let both = || [Client::Docker, Client::Berth].map(|client| daemon.with(client, arguments).ok());
        let [docker, berth] = both();
        assert_eq!(docker, berth, "empty");
    }
    furnish(&daemon);
    for arguments in [&["system", "df"][..], &["system", "df", "-v"], &["system", "df", "--format", "json"]] {
        let both = || [Client::Docker, Client::Berth].map(|client| daemon.with(client, arguments).ok());
        // The clock may tick in between.
        let [docker, berth] = both();
        if docker != berth {
            let [docker, berth] = both();
            if arguments.contains(&"json") {
                let values = |text: &str| -> Vec<Value> {
                    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
                };
                assert_eq!(values(&docker), values(&berth));
            } else {
                assert_eq!(docker, berth);
            }
        }
    }
}

#[test]
fn the_answer_has_the_form_of_its_version() {
    let daemon = Daemon::start();
    let names = |path: &str| df(&daemon, path).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let legacy = ["BuildCache", "Containers", "Images", "LayersSize", "Volumes"];
    let new = ["BuildCacheUsage", "ContainerUsage", "ImageUsage", "VolumeUsage"];
    assert_eq!(names("/v1.51/system/df"), legacy);
    assert_eq!(names("/v1.55/system/df?verbose=1"), new);
    assert_eq!(names("/system/df").len(), 9);
    assert_eq!(names("/v1.51/system/df?type=container"), ["Containers"]);
    assert_eq!(
        names("/v1.55/system/df?type=volume&type=build-cache&verbose=true"),
        ["BuildCacheUsage", "VolumeUsage"]
    );
    let (status, body) = api(&daemon, "GET", "/v1.55/system/df?type=moon");
    assert_eq!((status, body.contains("unknown object type: moon")), (400, true), "{body}");
    let empty = df(&daemon, "/v1.55/system/df?type=container&verbose=1");
    assert_eq!(empty, serde_json::json!({"ContainerUsage": {}}));
}
