//! Compressed layers that are kept: damaged ones, parts of them, and several who want the same at once.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::files::{Image, Layer, busybox};
use crate::output::eventually;
use crate::pulls::{self, Fault, Registry};

/// Where a blob is kept.
fn blob(daemon: &Daemon, digest: &str) -> PathBuf {
    daemon.data_root().join("blobs/sha256").join(&digest["sha256:".len()..])
}

/// Where what came of a blob is kept.
fn part(daemon: &Daemon, digest: &str) -> PathBuf {
    daemon.data_root().join("staging/partial").join(&digest["sha256:".len()..])
}

/// Begins a pull, and gives its client when a part of the last layer is on the disk. The registry says no more of it.
fn interrupted(daemon: &Daemon, client: Client, registry: &Registry) -> Child {
    let last = registry.layers.last().unwrap();
    registry.fail(last, Fault::Stall);
    let mut pull = daemon.client(client, &["pull", &registry.name()]);
    let pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("a part of the layer is on the disk", || {
        (fs::metadata(part(daemon, last)).ok()?.len() >= 150_000).then_some(())
    });
    pull
}

with_both_clients! {
    fn a_damaged_blob_is_brought_again(daemon: &Daemon, client: Client) {
        let registry = Registry::serve(&pulls::image(), |_| {});
        let name = registry.name();
        let last = registry.layers.last().unwrap().clone();
        daemon.with(client, &["pull", "-q", &name]).ok();
        let path = blob(daemon, &last);
        let whole = fs::read(&path).unwrap();
        let damages: [(&str, &dyn Fn()); 4] = [
            ("removed", &|| fs::remove_file(&path).unwrap()),
            ("cut", &|| fs::write(&path, &whole[..whole.len() / 2]).unwrap()),
            ("emptied", &|| fs::write(&path, b"").unwrap()),
            ("changed", &|| {
                let mut bytes = whole.clone();
                bytes[whole.len() / 2] ^= 1;
                fs::write(&path, bytes).unwrap();
            }),
        ];
        for (what, damage) in damages {
            daemon.with(client, &["rmi", &name]).ok();
            damage();
            registry.heal();
            daemon.with(client, &["pull", "-q", &name]).ok();
            assert_eq!(registry.count(&last), 1, "one that was {what}");
            assert_eq!(registry.count("/blobs/"), 2, "that and the configuration");
            assert!(fs::read(&path).unwrap() == whole, "one that was {what}");
            let count = daemon.berth(&["run", "--rm", "--network", "none", &name, "wc", "-c", "/more"]).ok();
            assert_eq!(count, "400000 /more");
        }
        // What is whole is not brought again.
        daemon.with(client, &["rmi", &name]).ok();
        registry.heal();
        daemon.with(client, &["pull", "-q", &name]).ok();
        assert_eq!(registry.count(&last), 0);
    }

    fn a_pull_goes_on_right_after_one_that_was_aborted(daemon: &Daemon, client: Client) {
        let registry = Registry::serve(&pulls::image(), |_| {});
        for round in 0..5 {
            let mut pull = interrupted(daemon, client, &registry);
            pull.kill().unwrap();
            pull.wait().unwrap();
            registry.heal();
            let output = daemon.with(client, &["pull", &registry.name()]);
            assert_eq!(output.code, 0, "round {round}: {output:?}");
            daemon.berth(&["rmi", &registry.name()]).ok();
            daemon.berth(&["builder", "prune", "-af"]).ok();
        }
    }

    fn what_came_of_a_layer_is_counted_and_can_be_removed(daemon: &Daemon, client: Client) {
        let registry = Registry::serve(&pulls::image(), |_| {});
        let last = registry.layers.last().unwrap();
        let digits = &last["sha256:".len()..];
        let shown = || {
            let (_, usage) = api::ask(daemon, "/v1.55/system/df?verbose=1", None);
            let items = usage["BuildCacheUsage"]["Items"].as_array().cloned().unwrap_or_default();
            let found = items.into_iter().find(|item| item["ID"] == digits);
            found.map(|item| (item["InUse"].as_bool().unwrap_or_default(), item["Size"].as_u64().unwrap()))
        };
        let mut pull = interrupted(daemon, client, &registry);
        let (in_use, size) = shown().expect("it is counted");
        assert!(in_use && size >= 150_000, "{in_use} {size}");
        daemon.with(client, &["builder", "prune", "-af"]).ok();
        assert!(part(daemon, last).exists(), "who is at it keeps it");
        pull.kill().unwrap();
        pull.wait().unwrap();
        eventually("nobody is at it", || shown().filter(|(in_use, _)| !in_use));
        let pruned = daemon.with(client, &["builder", "prune", "-af"]).ok();
        assert!(pruned.contains(&digits[..12]), "{pruned}");
        assert!(shown().is_none() && !part(daemon, last).exists());
        let mut pull = interrupted(daemon, client, &registry);
        pull.kill().unwrap();
        pull.wait().unwrap();
        eventually("nobody is at it", || shown().filter(|(in_use, _)| !in_use));
        daemon.berth(&["image", "prune", "-f", "--keep-storage", "0"]).ok();
        assert!(shown().is_none() && !part(daemon, last).exists());
        registry.heal();
        daemon.with(client, &["pull", "-q", &registry.name()]).ok();
    }
}

#[test]
fn a_client_that_stops_reading_holds_nobodys_pull_up() {
    let daemon = Daemon::empty(&[]);
    let small = |number: usize| Layer::new().file(&format!("f{number}"), 0o644, format!("{number}")).bytes();
    let mut layers = busybox().layers;
    layers.extend((0..120).map(small));
    let registry = Registry::serve(&Image { layers, config: json!({}) }, |_| {});
    let name = registry.name();
    let (repository, tag) = name.rsplit_once(':').unwrap();
    let deaf = || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let line = format!("POST /images/create?fromImage={repository}&tag={tag} HTTP/1.1");
        write!(stream, "{line}\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut status = String::new();
        BufReader::with_capacity(16, stream.try_clone().unwrap()).read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{status}");
        stream
    };
    let _deaf = [deaf(), deaf(), deaf()];
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["pull", "-q", &name]).ok();
    }
    assert_eq!(daemon.berth(&["run", "--rm", "--network", "none", &name, "cat", "/f119"]).ok(), "119");
    let everything: usize = registry.layers.iter().map(|layer| registry.count(layer)).sum();
    assert_eq!(everything, registry.layers.len(), "each layer was brought once");
}
