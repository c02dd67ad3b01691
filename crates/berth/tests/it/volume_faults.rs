//! Volumes under daemons that die: what was there stays whole, and what was half made is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::daemon::{Client, Daemon};
use crate::filesystems::Kind;
use crate::model::Random;
use crate::output::eventually;

/// Files that the image has where volumes are mounted.
const FILES: usize = 400;

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Holds rows and directories against each other.
#[track_caller]
fn is_consistent(daemon: &Daemon, when: &str) {
    let folder = daemon.data_root().join("volumes");
    let rows: BTreeSet<String> =
        daemon.berth(&["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect();
    assert_eq!(names(&folder), rows, "{when}");
    for name in &rows {
        let volume = folder.join(name);
        assert_eq!(names(&volume), BTreeSet::from(["_data".to_owned()]), "{when}: {name}");
        let content = names(&volume.join("_data")).len();
        // A copy is there as a whole or not at all.
        let empty = content == 0 && !name.starts_with("snap");
        assert!(empty || content >= FILES, "{when}: {name} has {content} files");
    }
    // Whoever is there has its volumes.
    for id in daemon.berth(&["ps", "-aq", "--no-trunc"]).ok().lines() {
        let template = "{{range .Mounts}}{{.Name}} {{end}}";
        for name in daemon.inspect(id, template).split_whitespace() {
            assert!(rows.contains(name), "{when}: {id} misses {name}");
        }
    }
}

fn crash_while(mut daemon: Daemon, arguments: fn(usize) -> Vec<String>, prepare: fn(&Daemon, usize)) {
    let script = format!("mkdir /data && cd /data && for i in $(seq {FILES}); do echo $i > $i; done");
    daemon.berth(&["run", "--name", "maker", "busybox", "sh", "-c", &script]).ok();
    daemon.berth(&["commit", "maker", "furnished"]).ok();
    daemon.berth(&["rm", "maker"]).ok();
    let mut chance = Random::new(61);
    for round in 0..8 {
        prepare(&daemon, round);
        let mut client = daemon.client(Client::Berth, &arguments(round));
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Anywhere in what is going on: this is no waiting for anything.
        std::thread::sleep(std::time::Duration::from_micros(chance.below(60_000)));
        daemon.kill();
        client.wait().unwrap();
        daemon.launch();
        eventually("removals are finished", || {
            let left = daemon.berth(&["ps", "-aq", "--filter", "status=removing"]).ok();
            left.is_empty().then_some(())
        });
        is_consistent(&daemon, &format!("round {round}"));
    }
    let all = daemon.berth(&["ps", "-aq"]).ok();
    for id in all.lines() {
        daemon.berth(&["rm", "-f", id]).ok();
    }
    daemon.berth(&["volume", "prune", "-f", "-a"]).ok();
    assert!(names(&daemon.data_root().join("volumes")).is_empty());
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_killed_creation_leaves_whole_volumes_or_none() {
    let arguments = |round| words(&format!("create -v new{round}:/data -v /data/dir furnished true"));
    crash_while(Daemon::start(), arguments, |_, _| ());
}

#[test]
fn a_killed_removal_goes_on_or_never_was() {
    let prepare = |daemon: &Daemon, round: usize| {
        let name = format!("c{round}");
        daemon.berth(&["create", "--name", &name, "-v", "/data", "furnished", "true"]).ok();
    };
    crash_while(Daemon::start(), |round| words(&format!("rm -v c{round}")), prepare);
}

#[test]
fn a_killed_volume_command_is_whole() {
    let prepare = |daemon: &Daemon, round: usize| {
        daemon.berth(&["create", "--rm", "-v", &format!("v{round}:/data"), "furnished", "true"]).ok();
        let all = daemon.berth(&["ps", "-aq"]).ok();
        all.lines().for_each(|id| drop(daemon.berth(&["rm", id]).ok()));
    };
    crash_while(
        Daemon::start(),
        |round| {
            words(&if round % 2 == 0 {
                format!("volume rm v{round}")
            } else {
                format!("volume rename v{round} w{round}")
            })
        },
        prepare,
    );
}

#[test]
fn a_killed_snapshot_leaves_all_of_it_or_nothing() {
    let prepare = |daemon: &Daemon, round: usize| {
        if round == 0 {
            daemon.berth(&["run", "--rm", "-v", "whole:/data", "furnished", "true"]).ok();
        }
    };
    let arguments = |round| words(&format!("volume snapshot whole snap{round}"));
    crash_while(Daemon::on(Kind::Formatted("btrfs", 512), &[]), arguments, prepare);
}

/// A copy from the image into `volume` that finds the disk full, and one that finds room again.
fn filled_only_as_a_whole(daemon: &Daemon, volume: &str) {
    let filler = daemon.data_root().join("filler");
    let free = || {
        let stat = rustix::fs::statvfs(daemon.data_root()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    eventually("what was removed is gone", || {
        let left = fs::read_dir(daemon.data_root().join("staging/trash")).unwrap();
        (left.count() == 0).then_some(())
    });
    fs::write(&filler, vec![1; usize::try_from(free()).unwrap() - (10 << 20)]).unwrap();
    let mount = format!("{volume}:/data");
    let look = ["run", "--rm", "-v", &mount, "big", "sh", "-c", "ls /data; md5sum < /data/big"];
    daemon.berth(&look).fails(125, "no space left on device").fails(125, "failed to populate volume");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "", "no container is left");
    let left =
        daemon.berth(&["run", "--rm", "-v", &format!("{volume}:/v"), "busybox", "ls", "-A", "/v"]).ok();
    assert_eq!(left, "", "nothing of it is in the volume");
    fs::remove_file(filler).unwrap();
    let image = daemon.berth(&["run", "--rm", "big", "sh", "-c", "ls /data; md5sum < /data/big"]).ok();
    assert_eq!(daemon.berth(&look).ok(), image, "the next container fills it");
}

#[test]
fn a_full_disk_leaves_no_half_of_an_images_files() {
    let daemon = Daemon::on(Kind::Formatted("ext4", 160), &[]);
    let script = "mkdir /data; echo first > /data/a; head -c 30000000 /dev/urandom > /data/big";
    daemon.berth(&["run", "--name", "maker", "busybox", "sh", "-c", script]).ok();
    daemon.berth(&["commit", "maker", "big"]).ok();
    daemon.berth(&["rm", "maker"]).ok();
    // A new volume of the data root, and one that is a mount, which is filled in its place.
    filled_only_as_a_whole(&daemon, "new");
    let device = daemon.data_root().join("device");
    fs::create_dir(&device).unwrap();
    let option = format!("device={}", device.display());
    daemon.berth(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &option, "bound"]).ok();
    filled_only_as_a_whole(&daemon, "bound");
}
