//! Volumes under daemons that die: what was there stays whole, and what was half made is gone.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use rustix::mount::{MountFlags, mount};

use crate::daemon::{Client, Daemon};
use crate::files::Layer;
use crate::filesystems::Kind;
use crate::model::Random;
use crate::output::eventually;
use crate::raw;

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

/// A request that replaces the file `old`, of which all but the last part is sent and read.
fn begun(daemon: &Daemon, path: &str) -> UnixStream {
    let tar = Layer::new().file("first", 0o644, "f").file("old", 0o600, vec![b'n'; 6_000_000]).bytes();
    let request = raw::request("PUT", &format!("/v1.44/{path}"), "", &tar);
    let mut stream = raw::connect(daemon);
    stream.write_all(&request[..request.len() - 1_000_000]).unwrap();
    stream
}

#[test]
fn what_a_killed_copy_was_to_replace_stays() {
    let mut daemon = Daemon::start();
    let keep = "mkdir /d; echo kept > /data/old; echo kept > /d/old; echo up";
    daemon.berth(&["run", "--name", "still", "-v", "one:/data", "busybox", "sh", "-c", keep]).ok();
    let go_on = format!("{keep}; sleep 1000");
    daemon.background(&["--name", "runs", "-v", "two:/data", "busybox", "sh", "-c", &go_on]);
    eventually("it wrote", || daemon.berth(&["logs", "runs"]).stdout.contains("up").then_some(()));
    let copies = [
        "volumes/one/archive",
        "containers/still/archive?path=/d",
        "containers/runs/archive?path=/data",
        "containers/runs/archive?path=/d",
    ];
    let copies = copies.map(|path| begun(&daemon, path));
    let content = |volume: &str| daemon.data_root().join("volumes").join(volume).join("_data");
    for volume in ["one", "two"] {
        eventually("the file before it is there", || content(volume).join("first").exists().then_some(()));
        assert_eq!(fs::read_to_string(content(volume).join("old")).unwrap(), "kept\n");
    }
    let (one, two) = (content("one"), content("two"));
    daemon.kill();
    drop(copies);
    daemon.launch();
    for volume in [one, two] {
        assert_eq!(names(&volume), BTreeSet::from(["first".to_owned(), "old".to_owned()]));
        assert_eq!(fs::read_to_string(volume.join("old")).unwrap(), "kept\n");
    }
    for container in ["still", "runs"] {
        let archive = daemon.berth(&["cp", &format!("{container}:/d"), "-"]).stdout;
        assert!(archive.contains("kept") && !archive.contains("nnnn"), "{container}");
        assert!(!archive.contains(".berth-"), "{container}: something was left beside it");
    }
    daemon.berth(&["rm", "-f", "still", "runs"]).ok();
}

#[test]
fn what_a_full_disk_keeps_from_being_replaced_stays() {
    let daemon = Daemon::on(Kind::Formatted("ext4", 128), &[]);
    let script = "mkdir /d; head -c 1000000 /dev/urandom > /d/old; cp /d/old /data/old";
    daemon.berth(&["run", "--name", "kept", "-v", "data:/data", "busybox", "sh", "-c", script]).ok();
    let volume = daemon.data_root().join("volumes/data/_data");
    let kept = fs::read(volume.join("old")).unwrap();
    let here = daemon.root.path().join("here");
    fs::create_dir(&here).unwrap();
    let new = vec![b'n'; 24 << 20];
    fs::write(here.join("old"), &new).unwrap();
    fs::write(here.join("tar"), Layer::new().file("old", 0o644, &new).bytes()).unwrap();
    let path = |name: &str| here.join(name).display().to_string();
    let stat = rustix::fs::statvfs(daemon.data_root()).unwrap();
    let filler = daemon.data_root().join("filler");
    let room = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap() - (4 << 20);
    fs::write(&filler, vec![1; room]).unwrap();
    // A client may see no more of the reason than that nobody reads on: these bodies are large.
    let import = ["volume", "import", "data", &path("tar")];
    assert_eq!(daemon.berth(&import).code, 1);
    for client in [Client::Berth, Client::Docker] {
        for target in ["kept:/data/old", "kept:/d/old"] {
            assert_eq!(daemon.with(client, &["cp", &path("old"), target]).code, 1);
        }
    }
    assert!(fs::read(volume.join("old")).unwrap() == kept, "it is as it was");
    assert_eq!(names(&volume), BTreeSet::from(["old".to_owned()]));
    daemon.berth(&["cp", "kept:/d", &path("back")]).ok();
    assert!(fs::read(here.join("back/old")).unwrap() == kept, "in the container's layer too");
    assert_eq!(names(&here.join("back")), BTreeSet::from(["old".to_owned()]));
    fs::remove_file(filler).unwrap();
    daemon.berth(&import).ok();
    assert!(fs::read(volume.join("old")).unwrap() == new);
}

