//! `cp` and the archive requests: what becomes of which name, and what is refused, in containers that run and in others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;

use crate::daemon::{Client, Daemon};
use crate::output::{feed, run};
use crate::raw;

/// A container with some files, running or not.
fn container(daemon: &Daemon, running: bool, arguments: &[&str]) -> String {
    let script = "mkdir -p /d/sub; echo one > /d/one; echo two > /d/sub/two; ln -s d /dlink; ln -s /d/one /flink; \
                  ln -s gone /dangling; ln /d/one /d/twin; chown 12:34 /d/sub/two; chmod 4711 /d/sub/two; \
                  mknod /d/null c 1 3; mkfifo /d/fifo; echo up; ";
    let script = format!("{script}{}", if running { "sleep 1000" } else { "true" });
    let mut all = arguments.to_vec();
    all.extend(["busybox", "sh", "-c", &script]);
    let id = daemon.background(&all);
    if running {
        crate::output::eventually("it wrote", || {
            daemon.berth(&["logs", &id]).stdout.contains("up").then_some(())
        });
    } else {
        daemon.wait(&id);
    }
    id
}

fn folder(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.root.path().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

with_both_clients! {
    fn a_container_has_its_working_directory_before_it_is_started(daemon: &Daemon, client: Client) {
        let tmp = folder(daemon, "tmp");
        daemon.with(client, &["create", "--name", "cc", "-w", "/home/a/b", "busybox", "cat", "note"]).ok();
        daemon.with(client, &["cp", "cc:/home/a/b", tmp.to_str().unwrap()]).ok();
        assert!(tmp.join("b").is_dir());
        fs::write(tmp.join("note"), "put there").unwrap();
        daemon.with(client, &["cp", tmp.join("note").to_str().unwrap(), "cc:/home/a/b/"]).ok();
        assert_eq!(daemon.with(client, &["start", "-a", "cc"]).ok(), "put there");
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// `cp` in a folder.
fn cp(daemon: &Daemon, client: Client, folder: &Path, arguments: &[&str]) -> crate::output::Output {
    let all: Vec<&str> = ["cp"].into_iter().chain(arguments.iter().copied()).collect();
    run(daemon.client(client, &all).current_dir(folder))
}

/// What a file of the container holds.
fn inside(daemon: &Daemon, id: &str, path: &str) -> String {
    let tar = daemon.client(Client::Docker, &["cp", &format!("{id}:{path}"), "-"]).output().unwrap();
    assert!(tar.status.success(), "{path}: {}", String::from_utf8_lossy(&tar.stderr));
    let mut archive = tar::Archive::new(tar.stdout.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut content = String::new();
    std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
    content
}

with_both_clients! {
    fn files_and_directories_come_out(daemon: &Daemon, client: Client) {
        for running in [true, false] {
            let id = container(daemon, running, &[]);
            let to = folder(daemon, &format!("out-{running}"));
            let from = |path: &str| format!("{id}:{path}");
            cp(daemon, client, &to, &[&from("/d/one"), "."]).ok();
            cp(daemon, client, &to, &[&from("d/one"), "renamed"]).ok();
            cp(daemon, client, &to, &[&from("/d"), "new"]).ok();
            fs::create_dir(to.join("old")).unwrap();
            cp(daemon, client, &to, &[&from("/d"), "old"]).ok();
            cp(daemon, client, &to, &[&from("/d/."), "old"]).ok();
            cp(daemon, client, &to, &[&from("/flink"), "link"]).ok();
            cp(daemon, client, &to, &["-L", &from("/flink"), "followed"]).ok();
            cp(daemon, client, &to, &[&from("/dlink/"), "tree"]).ok();
            for name in ["one", "renamed", "new/one", "old/d/one", "old/one", "followed", "tree/one"] {
                assert_eq!(text(to.join(name)), "one\n", "{name}");
            }
            assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/d/one"));
            assert_eq!(text(to.join("old/d/sub/two")), "two\n");
            let (one, twin) = (fs::metadata(to.join("new/one")).unwrap(), fs::metadata(to.join("new/twin")).unwrap());
            assert_eq!(one.ino(), twin.ino(), "a hard link stays one");
            let two = fs::metadata(to.join("new/sub/two")).unwrap();
            assert_eq!((two.mode() & 0o7777, two.uid()), (0o4711, 0), "the copy belongs to who copies");
            assert_eq!(fs::metadata(to.join("new/null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
        }
    }

    fn files_and_directories_go_in(daemon: &Daemon, client: Client) {
        for running in [true, false] {
            let id = container(daemon, running, &[]);
            let from = folder(daemon, &format!("in-{running}"));
            fs::create_dir_all(from.join("tree/deep")).unwrap();
            fs::write(from.join("file"), "mine\n").unwrap();
            fs::write(from.join("tree/deep/x"), "deep\n").unwrap();
            fs::set_permissions(from.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
            std::os::unix::fs::chown(from.join("file"), Some(77), Some(88)).unwrap();
            symlink("file", from.join("link")).unwrap();
            let to = |path: &str| format!("{id}:{path}");
            for (source, target, file, content) in [
                ("file", "/d", "/d/file", "mine\n"),
                ("file", "/new", "/new", "mine\n"),
                ("file", "/d/one", "/d/one", "mine\n"),
                ("file", "/flink", "/d/one", "mine\n"),
                ("file", "/dlink/", "/d/file", "mine\n"),
                ("file", "/dangling", "/gone", "mine\n"),
                ("tree", "/d", "/d/tree/deep/x", "deep\n"),
                ("tree", "/fresh", "/fresh/deep/x", "deep\n"),
                ("tree/.", "/d/sub", "/d/sub/deep/x", "deep\n"),
                ("./tree/", "rel", "/rel/deep/x", "deep\n"),
            ] {
                cp(daemon, client, &from, &[source, &to(target)]).ok();
                assert_eq!(inside(daemon, &id, file), content, "{source} to {target}");
            }
            cp(daemon, client, &from, &["-L", "link", &to("/followed")]).ok();
            assert_eq!(inside(daemon, &id, "/followed"), "mine\n");
            cp(daemon, client, &from, &["link", &to("/d/link")]).ok();
            let back = folder(daemon, &format!("back-{running}"));
            cp(daemon, client, &back, &[&to("/d/link"), "."]).ok();
            assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("file"));
            if !running {
                daemon.berth(&["start", &id]).ok();
                daemon.wait(&id);
            } else {
                let stat = daemon.berth(&["exec", &id, "stat", "-c", "%u:%g %a", "/new"]).ok();
                assert_eq!(stat, "77:88 640");
            }
        }
    }

    fn what_a_container_at_rest_takes(daemon: &Daemon, client: Client) {
        let script = "ls /tmp | wc -l; stat -c '%u:%g' /f /v/f";
        let id = daemon.with(client, &["create", "-u", "7:8", "--tmpfs", "/tmp", "-v", "kept:/v", "busybox", "sh", "-c", script]).ok();
        let from = folder(daemon, "from");
        fs::write(from.join("f"), "x").unwrap();
        std::os::unix::fs::chown(from.join("f"), Some(77), Some(88)).unwrap();
        // With -a it belongs to the container's user; what goes where memory will be is hidden by it.
        for target in ["/f", "/v/f", "/tmp/f"] {
            cp(daemon, client, &from, &["-a", "f", &format!("{id}:{target}")]).ok();
        }
        assert_eq!(daemon.with(client, &["start", "-a", &id]).ok(), "0\n7:8\n7:8");
        assert_eq!(inside(daemon, &id, "/tmp/f"), "x");
    }

    fn archives_go_through_standard_input_and_output(daemon: &Daemon, client: Client) {
        let id = container(daemon, false, &[]);
        let tar = daemon.client(client, &["cp", &format!("{id}:/d/."), "-"]).output().unwrap();
        assert!(tar.status.success());
        let names: Vec<String> = tar::Archive::new(tar.stdout.as_slice())
            .entries().unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
            .collect();
        assert!(names.contains(&"./".to_owned()) && names.contains(&"./sub/two".to_owned()), "{names:?}");
        feed(&mut daemon.client(client, &["cp", "-", &format!("{id}:/home")]), &tar.stdout).ok();
        assert_eq!(inside(daemon, &id, "/home/sub/two"), "two\n");
        for compressed in [crate::files::gzip(&tar.stdout), zstd::encode_all(tar.stdout.as_slice(), 1).unwrap()] {
            feed(&mut daemon.client(client, &["cp", "-", &format!("{id}:/tmp")]), &compressed).ok();
            assert_eq!(inside(daemon, &id, "/tmp/sub/two"), "two\n");
        }
        feed(&mut daemon.client(client, &["cp", "-", &format!("{id}:/d/one")]), &tar.stdout)
            .fails(1, "must be a directory");
        feed(&mut daemon.client(client, &["cp", "-", &format!("{id}:/tmp")]), &tar.stdout[..700]).fails(1, "");
    }

    fn what_cannot_be_is_refused_in_dockers_words(daemon: &Daemon, client: Client) {
        let id = container(daemon, true, &[]);
        let here = folder(daemon, "bad");
        fs::create_dir(here.join("dir")).unwrap();
        fs::write(here.join("file"), "x").unwrap();
        symlink("nowhere", here.join("dangling")).unwrap();
        let at = |path: &str| format!("{id}:{path}");
        let not_there = format!("Could not find the file /absent in container {id}");
        let (out, inn) = (at("/absent"), at("/d"));
        for (arguments, message) in [
            (vec![out.as_str(), "."], not_there.as_str()),
            (vec![&at("/d/one/"), "."], "not a directory"),
            (vec![&at("/d/one/."), "."], "not a directory"),
            (vec![&at("/d/one/below"), "."], "not a directory"),
            (vec![&at("/d"), "file"], "cannot copy directory"),
            (vec![&at("/d/one"), "absent/"], "no such directory"),
            (vec![&at("/d/one"), "absent/x/y"], "invalid output path: directory"),
            (vec![&at("/d/one"), "/dev/null"], "got a device"),
            (vec!["absent", &inn], "no such file or directory"),
            (vec!["-L", "dangling", &inn], "no such file or directory"),
            (vec!["file/", &inn], "not a directory"),
            (vec!["dir", &at("/d/one")], "cannot copy directory"),
            (vec!["file", &at("/absent/")], "no such directory"),
            (vec!["file", &at("/absent/x/y")], "Could not find the file /absent/x in container"),
            (vec!["file", &at("/dev/null")], "got a device"),
            (vec![&at("/d"), &inn], "copying between containers is not supported"),
            (vec!["file", "dir"], "must specify at least one container source"),
            (vec!["file", "absent:/x"], "No such container: absent"),
            (vec!["absent:/etc", "."], "No such container: absent"),
            (vec!["", &inn], "source can not be empty"),
        ] {
            cp(daemon, client, &here, &arguments).fails(1, message);
        }
        // What stands at the name inside the directory counts too.
        fs::create_dir(here.join("one")).unwrap();
        cp(daemon, client, &here, &["one", &at("/d")]).fails(1, "cannot overwrite non-directory");
        fs::write(here.join("sub"), "x").unwrap();
        cp(daemon, client, &here, &["sub", &at("/d")]).fails(1, "cannot overwrite directory");
        fs::create_dir(here.join("dir/one")).unwrap();
        cp(daemon, client, &here, &[&at("/d/one"), "dir"]).fails(1, "cannot overwrite directory");
        let target = cp(daemon, client, &here, &["file", &at("/../../../d/../up")]);
        target.ok();
        assert_eq!(inside(daemon, &id, "/up"), "x");
        assert!(!Path::new("/up").exists());
    }

    fn what_is_mounted_inside_is_seen(daemon: &Daemon, client: Client) {
        let host = folder(daemon, "host");
        fs::write(host.join("h"), "host\n").unwrap();
        let bind = format!("{}:/bind", host.display());
        let here = folder(daemon, "here");
        fs::write(here.join("f"), "new\n").unwrap();
        for running in [true, false] {
            let id = container(daemon, running, &["-v", "named:/vol", "-v", &bind, "--tmpfs", "/scratch"]);
            let at = |path: &str| format!("{id}:{path}");
            assert_eq!(inside(daemon, &id, "/bind/h"), "host\n");
            let name = format!("f-{running}");
            cp(daemon, client, &here, &["f", &at(&format!("/bind/{name}"))]).ok();
            assert_eq!(text(host.join(&name)), "new\n");
            cp(daemon, client, &here, &["f", &at(&format!("/vol/{name}"))]).ok();
            assert_eq!(text(daemon.data_root().join("volumes/named/_data").join(&name)), "new\n");
            assert!(inside(daemon, &id, "/etc/hosts").contains("localhost"));
            if running {
                cp(daemon, client, &here, &["f", &at("/scratch/f")]).ok();
                assert_eq!(daemon.berth(&["exec", &id, "cat", "/scratch/f"]).ok(), "new");
                assert_eq!(inside(daemon, &id, "/scratch/f"), "new\n");
            }
            let layers = daemon.berth(&["diff", &id]).ok();
            assert!(!layers.contains("/vol/"), "it went to the volume: {layers}");
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(daemon.root.path().to_str().unwrap()), "{table}");
    }

    fn what_is_read_only_is_not_written(daemon: &Daemon, client: Client) {
        let here = folder(daemon, "here");
        fs::write(here.join("f"), "new\n").unwrap();
        for running in [true, false] {
            let flags = ["--read-only", "-v", "rw:/rw", "-v", "ro:/ro:ro"];
            let mut all = vec!["create"];
            all.extend(flags);
            all.extend(["busybox", "sh", "-c", "ln -s / /rw/root; sleep 1000"]);
            let id = daemon.berth(&all).ok();
            daemon.berth(&["start", &id]).ok();
            crate::output::eventually("it made its link", || {
                daemon.data_root().join("volumes/rw/_data/root").is_symlink().then_some(())
            });
            if !running {
                daemon.berth(&["kill", &id]).ok();
                daemon.wait(&id);
            }
            let at = |path: &str| format!("{id}:{path}");
            cp(daemon, client, &here, &["f", &at("/tmp/f")]).fails(1, "container rootfs is marked read-only");
            cp(daemon, client, &here, &["f", &at("/ro/f")]).fails(1, "mounted volume is marked read-only");
            cp(daemon, client, &here, &["f", &at("/rw/root/f")]).fails(1, "container rootfs is marked read-only");
            cp(daemon, client, &here, &["f", &at("/rw/f")]).ok();
            daemon.berth(&["rm", "-f", &id]).ok();
        }
    }

    fn archive_mode_gives_files_to_the_containers_user(daemon: &Daemon, client: Client) {
        let here = folder(daemon, "here");
        fs::write(here.join("f"), "x").unwrap();
        std::os::unix::fs::chown(here.join("f"), Some(77), Some(88)).unwrap();
        for (user, expected) in [("", "77:88"), ("1234", "1234:0"), ("1234:", "1234:0"), (":55", "0:55"), ("daemon:7", "1:7")] {
            let mut all = vec!["--user", user, "-v", "/data", "busybox", "sleep", "1000"];
            if user.is_empty() {
                all.drain(..2);
            }
            let id = daemon.background(&all);
            cp(daemon, client, &here, &["-a", "f", &format!("{id}:/f")]).ok();
            assert_eq!(daemon.berth(&["exec", &id, "stat", "-c", "%u:%g", "/f"]).ok(), expected, "{user}");
            daemon.berth(&["rm", "-f", &id]).ok();
        }
    }

    fn created_containers_have_files_and_events_are_told(daemon: &Daemon, client: Client) {
        let id = daemon.berth(&["create", "-v", "/data", "busybox", "cat", "/data/f"]).ok();
        let here = folder(daemon, "here");
        fs::write(here.join("f"), "before\n").unwrap();
        cp(daemon, client, &here, &["f", &format!("{id}:/data")]).ok();
        cp(daemon, client, &here, &[&format!("{id}:/data/f"), "back"]).ok();
        assert_eq!(daemon.berth(&["start", "-a", &id]).ok(), "before");
        let filter = format!("container={id}");
        let events = daemon.berth(&["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"]).ok();
        let events: Vec<&str> = events.lines().filter(|event| event.contains('-')).collect();
        assert_eq!(events, ["extract-to-dir", "archive-path"]);
    }

    fn progress_is_told_on_request(daemon: &Daemon, client: Client) {
        let id = container(daemon, false, &[]);
        let here = folder(daemon, "here");
        let quiet = cp(daemon, client, &here, &[&format!("{id}:/d/one"), "."]);
        assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (0, "", ""));
        let told = cp(daemon, client, &here, &["-q=false", &format!("{id}:/d/one"), "."]);
        assert!(told.stderr.contains("Successfully copied ") && told.stderr.contains("here"), "{told:?}");
        let told = cp(daemon, client, &here, &["--quiet=false", "one", &format!("{id}:/x")]);
        assert!(told.stderr.ends_with(&format!(" to {id}:/x\n")), "{told:?}");
    }
}

fn archive(daemon: &Daemon, method: &str, id: &str, query: &str, body: &[u8]) -> String {
    let path = format!("/v1.44/containers/{id}/archive?{query}");
    raw::exchange(daemon, &raw::request(method, &path, "", body))
}

fn stat(answer: &str) -> serde_json::Value {
    let line = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("X-Docker-Container-Path-Stat").then_some(value)
    });
    let line = line.unwrap_or_else(|| panic!("no stat in {answer}"));
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(line.trim()).unwrap()).unwrap()
}

#[test]
fn the_header_says_what_stands_there() {
    let daemon = Daemon::start();
    let id = container(&daemon, true, &[]);
    for (path, name, mode, target) in [
        ("/d/one", "one", 0o644, ""),
        ("/d", "d", 1 << 31 | 0o755, ""),
        ("/", "/", 1 << 31 | 0o755, ""),
        ("/d/.", ".", 1 << 31 | 0o755, ""),
        ("/flink", "flink", 1 << 27 | 0o777, "/d/one"),
        ("/dlink", "dlink", 1 << 27 | 0o777, "/d"),
        ("/dangling", "dangling", 1 << 27 | 0o777, "/gone"),
        ("/dlink/", "dlink", 1u32 << 31 | 0o755, ""),
        ("/d/sub/two", "two", 1 << 23 | 0o711, ""),
    ] {
        for method in ["HEAD", "GET"] {
            let answer = archive(&daemon, method, &id, &format!("path={path}"), b"");
            assert_eq!(raw::status(&answer), 200, "{answer}");
            let stat = stat(&answer);
            let found = (stat["name"].as_str(), stat["mode"].as_u64(), stat["linkTarget"].as_str());
            assert_eq!(found, (Some(name), Some(u64::from(mode)), Some(target)), "{method} {path}");
        }
    }
    assert_eq!(raw::status(&archive(&daemon, "HEAD", &id, "path=/absent", b"")), 404);
    assert_eq!(raw::status(&archive(&daemon, "HEAD", &id, "path=/d/one/", b"")), 500);
    for method in ["GET", "PUT"] {
        let answer = archive(&daemon, method, &id, "path=", b"");
        assert_eq!(raw::status(&answer), 400, "{answer}");
        assert!(answer.contains("bad parameter: path cannot be empty"), "{answer}");
    }
}

#[test]
fn puts_are_checked() {
    let daemon = Daemon::start();
    let id = container(&daemon, false, &[]);
    let put = |query: &str, body: &[u8]| {
        let answer = archive(&daemon, "PUT", &id, query, body);
        let last = answer.lines().last().unwrap_or_default().to_owned();
        (raw::status(&answer), last)
    };
    let tar = crate::files::Layer::new().file("d", 0o644, "now a file").bytes();
    assert_eq!(put("path=/tmp", b""), (200, String::new()));
    let (status, text) = put("path=/absent", b"");
    assert_eq!(status, 404);
    assert!(text.contains(&format!("Could not find the file /absent in container {id}")), "{text}");
    assert_eq!(put("path=/d/one", b"").0, 400);
    let (status, text) = put("path=/d/one/", b"");
    assert!(status == 500 && text.contains("not a directory"), "{text}");
    let (status, text) = put("path=/&noOverwriteDirNonDir=1", &tar);
    assert!(status == 500 && text.contains("cannot overwrite directory"), "{text}");
    assert_eq!(put("path=/", &tar), (200, String::new()));
    assert_eq!(inside(&daemon, &id, "/d"), "now a file");
    for (name, link) in [("../out", ""), ("x/../../out", ""), ("hard", "../../etc/passwd")] {
        let kind = if link.is_empty() { tar::EntryType::Regular } else { tar::EntryType::Link };
        let bad = crate::files::Layer::new().raw(kind, name.as_bytes(), link.as_bytes(), b"").bytes();
        assert_eq!(put("path=/tmp", &bad).0, 500, "{name}");
    }
    // A magic number alone makes nobody start a program of the container (R11).
    assert_eq!(put("path=/tmp", b"\xfd7zXZ\0not-real").0, 500);
}

#[test]
fn files_of_the_engine_are_read_and_not_replaced() {
    let daemon = Daemon::start();
    let id = container(&daemon, true, &[]);
    let here = folder(&daemon, "here");
    fs::write(here.join("hosts"), "x").unwrap();
    cp(&daemon, Client::Berth, &here, &["hosts", &format!("{id}:/etc/hosts")]).fails(1, "busy");
    assert!(inside(&daemon, &id, "/etc/hosts").contains("localhost"));
    let out = cp(&daemon, Client::Berth, &here, &[&format!("{id}:/proc/1/root"), "."]).ok();
    assert_eq!(out, "");
    assert!(fs::symlink_metadata(here.join("root")).unwrap().is_symlink(), "it is not followed");
    cp(&daemon, Client::Berth, &here, &[&format!("{id}:/proc/1/root/"), "x"]).fails(1, "");
}

/// Only who asks for it on a terminal sees the bytes being counted.
#[test]
fn a_terminal_shows_progress() {
    let daemon = Daemon::start();
    let id = container(&daemon, false, &[]);
    let here = folder(&daemon, "here");
    let command =
        format!("{} -H {} cp {id}:/bin/busybox .", crate::daemon::binary().display(), daemon.host());
    let output = run(Command::new("script").args(["-qec", &command, "/dev/null"]).current_dir(&here)).ok();
    assert!(
        output.contains("Copying from container - ") && output.contains("Successfully copied "),
        "{output:?}"
    );
    assert!(here.join("busybox").is_file());
}
