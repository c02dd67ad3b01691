//! Containers in user namespaces: `userns-remap`, and the same by the OCI command line (`runtime.rs`).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::building;
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::filesystems::Kind;
use crate::flags::inside;
use crate::output::{eventually, run};

/// Makes one test for each of the two command lines, with a daemon that maps users, and one where the file system has no
/// idmapped mounts.
macro_rules! remapped_with_both_clients {
    ($(fn $name:ident($daemon:ident: &Daemon, $client:ident: Client) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn check($daemon: &Daemon, $client: Client) $body
            #[test]
            fn berth() { check(&remapped(), Client::Berth); }
            #[test]
            fn docker() { check(&remapped(), Client::Docker); }
            #[test]
            fn copies() { check(&copied(), Client::Berth); }
        }
    )*};
}

fn remapped() -> Daemon {
    let daemon = Daemon::empty(&["--userns-remap", "default"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

/// The same where mounts cannot map owners.
fn copied() -> Daemon {
    Daemon::on(Kind::Overlay, &["--userns-remap", "default"])
}

/// Whether the daemon has copied instead of mapping.
fn has_copies(daemon: &Daemon) -> bool {
    daemon.berth(&["info", "-f", "{{.Driver}}"]).ok() == "vfs"
}

/// To whom something belongs on the disk that belongs inside to these.
fn on_disk(daemon: &Daemon, (uid, gid): (u32, u32)) -> (u32, u32) {
    let first = if has_copies(daemon) { root(daemon) } else { (0, 0) };
    (first.0 + uid, first.1 + gid)
}

/// User and group outside of containers' root, by the name of the data root.
fn root(daemon: &Daemon) -> (u32, u32) {
    let data_root = daemon.berth(&["info", "-f", "{{.DockerRootDir}}"]).ok();
    let name = Path::new(&data_root).file_name().unwrap().to_str().unwrap().to_owned();
    let (uid, gid) = name.split_once('.').unwrap();
    (uid.parse().unwrap(), gid.parse().unwrap())
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

fn volume(daemon: &Daemon, name: &str) -> String {
    daemon.berth(&["volume", "inspect", "-f", "{{.Mountpoint}}", name]).ok()
}

remapped_with_both_clients! {
    fn root_inside_is_nobody_outside(daemon: &Daemon, client: Client) {
        let (uid, gid) = root(daemon);
        assert!(uid >= 65536 && gid >= 65536, "{uid} {gid}");
        let options = daemon.with(client, &["info", "-f", "{{.SecurityOptions}}"]).ok();
        assert!(options.contains("name=userns"), "{options}");
        daemon.with(client, &["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
        let pid = daemon.init_pid("one");
        assert_eq!(owner(format!("/proc/{pid}")), (uid, gid));
        for (file, first) in [("uid_map", uid), ("gid_map", gid)] {
            let map = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            let fields: Vec<&str> = map.split_whitespace().take(2).collect();
            assert_eq!(fields, ["0", first.to_string().as_str()], "{map}");
        }
        assert_eq!(daemon.with(client, &["exec", "one", "id", "-u"]).ok(), "0");
        let top = daemon.with(client, &["top", "one"]).ok();
        assert!(top.lines().nth(1).unwrap().starts_with(&uid.to_string()), "{top}");
        let files = "stat -c '%u:%g' /bin/busybox /etc/hosts /dev/null /tmp /dev/shm | sort -u";
        assert_eq!(inside(daemon, client, &[], files), "0:0");
        assert_eq!(inside(daemon, client, &[], "echo 1.2.3.4 it >> /etc/hosts; tail -n1 /etc/hosts"), "1.2.3.4 it");
        daemon.with(client, &["run", "--rm", "--hostname", "mine", "busybox", "hostname"]).ok();
    }

    fn nothing_of_the_host_stays_mounted(daemon: &Daemon, client: Client) {
        let mounts = inside(daemon, client, &[], "cat /proc/self/mountinfo");
        let at = |path: &str| mounts.lines().filter(|line| line.split(' ').nth(4) == Some(path)).count();
        assert_eq!((at("/"), at("/dev"), at("/sys"), at("/dev/null")), (1, 1, 1, 1), "{mounts}");
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let root = daemon.root.path().to_str().unwrap();
        assert_eq!(places.filter(|place| place.starts_with(root)).count(), 0, "{mounts}");
        // As far as a container can go at all, with every right in its namespace.
        let flags = ["--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"];
        let script = "mknod /n b 1 1 2>/dev/null || echo refused; mount -t tmpfs x /mnt 2>/dev/null || \
                      mkdir /mnt && mount -t tmpfs x /mnt && echo mounted; \
                      echo 1 2>/dev/null > /proc/sys/kernel/panic || echo closed";
        assert_eq!(inside(daemon, client, &flags, script), "refused\nmounted\nclosed");
    }

    fn what_steps_have_bound_belongs_inside(daemon: &Daemon, client: Client) {
        let dockerfile = "FROM busybox AS files\n\
            RUN mkdir /d && echo own > /d/file && chown 5:6 /d/file && chmod 600 /d/file && mkdir -m 700 /private\n\
            FROM busybox\n\
            RUN --mount=type=bind,from=files,target=/m stat -c %u:%g /m/d /m/d/file > /seen && cat /m/d/file >> /seen\n\
            RUN --mount=type=bind,from=files,target=/m,rw stat -c %u:%g /m/d /m/d/file >> /seen && \
            echo more >> /m/d/file && touch /m/private/new && chown 7:8 /m/private/new && \
            stat -c %u:%g /m/private/new >> /seen && cat /m/d/file >> /seen\n\
            RUN --mount=type=bind,from=files,target=/m,rw cat /m/d/file >> /seen\n\
            RUN --mount=type=bind,target=/m,rw touch /m/sub/new && stat -c %u:%g /m/sub/new /m/sub/file >> /seen\n";
        let files = [("Dockerfile", dockerfile), ("sub/file", "x")];
        let root = building::context(daemon, "bound", &files);
        building::build(daemon, client, &root, &["-t", "made"]).ok();
        let seen = daemon.berth(&["run", "--rm", "made", "cat", "/seen"]).ok();
        assert_eq!(seen, "0:0\n5:6\nown\n0:0\n5:6\n7:8\nown\nmore\nown\n0:0\n0:0");
    }

    fn volumes_belong_inside_and_binds_outside(daemon: &Daemon, client: Client) {
        let (uid, gid) = root(daemon);
        let theirs = daemon.root.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(uid), Some(gid)).unwrap();
        fs::write(theirs.join("hosts"), "x").unwrap();
        let bind = format!("{}:/b", theirs.display());
        let made = daemon.root.path().join("made/below");
        let new = format!("{}:/n", made.display());
        let flags = ["-v", "kept:/v", "-v", &bind, "-v", &new];
        let script = "touch /v/f /b/f /n/f; chown 7:8 /v/f; stat -c '%u:%g' /v/f /b/f /b/hosts /n";
        assert_eq!(inside(daemon, client, &flags, script), "7:8\n0:0\n65534:65534\n0:0");
        assert_eq!(owner(theirs.join("f")), (uid, gid));
        assert_eq!((owner(&made), owner(made.join("f"))), ((uid, gid), (uid, gid)));
        // So it is in a directory of the host, and in what a plugin keeps, by another name: root of the container is not the
        // host's there, nor in what the image has there, whoever looks.
        let device = format!("device={}", theirs.display());
        daemon.with(client, &["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]).ok();
        let script = "touch /m/g; chmod 4755 /m/g; stat -c '%u:%g' /m/g /m/hosts";
        assert_eq!(inside(daemon, client, &["-v", "bound:/m"], script), "0:0\n65534:65534");
        assert_eq!(owner(theirs.join("g")), (uid, gid));
        let id = daemon.with(client, &["create", "-v", "bound:/m", "busybox"]).ok();
        let tar = daemon.berth(&["cp", &format!("{id}:/m/g"), "-"]).stdout;
        let mut tar = tar::Archive::new(tar.as_bytes());
        let entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        let filled = daemon.root.path().join("filled");
        fs::create_dir(&filled).unwrap();
        let device = format!("device={}", filled.display());
        daemon.with(client, &["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "filled"]).ok();
        assert_eq!(inside(daemon, client, &["-v", "filled:/etc"], "stat -c '%u:%g' /etc /etc/passwd"), "0:0\n0:0");
        assert_eq!((owner(&filled), owner(filled.join("passwd"))), ((uid, gid), (uid, gid)));
        // What nobody else can reach is mapped.
        daemon.with(client, &["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
        assert_eq!(inside(daemon, client, &["-v", "mem:/m"], "touch /m/f; stat -c '%u:%g' /m /m/f"), "0:0\n0:0");
        // On the disk a volume is as containers see it, where mounts can map, and so it is for those without a user namespace.
        let (uid, gid) = on_disk(daemon, (7, 8));
        assert_eq!(owner(Path::new(&volume(daemon, "kept")).join("f")), (uid, gid));
        let host = ["--userns", "host", "-v", "kept:/v"];
        let seen = inside(daemon, client, &host, "stat -c '%u:%g' /v/f; cat /proc/self/uid_map | wc -l");
        assert_eq!(seen, format!("{uid}:{gid}\n1"));
        let map = inside(daemon, client, &["--userns", "host"], "cat /proc/self/uid_map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
    }

    fn files_are_copied_as_they_belong_inside(daemon: &Daemon, client: Client) {
        let here = daemon.root.path().join("file");
        fs::write(&here, "y").unwrap();
        let here = here.to_str().unwrap();
        daemon.with(client, &["run", "-d", "--name", "one", "-v", "kept:/v", "busybox", "sh", "-c",
            "mkdir /d; touch /d/f; chown 7:8 /d/f; sleep 1000"]).ok();
        eventually("the file is there", || {
            (daemon.berth(&["exec", "one", "stat", "-c", "%u", "/d/f"]).stdout.trim() == "7").then_some(())
        });
        let tar = |daemon: &Daemon| {
            let archive = daemon.root.path().join("archive.tar");
            let program = if client == Client::Berth { crate::daemon::binary() } else { "docker".into() };
            let script = format!("'{}' -H {} cp one:/d - > {}", program.display(), daemon.host(), archive.display());
            run(std::process::Command::new("sh").args(["-c", &script])).ok();
            run(std::process::Command::new("tar").args(["tvf", archive.to_str().unwrap(), "--numeric-owner"])).ok()
        };
        for running in [true, false] {
            daemon.with(client, &["cp", here, &format!("one:/d/{running}")]).ok();
            daemon.with(client, &["cp", here, &format!("one:/v/{running}")]).ok();
            let list = tar(daemon);
            assert!(list.lines().any(|line| line.contains(" 7/8 ") && line.ends_with("d/f")), "{list}");
            assert_eq!(list.lines().filter(|line| line.contains(" 0/0 ")).count(), 2 + usize::from(!running), "{list}");
            assert_eq!(owner(Path::new(&volume(daemon, "kept")).join(running.to_string())), on_disk(daemon, (0, 0)));
            if running {
                assert_eq!(daemon.with(client, &["exec", "one", "stat", "-c", "%u:%g", "/d/true", "/v/true"]).ok(), "0:0\n0:0");
                daemon.with(client, &["kill", "one"]).ok();
                daemon.wait("one");
            }
        }
    }

    fn images_are_the_same_with_and_without(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "one", "busybox", "sh", "-c", "touch /f; chown 7:8 /f; chmod 4755 /f"]).ok();
        let changes = daemon.with(client, &["diff", "one"]).ok();
        assert_eq!(changes, "A /f");
        daemon.with(client, &["commit", "one", "made:v1"]).ok();
        for flags in [&[][..], &["--userns", "host"]] {
            let found = daemon.with(client, &[&["run", "--rm"], flags, &["made:v1", "stat", "-c", "%u:%g %a", "/f"]].concat());
            assert_eq!(found.ok(), "7:8 4755");
        }
        let context = daemon.root.path().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("file"), "z").unwrap();
        let lines = "FROM busybox\nRUN id -u > /who && touch /r && chown 5:6 /r\nCOPY --chown=3:4 file /\nRUN stat -c '%u:%g' /r /file > /seen\n";
        fs::write(context.join("Dockerfile"), lines).unwrap();
        let mut build = daemon.client(client, &["build", "-q", "-t", "built", context.to_str().unwrap()]);
        run(build.env("DOCKER_BUILDKIT", "0")).ok();
        let script = "cat /who /seen; stat -c '%u:%g' /r /file /who";
        let found = daemon.with(client, &["run", "--rm", "built", "sh", "-c", script]).ok();
        assert_eq!(found, "0\n5:6\n3:4\n5:6\n3:4\n0:0");
        // What a build lends belongs to root inside, where mounts can map.
        if !has_copies(daemon) {
            let look = "RUN --mount=type=cache,target=/c,mode=700 --mount=type=bind,source=file,target=/b echo >> /c/f && stat -c '%u %a' /c /b && cat /b";
            fs::write(context.join("Dockerfile"), format!("FROM busybox\n{look}\n")).unwrap();
            let mut build = daemon.client(client, &["build", "-q", "-t", "lent", context.to_str().unwrap()]);
            run(build.env("DOCKER_BUILDKIT", "0")).ok();
        }
        let image = ["--mount", "type=image,src=built,dst=/i"];
        // The mount's own type is newer than some clients.
        if client == Client::Berth {
            assert_eq!(inside(daemon, client, &image, "stat -c '%u:%g' /i/r /i/file"), "5:6\n3:4");
        }
    }

    fn programs_join_with_terminals_streams_and_limits(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "one", "--init", "--oom-score-adj", "500", "--ulimit", "nofile=512:1000",
            "--health-cmd", "test $(id -u) = 0", "--health-interval", "1s", "-v", "kept:/v", "busybox", "sleep", "1000"]).ok();
        let exec = |flags: &[&str], script: &str| {
            daemon.with(client, &[&["exec"], flags, &["one", "sh", "-c", script]].concat())
        };
        assert_eq!(exec(&[], "id -u; ulimit -n; cat /proc/self/oom_score_adj").ok(), "0\n512\n500");
        let output = exec(&["-u", "1000:1000"], "id -u; echo out > /dev/stdout; echo err > /dev/stderr; touch /v/x 2>/dev/null || echo no");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("1000\nout\nno\n", "err\n"));
        assert_eq!(inside(daemon, client, &["-u", "1000"], "echo again > /dev/stdout"), "again");
        for flags in [&["run", "--rm", "-t", "busybox"][..], &["exec", "-t", "one"]] {
            let script = "stat -c '%u:%g' $(tty); echo there > /dev/tty";
            let output = daemon.with(client, &[flags, &["sh", "-c", script]].concat()).ok();
            assert_eq!(output.replace('\r', ""), "0:5\nthere");
        }
        eventually("it is healthy", || {
            (daemon.inspect("one", "{{.State.Health.Status}}") == "healthy").then_some(())
        });
        // Between two checks.
        let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "one"];
        eventually("two processes", || (daemon.with(client, &stats).ok() == "2").then_some(()));
    }

    fn flags_have_their_effect(daemon: &Daemon, client: Client) {
        let script = "touch /t/x; stat -c '%u:%g' /t /t/x; touch /no 2>/dev/null || echo closed";
        assert_eq!(inside(daemon, client, &["--read-only", "--tmpfs", "/t"], script), "0:0\n0:0\nclosed");
        let script = "stat -c '%u:%g %t,%T' /dev/x; head -c 3 /dev/x | wc -c";
        assert_eq!(inside(daemon, client, &["--device", "/dev/zero:/dev/x"], script), "0:0 1,5\n3");
        let flags = ["--sysctl", "kernel.shmmax=12345", "--shm-size", "1m", "--hostname", "me"];
        assert_eq!(inside(daemon, client, &flags, "cat /proc/sys/kernel/shmmax; hostname"), "12345\nme");
        assert_eq!(inside(daemon, client, &["--ipc", "shareable"], "touch /dev/shm/x; stat -c %u /dev/shm/x"), "0");
        daemon.with(client, &["run", "-d", "--name", "web", "--ipc", "shareable", "-p", "18080:80", "busybox", "sh", "-c",
            "mkdir /www; echo hello > /www/index.html; httpd -f -p 80 -h /www"]).ok();
        eventually("the published port answers", || {
            let output = run(std::process::Command::new("curl").args(["-s", "http://127.0.0.1:18080/"]));
            (output.stdout == "hello\n").then_some(())
        });
        let joined = ["--network", "container:web", "--ipc", "container:web", "--pid", "container:web"];
        let script = "wget -qO- 127.0.0.1; ps | grep -q '[h]ttpd -f' && echo seen; id -u";
        assert_eq!(inside(daemon, client, &joined, script), "hello\nseen\n0");
        // What is left of shareable memory would stay in the host's table of mounts.
        daemon.with(client, &["rm", "-f", "web"]).ok();
    }

    fn what_the_hosts_root_alone_may_is_refused(daemon: &Daemon, client: Client) {
        let cases = [
            (&["--privileged"][..], "privileged mode is incompatible with user namespaces"),
            (&["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
            (&["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
            (&["--ipc", "host"], "cannot share the host's IPC namespace when user namespaces are enabled"),
        ];
        for (flags, words) in cases {
            daemon.with(client, &[&["create"], flags, &["busybox"]].concat()).fails(1, words);
            assert_eq!(inside(daemon, client, &[flags, &["--userns", "host"]].concat(), "id -u"), "0");
        }
    }
}

#[test]
fn containers_outlive_the_daemon() {
    let mut daemon = remapped();
    daemon.background(&["--name", "one", "--restart", "always", "-v", "kept:/v", "busybox", "sleep", "1000"]);
    let pid = daemon.init_pid("one");
    for _ in 0..2 {
        daemon.kill();
        daemon.launch();
        assert_eq!(daemon.init_pid("one"), pid);
        assert_eq!(daemon.berth(&["exec", "one", "sh", "-c", "touch /v/f; stat -c %u /v/f"]).ok(), "0");
    }
    assert_eq!(daemon.stop(), 0);
    daemon.launch();
    daemon.berth(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(daemon.berth(&["exec", "one", "stat", "-c", "%u", "/v/f"]).ok(), "0");
    // Without the option it is another data root: nothing of this one is there, and nothing of it is lost.
    daemon.berth(&["rm", "-f", "one"]).ok();
    assert_eq!(daemon.stop(), 0);
    daemon.set_arguments(&[]);
    daemon.launch();
    assert_eq!(daemon.berth(&["images", "-q"]).ok(), "");
    assert_eq!(daemon.stop(), 0);
    daemon.set_arguments(&["--userns-remap", "dockremap"]);
    daemon.launch();
    assert_ne!(daemon.berth(&["images", "-q"]).ok(), "");
}

#[test]
fn without_idmapped_mounts_it_is_said_and_kept_to() {
    let mut daemon = copied();
    let words = "userns-remap without idmapped mounts: each container copies its image";
    assert!(daemon.log().contains(words), "{}", daemon.log());
    let warnings = daemon.berth(&["info", "-f", "{{.Warnings}}"]).ok();
    assert!(warnings.contains("each container is a whole copy of its image"), "{warnings}");
    // A volume gets what the image has, with its owners.
    let lines = "mkdir /data; touch /data/f; chown 7:8 /data /data/f; ln /data/f /data/g; chmod 4755 /data/f";
    daemon.berth(&["run", "--name", "one", "busybox", "sh", "-c", lines]).ok();
    daemon.berth(&["commit", "one", "furnished"]).ok();
    let look = "stat -c '%n %u:%g %a %h' /v /v/f";
    let run = |daemon: &Daemon, flags: &[&str], image: &str, script: &str| {
        daemon.berth(&[&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat()).ok()
    };
    let seen = run(&daemon, &["-v", "kept:/data"], "furnished", &look.replace("/v", "/data"));
    assert_eq!(seen, "/data 7:8 755 2\n/data/f 7:8 4755 2");
    // Its archive is as without: root of the host reads and writes it by the owners inside.
    let archive = daemon.root.path().join("kept.tar");
    daemon.berth(&["volume", "export", "-o", archive.to_str().unwrap(), "kept"]).ok();
    daemon.berth(&["volume", "create", "again"]).ok();
    daemon.berth(&["volume", "import", "again", archive.to_str().unwrap()]).ok();
    assert!(run(&daemon, &["-v", "again:/v"], "busybox", look).ends_with("/v/f 7:8 4755 2"));
    // A daemon that finds such a data root goes on so; containers are the same.
    daemon.background(&["--name", "two", "-v", "kept:/v", "busybox", "sleep", "1000"]);
    for _ in 0..2 {
        daemon.kill();
        daemon.launch();
        assert!(daemon.berth(&["exec", "two", "sh", "-c", look]).ok().ends_with("/v/f 7:8 4755 2"));
    }
    // Overlays, asked for by name, would need idmapped mounts.
    daemon.berth(&["rm", "-f", "two"]).ok();
    daemon.stop();
    daemon.set_arguments(&["--userns-remap", "default", "--storage-driver", "overlay2"]);
    crate::output::run(&mut daemon.command()).fails(1, "users of containers need a copy of all files");
}

#[test]
fn whole_copies_are_mapped_too() {
    let daemon = Daemon::empty(&["--userns-remap", "default", "--storage-driver", "vfs"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    let script = "touch /f; stat -c '%u:%g' /f /bin/busybox; id -u";
    assert_eq!(inside(&daemon, Client::Berth, &[], script), "0:0\n0:0\n0");
}

#[test]
fn users_that_are_not_there_are_refused() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let cases = [
        ("nobody-has-this-name", "Error during uid lookup for \"nobody-has-this-name\""),
        ("4294967", "Uid 4294967 has no entry in /etc/passwd"),
        ("a:b:c", "Invalid user/group specification in --userns-remap: \"a:b:c\""),
        ("nobody:nobody-has-this-name", "Error during gid lookup"),
    ];
    for (given, words) in cases {
        daemon.set_arguments(&["--userns-remap", given]);
        run(&mut daemon.command()).fails(1, words);
    }
    // Also by the file, under Docker's name of the key.
    let file = daemon.root.path().join("daemon.json");
    fs::write(&file, r#"{"userns-remap": "nobody-has-this-name"}"#).unwrap();
    daemon.set_arguments(&["--config-file", file.to_str().unwrap()]);
    run(&mut daemon.command()).fails(1, "Error during uid lookup");
    // Root cannot be another.
    fs::write(&file, r#"{"userns-remap": "root"}"#).unwrap();
    daemon.launch();
    assert!(daemon.log().contains("root cannot be remapped with itself"), "{}", daemon.log());
    assert!(!daemon.berth(&["info", "-f", "{{.SecurityOptions}}"]).ok().contains("userns"));
}

#[test]
fn a_bind_with_owners_of_its_own_has_them_inside_too() {
    let daemon = remapped();
    let theirs = daemon.root.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("f"), "x").unwrap();
    for path in [&theirs, &theirs.join("f")] {
        std::os::unix::fs::chown(path, Some(1234), Some(2345)).unwrap();
    }
    let mount = |ids: &str| format!("type=bind,src={},dst=/m,idmap={ids}", theirs.display());
    let known = mount("uids=1234-5-1;gids=2345-6-1");
    let script = "stat -c '%u:%g' /m /m/f; touch /m/new && echo made";
    assert_eq!(inside(&daemon, Client::Berth, &["-u", "5:6", "--mount", &known], script), "5:6\n5:6\nmade");
    assert_eq!(owner(theirs.join("new")), (1234, 2345));
    // Root of the container is nobody there.
    let refused = daemon.berth(&["run", "--rm", "--mount", &known, "busybox", "touch", "/m/roots"]);
    assert!(refused.code == 1 && !theirs.join("roots").exists(), "{}", refused.stderr);
    // The same in a container that does not run.
    let id = daemon.berth(&["create", "--mount", &known, "busybox"]).ok();
    let tar = daemon.berth(&["cp", &format!("{id}:/m/f"), "-"]).stdout;
    let mut tar = tar::Archive::new(tar.as_bytes());
    let entry = tar.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (5, 6));
    // Users that the container has not.
    let unknown = mount("uids=1234-90000-1;gids=2345-90000-1");
    let refused = daemon.berth(&["run", "--rm", "--mount", &unknown, "busybox", "true"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("the container has no such users or groups"),
        "{}",
        refused.stderr
    );
}
