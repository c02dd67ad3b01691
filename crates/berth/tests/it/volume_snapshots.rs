//! `volume snapshot`, on file systems whose files can share their contents, and on one whose cannot.

use std::fs;
use std::path::Path;

use crate::daemon::{Client, Daemon};
use crate::filesystems::Kind;
use crate::flags::inside;
use crate::output::eventually;

/// Bytes of the file whose content is shared.
const BYTES: u64 = 40 << 20;

/// Bytes that are free once everything is written.
fn free(place: &Path) -> u64 {
    let directory = fs::File::open(place).unwrap();
    rustix::fs::syncfs(&directory).unwrap();
    let stat = rustix::fs::fstatvfs(&directory).unwrap();
    stat.f_bfree * stat.f_frsize
}

fn snapshots_share_and_part(kind: Kind) {
    let daemon = Daemon::on(kind, &[]);
    let script = format!(
        "head -c {BYTES} /dev/urandom > /v/big; ln /v/big /v/same; ln -s big /v/link; mkdir -m 700 /v/d; chown 5:6 /v/d; mkfifo /v/p"
    );
    daemon.berth(&["volume", "create", "--label", "a=b", "data"]).ok();
    inside(&daemon, Client::Berth, &["-v", "data:/v"], &script);
    let before = free(&daemon.data_root());
    assert_eq!(daemon.berth(&["volume", "snapshot", "data", "then"]).ok(), "then");
    let used = before.saturating_sub(free(&daemon.data_root()));
    assert!(used < BYTES / 4, "{used} bytes for a snapshot");
    let look = "cd /v; stat -c '%n %a %u %g %h %F' big d p same; readlink link; md5sum big";
    let seen = |volume: &str| inside(&daemon, Client::Berth, &["-v", &format!("{volume}:/v")], look);
    let first = seen("data");
    assert_eq!(seen("then"), first);
    assert_eq!(daemon.inspect("then", "{{.Labels}}"), "map[a:b]");
    // Each goes its own way from here.
    inside(&daemon, Client::Berth, &["-v", "data:/v"], "echo new > /v/big; rmdir /v/d");
    assert_eq!(seen("then"), first);
    daemon.berth(&["volume", "rm", "data"]).ok();
    assert_eq!(seen("then"), first);
    daemon.berth(&["volume", "snapshot", "none", "other"]).fails(1, "no such volume");
    daemon.berth(&["volume", "snapshot", "then", "then"]).fails(1, "volume name then is already in use");
    daemon.berth(&["volume", "snapshot", "then", "a b"]).fails(1, "invalid characters");
    let mounted = ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"];
    daemon.berth(&mounted).ok();
    daemon.berth(&["volume", "snapshot", "mem", "other"]).fails(1, "its files are not in the data root");
    let names = daemon.berth(&["volume", "ls", "-q"]).ok();
    assert_eq!(names, "mem\nthen");
}

#[test]
fn snapshots_on_btrfs() {
    snapshots_share_and_part(Kind::Formatted("btrfs", 512));
}

#[test]
fn snapshots_on_xfs() {
    snapshots_share_and_part(Kind::Formatted("xfs", 512));
}

#[test]
fn containers_stand_still_for_a_snapshot_and_go_on() {
    let daemon = Daemon::on(Kind::Formatted("btrfs", 512), &[]);
    // Each number is in both files, the first one first.
    let script = "i=0; while true; do i=$((i+1)); echo $i >> /v/a; echo $i >> /v/b; done";
    daemon.background(&["--name", "writer", "-v", "data:/v", "busybox", "sh", "-c", script]);
    eventually("it writes", || {
        (daemon.berth(&["exec", "writer", "test", "-s", "/v/b"]).code == 0).then_some(())
    });
    for turn in 0..5 {
        let name = format!("s{turn}");
        daemon.berth(&["volume", "snapshot", "data", &name]).ok();
        let lines = |file: &str| {
            let path = daemon.data_root().join("volumes").join(&name).join("_data").join(file);
            fs::read_to_string(path).unwrap_or_default().lines().count()
        };
        let (a, b) = (lines("a"), lines("b"));
        assert!(a == b || a == b + 1, "of one moment: {a} {b}");
        assert_eq!(daemon.inspect("writer", "{{.State.Status}}"), "running");
    }
    let events = ["events", "--since", "1h", "--until", "0s", "-f", "type=volume", "-f", "event=create"];
    let made = daemon.berth(&[&events[..], &["--format", "{{.Actor.ID}}"]].concat()).ok();
    assert!(made.lines().any(|name| name == "s4"), "{made}");
    let paused = ["events", "--since", "1h", "--until", "0s", "-f", "event=pause"];
    assert_eq!(daemon.berth(&paused).ok().lines().count(), 5);
    daemon.berth(&["volume", "snapshot", "--no-pause", "data", "last"]).ok();
    assert_eq!(daemon.berth(&paused).ok().lines().count(), 5, "as was asked");
}

#[test]
fn without_reflinks_it_is_said() {
    let daemon = Daemon::on(Kind::Formatted("ext4", 96), &[]);
    daemon.berth(&["volume", "create", "data"]).ok();
    let refused = daemon.berth(&["volume", "snapshot", "data", "then"]);
    refused.fails(1, "snapshot data: the file system of ").fails(1, "has no reflinks");
    assert_eq!(daemon.berth(&["volume", "ls", "-q"]).ok(), "data");
    assert!(!daemon.data_root().join("volumes/then").exists());
}