/// A file system whose server has gone: whoever looks at it is told that nobody is connected. None where there is no FUSE.
fn mount_dead(place: &Path) -> Option<()> {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    mount("nobody", place, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
    drop(device);
    is_dead(place).then_some(())
}

fn is_dead(place: &Path) -> bool {
    let gone = rustix::io::Errno::NOTCONN.raw_os_error();
    fs::metadata(place).is_err_and(|error| error.raw_os_error() == Some(gone))
}

#[test]
fn a_volume_whose_server_is_gone_stops_no_daemon() {
    // Mounts are this test's own then.
    let mut daemon = Daemon::on(Kind::Formatted("ext4", 96), &[]);
    for name in ["dead", "used"] {
        daemon.berth(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", name]).ok();
    }
    daemon.background(&["--name", "user", "-v", "used:/v", "busybox", "sleep", "1000"]);
    let place = |name: &str| daemon.data_root().join("volumes").join(name).join("_data");
    let (dead, used) = (place("dead"), place("used"));
    daemon.kill();
    if [&dead, &dead, &used].into_iter().any(|place| mount_dead(place).is_none()) {
        eprintln!("no FUSE here");
        daemon.launch();
        return;
    }
    daemon.launch();
    assert!(!is_dead(&dead), "it was unmounted, as often as it was mounted");
    assert_eq!(daemon.berth(&["run", "--rm", "-v", "dead:/v", "busybox", "ls", "-A", "/v"]).ok(), "");
    // The one that is in use goes with the last who has it.
    assert!(is_dead(&used));
    assert_ne!(daemon.berth(&["run", "--rm", "-v", "used:/v", "busybox", "ls", "/v"]).code, 0);
    daemon.berth(&["rm", "-f", "user"]).ok();
    eventually("it is unmounted", || (!is_dead(&used)).then_some(()));
    for name in ["dead", "used"] {
        eventually("it is free", || (daemon.berth(&["volume", "rm", name]).code == 0).then_some(()));
    }
}

#[test]
fn a_snapshot_whose_daemon_is_killed_leaves_nobody_paused() {
    let mut daemon = Daemon::on(Kind::Formatted("btrfs", 512), &[]);
    // Enough that a snapshot takes its time.
    let script = "for i in $(seq 3000); do echo $i > /v/$i; done; echo up; sleep 1000";
    daemon.background(&["--name", "writer", "-v", "data:/v", "busybox", "sh", "-c", script]);
    eventually("it wrote", || daemon.berth(&["logs", "writer"]).stdout.contains("up").then_some(()));
    let mut caught = 0;
    for turn in 0..30 {
        let mut client = daemon.client(Client::Berth, &["volume", "snapshot", "data", &format!("s{turn}")]);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // As soon as it is paused, or when it is all over.
        let paused = eventually("the snapshot is under way or done", || {
            let paused = daemon.inspect("writer", "{{.State.Paused}}") == "true";
            (paused || client.try_wait().unwrap().is_some()).then_some(paused)
        });
        daemon.kill();
        client.wait().unwrap();
        daemon.launch();
        assert_eq!(daemon.inspect("writer", "{{.State.Status}}"), "running");
        daemon.berth(&["exec", "writer", "true"]).ok();
        caught += usize::from(paused);
        if caught == 2 {
            break;
        }
    }
    eprintln!("{caught} daemons were killed while the container was paused");
    daemon.berth(&["rm", "-f", "writer"]).ok();
}
