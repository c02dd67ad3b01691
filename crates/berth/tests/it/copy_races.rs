//! `cp` against those who change the tree meanwhile, against starts and removals, and against a killed daemon.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, feed, run};
use crate::raw;

/// What no copy may ever show, and where no copy may ever write: a directory of the host, under a path that a link of
/// the container names.
struct Outside {
    path: std::path::PathBuf,
}

impl Outside {
    fn new(daemon: &Daemon) -> Outside {
        let path = daemon.root.path().join("outside");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "SECRET").unwrap();
        Outside { path }
    }

    fn check(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(self.path.join("file")).unwrap(), "SECRET");
    }
}

/// The container swaps a directory with links that lead out, for as long as it runs (R10).
fn attacker(daemon: &Daemon, outside: &Outside, flags: &[&str]) -> String {
    let path = outside.path.display();
    let script = format!(
        "mkdir -p /w/dir /w/safe; echo inside > /w/dir/file; ln -s {path} /w/abs; \
         ln -s ../../../../../../../../../..{path} /w/rel; echo up; cd /w; \
         while :; do mv dir keep; mv abs dir; mv dir abs; mv rel dir; mv dir rel; mv keep dir; done"
    );
    let mut all = flags.to_vec();
    all.extend(["busybox", "sh", "-c", &script]);
    let id = daemon.background(&all);
    eventually("it attacks", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
    id
}

fn archive(daemon: &Daemon, method: &str, id: &str, query: &str, body: &[u8]) -> String {
    let path = format!("/v1.44/containers/{id}/archive?{query}");
    raw::exchange(daemon, &raw::request(method, &path, "", body))
}

#[test]
fn r10_swapped_links_lead_nowhere() {
    let daemon = Daemon::start();
    let outside = Outside::new(&daemon);
    let id = attacker(&daemon, &outside, &[]);
    let tar = crate::files::Layer::new()
        .file("dir/planted", 0o644, "x")
        .file("dir/deep/planted", 0o644, "x")
        .symlink("dir/link", "/etc")
        .bytes();
    let hard = crate::files::Layer::new().hardlink("safe/hard", "dir/file").bytes();
    let (mut inside, mut put) = (0, 0);
    for _ in 0..300 {
        for path in ["/w/dir", "/w/dir/", "/w/dir/file", "/w"] {
            let answer = archive(&daemon, "GET", &id, &format!("path={path}"), b"");
            assert!(!answer.contains("SECRET"), "{path}");
            inside += usize::from(answer.contains("inside"));
        }
        put += usize::from(raw::status(&archive(&daemon, "PUT", &id, "path=/w", &tar)) == 200);
        put += usize::from(raw::status(&archive(&daemon, "PUT", &id, "path=/w/dir", &tar)) == 200);
        put += usize::from(raw::status(&archive(&daemon, "PUT", &id, "path=/w", &hard)) == 200);
        assert!(!archive(&daemon, "GET", &id, "path=/w/safe/hard", b"").contains("SECRET"));
    }
    assert!(inside > 0 && put > 0, "some of it met the directory: {inside}, {put}");
    outside.check();
}

with_both_clients! {
    fn r10_the_client_writes_nothing_elsewhere_either(daemon: &Daemon, client: Client) {
        let outside = Outside::new(daemon);
        let id = attacker(daemon, &outside, &["-v", "data:/w"]);
        let here = daemon.root.path().join("here");
        fs::create_dir(&here).unwrap();
        fs::write(here.join("planted"), "x").unwrap();
        for turn in 0..30 {
            let to = here.join(turn.to_string());
            run(daemon.client(client, &["cp", &format!("{id}:/w"), to.to_str().unwrap()]).current_dir(&here));
            run(daemon.client(client, &["cp", "planted", &format!("{id}:/w/dir")]).current_dir(&here));
            run(daemon.client(client, &["cp", "planted", &format!("{id}:/w/dir/")]).current_dir(&here));
            outside.check();
        }
    }

    fn a_copy_and_a_start_do_not_disturb_each_other(daemon: &Daemon, client: Client) {
        let id = daemon.berth(&["create", "-v", "data:/data", "busybox", "sh", "-c", "cat /f* | wc -l; echo >> /data/ran"]).ok();
        let here = daemon.root.path().join("here");
        fs::create_dir(&here).unwrap();
        fs::write(here.join("f"), "line\n").unwrap();
        let volume = daemon.data_root().join("volumes/data/_data");
        for turn in 0..8 {
            std::thread::scope(|scope| {
                let kept = scope.spawn(|| run(daemon.client(client, &["cp", "f", &format!("{id}:/data/g{turn}")]).current_dir(&here)));
                let copy = scope.spawn(|| run(daemon.client(client, &["cp", "f", &format!("{id}:/f{turn}")]).current_dir(&here)));
                let back = scope.spawn(|| run(daemon.client(client, &["cp", &format!("{id}:/etc"), "-"]).stdout(Stdio::null())));
                daemon.with(client, &["start", &id]).ok();
                copy.join().unwrap().ok();
                kept.join().unwrap().ok();
                assert_eq!(back.join().unwrap().code, 0);
            });
            daemon.wait(&id);
            assert_eq!(fs::read_to_string(volume.join(format!("g{turn}"))).unwrap(), "line\n", "in the volume");
        }
        daemon.berth(&["start", "-a", &id]).ok();
        assert_eq!(daemon.berth(&["logs", "-n", "1", &id]).ok(), "8", "all copies are there");
        assert_eq!(fs::read_to_string(volume.join("ran")).unwrap().lines().count(), 9);
    }
}

/// A copy into a container whose client has sent only a part, and waits. The second of two files is not seen before it is
/// whole.
fn half_a_copy(daemon: &Daemon, id: &str, path: &str) -> std::os::unix::net::UnixStream {
    let tar = crate::files::Layer::new()
        .file("whole", 0o644, "w")
        .file("half", 0o644, vec![b'x'; 4_000_000])
        .bytes();
    let query = format!("/v1.44/containers/{id}/archive?path={path}");
    let request = raw::request("PUT", &query, "", &tar);
    let mut stream = raw::connect(daemon);
    stream.write_all(&request[..request.len() - 1_000_000]).unwrap();
    stream
}

/// Reads one file of a container's volume while a copy goes on.
fn arrived(daemon: &Daemon, name: &str) {
    let file = daemon.data_root().join("volumes/data/_data").join(name);
    eventually("a part has arrived", || file.exists().then_some(()));
}

#[test]
fn a_client_that_stops_holds_up_no_start_for_long() {
    let daemon = Daemon::start();
    let id = daemon.berth(&["create", "-v", "data:/data", "busybox", "true"]).ok();
    let mut stream = half_a_copy(&daemon, &id, "/data");
    arrived(&daemon, "whole");
    daemon.berth(&["start", "-a", &id]).ok();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(raw::status(&answer), 500, "{answer}");
    assert!(answer.contains("the copy was ended"), "{answer}");
    let left = daemon.data_root().join("volumes/data/_data");
    assert!(left.join("whole").exists() && !left.join("half").exists());
}

#[test]
fn a_removal_ends_copies() {
    let daemon = Daemon::start();
    for running in [true, false] {
        let command = if running { "1000" } else { "0" };
        let id = daemon.background(&["-v", "data:/data", "busybox", "sleep", command]);
        if !running {
            daemon.wait(&id);
        }
        let put = half_a_copy(&daemon, &id, "/data");
        arrived(&daemon, "whole");
        let mut get = daemon.client(Client::Docker, &["cp", &format!("{id}:/bin"), "-"]);
        let mut get = get.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut byte = [0];
        get.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        daemon.berth(&["rm", "-f", &id]).ok();
        drop(put);
        end(get);
        assert!(!daemon.data_root().join("containers").join(&id).exists());
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    child.wait().unwrap();
}

/// What any process has mounted of this daemon's roots, in whatever mount namespace.
fn mounted(daemon: &Daemon) -> Vec<String> {
    let root = daemon.root.path().to_str().unwrap();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path().join("mountinfo");
        let table = fs::read_to_string(path).unwrap_or_default();
        found.extend(table.lines().filter(|line| line.contains(root)).map(str::to_owned));
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_killed_daemon_leaves_no_mounts_and_what_was_copied() {
    let mut daemon = Daemon::start();
    let id = daemon.berth(&["create", "-v", "data:/data", "busybox", "ls", "/tmp", "/data"]).ok();
    // The spawner has the roots themselves.
    let before = mounted(&daemon);
    let one = half_a_copy(&daemon, &id, "/data");
    let two = half_a_copy(&daemon, &id, "/tmp");
    arrived(&daemon, "whole");
    assert_eq!(mounted(&daemon), before, "no process ever has them in its table");
    daemon.kill();
    drop((one, two));
    eventually("nothing is left", || mounted(&daemon).iter().all(|line| before.contains(line)).then_some(()));
    daemon.launch();
    let listing = daemon.berth(&["start", "-a", &id]).ok();
    assert_eq!(listing.matches("whole").count(), 2, "{listing}");
    daemon.berth(&["rm", &id]).ok();
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_container_may_end_during_a_copy() {
    let daemon = Daemon::start();
    let id = daemon.background(&["-v", "data:/data", "--tmpfs", "/scratch", "busybox", "sleep", "1000"]);
    let tar = crate::files::Layer::new()
        .file("first", 0o644, "")
        .file("a", 0o644, vec![b'a'; 4_000_000])
        .file("vol/b", 0o644, "b")
        .bytes();
    // The volume is seen to the end, though no process of the container is left.
    let query = format!("/v1.44/containers/{id}/archive?path=/data");
    let request = raw::request("PUT", &query, "", &tar);
    let mut stream = raw::connect(&daemon);
    let (first, second) = request.split_at(3_000_000);
    stream.write_all(first).unwrap();
    arrived(&daemon, "first");
    daemon.berth(&["kill", &id]).ok();
    daemon.wait(&id);
    stream.write_all(second).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(raw::status(&answer), 200, "{answer}");
    arrived(&daemon, "vol/b");
    let layers = daemon.berth(&["export", &id]);
    assert_eq!(layers.code, 0);
    assert!(!layers.stdout.contains("vol/b"), "nothing went to the container's own layer");
    daemon.berth(&["start", &id]).ok();
    daemon.berth(&["rm", "-f", &id]).ok();
}

#[test]
fn hostile_roots_and_archives_lead_nowhere() {
    let daemon = Daemon::start();
    let outside = Outside::new(&daemon);
    let path = outside.path.display();
    let script =
        format!("rm -rf /home /srv; ln -s {path} /home; ln -s /home /srv; mkfifo /fifo; mknod /disk b 8 0");
    let id = daemon.background(&["busybox", "sh", "-c", &script]);
    daemon.wait(&id);
    let here = daemon.root.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("f"), "x").unwrap();
    for target in ["/home/", "/srv/", "/home/f", "/srv/../srv/f", "/../../home/"] {
        run(daemon.client(Client::Docker, &["cp", "f", &format!("{id}:{target}")]).current_dir(&here));
        let out = daemon.berth(&["cp", &format!("{id}:{target}"), "-"]);
        assert!(!out.stdout.contains("SECRET"), "{target}");
    }
    outside.check();
    // Nothing waits for a FIFO or opens a disk.
    for special in ["/fifo", "/disk"] {
        run(&mut daemon.client(Client::Berth, &["cp", &format!("{id}:{special}"), here.to_str().unwrap()]))
            .ok();
    }
    // What a container sends cannot leave the directory that it is unpacked to.
    symlink(&outside.path, here.join("out")).unwrap();
    let tar = crate::files::Layer::new()
        .symlink("x", path.to_string().as_str())
        .file("x/planted", 0o644, "x")
        .bytes();
    feed(&mut daemon.client(Client::Berth, &["cp", "-", &format!("{id}:/tmp")]), &tar).ok();
    outside.check();
    assert!(Path::new(&here).join("fifo").exists());
}
