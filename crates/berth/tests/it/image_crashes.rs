//! The image store under daemons that die, and under requests that cross each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::model::Random;
use crate::output::eventually;
use crate::prune::api;
use crate::pulls::{self, Fault, Registry};

fn get(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = api(daemon, "GET", path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn hex(digest: &Value) -> String {
    digest.as_str().unwrap().trim_start_matches("sha256:").to_owned()
}

/// Holds rows, directories and sizes against each other: nothing is missing, and nothing is left over.
#[track_caller]
fn is_consistent(daemon: &Daemon, when: &str) {
    let images = get(daemon, "/v1.55/images/json?all=1");
    let images: Vec<String> = images.as_array().unwrap().iter().map(|image| hex(&image["Id"])).collect();
    let mut layers = BTreeSet::from(["empty".to_owned()]);
    for id in &images {
        let found = get(daemon, &format!("/berth/images/{id}/layers"));
        layers.extend(found["Layers"].as_array().unwrap().iter().map(|layer| hex(&layer["ChainID"])));
        // Every byte of its layers comes back.
        daemon.berth(&["save", "-o", "/dev/null", id]).ok();
    }
    assert_eq!(names(&daemon.data_root().join("layers")), layers, "{when}");
    let usage = get(daemon, "/v1.55/system/df?verbose=1");
    let cached = usage["BuildCacheUsage"]["Items"].as_array().cloned().unwrap_or_default();
    let cached: BTreeSet<String> = cached.iter().map(|record| hex(&record["ID"])).collect();
    let mut manifests = 0;
    for blob in names(&daemon.data_root().join("blobs/sha256")) {
        if images.contains(&blob) || cached.contains(&blob) {
            continue;
        }
        let text = std::fs::read(daemon.data_root().join("blobs/sha256").join(&blob)).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{when}: {blob}"));
        assert!(images.contains(&hex(&document["config"]["digest"])), "{when}: an orphan, {document}");
        manifests += 1;
    }
    assert!(manifests >= images.len(), "{when}: {manifests} manifests of {} images", images.len());
    let script =
        "find layers/*/fs -type f -printf '%i %s\\n' | sort -u | awk '{ sum += $2 } END { print sum + 0 }'";
    let mut command = std::process::Command::new("sh");
    let bytes = crate::output::run(command.args(["-c", script]).current_dir(daemon.data_root())).ok();
    let counted = usage["ImageUsage"]["TotalSize"].as_i64().unwrap_or_default();
    assert_eq!(bytes, counted.to_string(), "{when}");
    let staged = names(&daemon.data_root().join("staging"));
    let expected = ["partial", "trash"].map(str::to_owned).into();
    assert!(staged.is_subset(&expected), "{when}: {staged:?}");
    eventually("the trash is empty", || {
        names(&daemon.data_root().join("staging/trash")).is_empty().then_some(())
    });
}

#[test]
fn whatever_a_killed_daemon_was_doing_nothing_is_orphaned() {
    let mut daemon = Daemon::start();
    let registry = Registry::serve(&pulls::image(), |_| {});
    let archive = files::write(daemon.root.path(), "l.tar", &files::layered().docker_archive("layered:v1"));
    let mut random = Random::new(4711);
    let pulled = registry.name();
    for round in 0..20 {
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        let container = daemon.berth(&["create", "--network", "none", "busybox", "true"]).ok();
        let operation: Vec<&str> = match round % 5 {
            0 => vec!["pull", "-q", &pulled],
            1 => vec!["load", "-q", "-i", &archive],
            2 => vec!["commit", &container, "made"],
            3 => vec!["rmi", "-f", &pulled, "layered:v1", "made"],
            _ => vec!["image", "prune", "-af"],
        };
        let mut command = daemon.client(Client::Berth, &operation);
        let mut client =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Any moment of it, from before its beginning to after its end.
        std::thread::sleep(std::time::Duration::from_micros(random.below(120_000)));
        daemon.kill();
        client.wait().unwrap();
        daemon.launch();
        daemon.berth(&["rm", "-f", &container]).ok();
        is_consistent(&daemon, &format!("round {round}, {operation:?}"));
    }
    for id in daemon.berth(&["images", "-aq"]).ok().lines() {
        daemon.berth(&["rmi", "-f", id]);
    }
    daemon.berth(&["system", "prune", "-af"]).ok();
    is_consistent(&daemon, "at the end");
    assert_eq!(names(&daemon.data_root().join("blobs/sha256")), BTreeSet::new());
}

#[test]
fn pulls_of_one_image_share_the_work() {
    let daemon = Daemon::empty(&[]);
    let registry = Registry::serve(&pulls::image(), |_| {});
    registry.fail(&registry.layers[1], Fault::Late);
    let pull = || {
        let mut command = daemon.client(Client::Berth, &["pull", &registry.name()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let clients: Vec<_> = (0..4).map(|_| pull()).collect();
    eventually("all have asked what it is", || (registry.count("manifests") >= 4).then_some(()));
    registry.release();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    for layer in &registry.layers {
        assert_eq!(registry.count(layer), 1, "{layer}");
    }
    is_consistent(&daemon, "after four pulls");
}

#[test]
fn what_is_removed_during_a_pull_or_a_run_is_whole_or_gone() {
    let daemon = Daemon::start();
    let registry = Registry::serve(&pulls::image(), |_| {});
    let name = registry.name();
    std::thread::scope(|scope| {
        let round = |arguments: &'static [&'static str]| {
            let (daemon, name) = (&daemon, name.as_str());
            move || {
                for _ in 0..12 {
                    let arguments: Vec<&str> =
                        arguments.iter().map(|word| if *word == "NAME" { name } else { word }).collect();
                    let output = daemon.berth(&arguments);
                    // Each may lose to another, but only in these words.
                    let known =
                        ["No such image", "conflict: unable", "already running", "pull access denied"];
                    let lost = known.iter().any(|words| output.stderr.contains(words));
                    assert!(output.code == 0 || lost, "{output:?}");
                }
            }
        };
        scope.spawn(round(&["pull", "-q", "NAME"]));
        scope.spawn(round(&["rmi", "-f", "NAME"]));
        scope.spawn(round(&["image", "prune", "-f"]));
        scope.spawn(round(&["run", "--rm", "--network", "none", "busybox", "true"]));
        scope.spawn(round(&["create", "--pull", "never", "NAME", "true"]));
    });
    let containers = daemon.berth(&["ps", "-aq"]).ok();
    for id in containers.lines() {
        daemon.berth(&["start", "-a", id]).ok();
        daemon.berth(&["rm", id]).ok();
    }
    is_consistent(&daemon, "at the end");
}
