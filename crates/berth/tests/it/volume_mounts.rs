//! What containers see of volumes and images: content of the image, paths within, options, other containers' mounts.

use std::fs;

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::flags::{inside, refused};
use crate::output::eventually;

/// An image with content at places where volumes are mounted.
fn furnished(daemon: &Daemon) {
    let script = "mkdir -p /data/dir /empty && echo image > /data/file && ln /data/file /data/same && ln -s file /data/link \
                  && mkfifo /data/pipe && chown 5:6 /data /data/dir && chmod 2750 /data && chmod 700 /data/dir && chmod 4755 /data/file \
                  && chown 7:8 /empty && ln -s /data /way && echo x > /plain";
    daemon.berth(&["run", "--name", "maker", "busybox", "sh", "-c", script]).ok();
    // Layers upon layers: what the upper one hides must not come.
    daemon.berth(&["commit", "maker", "lower"]).ok();
    daemon
        .berth(&[
            "run",
            "--name",
            "second",
            "lower",
            "sh",
            "-c",
            "echo gone > /data/gone; rm /data/gone; echo top > /data/top",
        ])
        .ok();
    daemon.berth(&["commit", "second", "furnished"]).ok();
    daemon.berth(&["commit", "-c", "VOLUME /data", "-c", "VOLUME /fresh", "second", "withvolumes"]).ok();
    daemon.berth(&["rm", "maker", "second"]).ok();
}

const WRONG_KIND: &str = "not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";

/// All that matters about the files of a directory.
const LOOK: &str = "cd $0 && stat -c '%n %a %u %g %F' . * && cat file top && readlink link && [ file -ef same ] && echo same";

fn look(daemon: &Daemon, client: Client, mount: &[&str], path: &str) -> String {
    let arguments = [&["run", "--rm"], mount, &["furnished", "sh", "-c", LOOK, path]].concat();
    daemon.with(client, &arguments).ok()
}

fn mounts(daemon: &Daemon, id: &str) -> Vec<Value> {
    let text = daemon.inspect(id, "{{json .Mounts}}");
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.sort_by_key(|mount| mount["Destination"].as_str().unwrap().to_owned());
    all
}

with_both_clients! {
    fn a_new_volume_has_what_the_image_has(daemon: &Daemon, client: Client) {
        furnished(daemon);
        let expected = look(daemon, client, &[], "/data");
        assert!(expected.contains("file 4755 0 0") && expected.contains(". 2750 5 6"), "{expected}");
        assert_eq!(look(daemon, client, &["-v", "one:/data"], "/data"), expected);
        assert_eq!(look(daemon, client, &["-v", "one:/mnt"], "/mnt"), expected, "it stays");
        assert_eq!(look(daemon, client, &["--mount", "src=two,dst=/data"], "/data"), expected);
        assert_eq!(look(daemon, client, &["-v", "/data"], "/data"), expected);
        assert_eq!(look(daemon, client, &["-v", "three:/way"], "/data"), expected, "a link in the image leads there");
        let list = |mount: &[&str], path: &str| daemon.with(client, &[&["run", "--rm"], mount, &["furnished", "ls", "-A", path]].concat()).ok();
        assert_eq!(list(&["-v", "bare:/data:nocopy"], "/data"), "");
        assert_eq!(list(&["--mount", "src=bare2,dst=/data,volume-nocopy"], "/data"), "");
        // What is not empty is left alone.
        daemon.with(client, &["run", "--rm", "-v", "own:/v", "busybox", "touch", "/v/mine"]).ok();
        assert_eq!(list(&["-v", "own:/data"], "/data"), "mine");
        let owner = daemon.with(client, &["run", "--rm", "-v", "kept:/empty", "furnished", "stat", "-c", "%u %g", "/empty"]).ok();
        assert_eq!(owner, "7 8");
        // Nothing is left of the copying.
        for volume in fs::read_dir(daemon.data_root().join("volumes")).unwrap() {
            let names: Vec<_> = fs::read_dir(volume.unwrap().path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["_data"]);
        }
    }

    fn an_images_volumes_go_with_the_container(daemon: &Daemon, client: Client) {
        furnished(daemon);
        let id = daemon.with(client, &["create", "withvolumes", "ls", "/data/file"]).ok();
        let all = mounts(daemon, &id);
        assert_eq!(all.len(), 2);
        let name = all[0]["Name"].as_str().unwrap();
        let source = daemon.data_root().join("volumes").join(name).join("_data");
        assert_eq!(all[0], json!({
            "Type": "volume", "Name": name, "Source": source, "Destination": "/data", "Driver": "local", "Mode": "", "RW": true,
            "Propagation": "",
        }));
        assert_eq!(daemon.inspect(name, "{{json .Labels}}"), "{\"com.docker.volume.anonymous\":\"\"}");
        assert_eq!(daemon.with(client, &["start", "-a", &id]).ok(), "/data/file");
        daemon.with(client, &["rm", &id]).ok();
        assert!(source.exists(), "only with -v");
        daemon.with(client, &["run", "--rm", "-v", "named:/fresh", "withvolumes", "true"]).ok();
        let left = || daemon.berth(&["volume", "ls", "-q"]).ok().lines().count();
        eventually("--rm took its own", || (left() == 3).then_some(()));
        assert!(daemon.data_root().join("volumes/named").exists());
        // A file where a volume is to be.
        let file = ["create", "-v", "/plain", "furnished"];
        daemon.with(client, &file).fails(1, "cannot mount volume over existing file, file exists");
        assert_eq!(left(), 3, "and nothing is left of it");
    }

    fn paths_within_a_volume(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo x > /v/a/b/f; ln -s a/b /v/in; ln -s /etc /v/out; ln -s ../../.. /v/up"]).ok();
        let cat = |subpath: &str, file: &str| inside(daemon, client, &["--mount", &format!("src=data,dst=/m,volume-subpath={subpath}")], &format!("cat {file}"));
        assert_eq!(cat("a/b", "/m/f"), "x");
        assert_eq!(cat("in", "/m/f"), "x");
        assert_eq!(cat("a/b/f", "/m"), "x", "a file");
        for (subpath, message) in [
            ("out", "escapes the base directory"), ("up", "escapes the base directory"), ("none", "cannot access path"),
            ("../x", "subpath must be a relative path within the volume"), ("/a", "subpath must be a relative path within the volume"),
        ] {
            let mount = format!("src=data,dst=/m,volume-subpath={subpath}");
            // Clients take whatever is missing to be the program.
            let code = if subpath == "none" { 127 } else { 125 };
            daemon.with(client, &["run", "--rm", "--mount", &mount, "busybox", "true"]).fails(code, message);
        }
        refused(daemon, client, &["--mount", "dst=/m,volume-subpath=a"], "must not set Subpath when using anonymous volumes");
    }

    fn images_are_mounted_read_only(daemon: &Daemon, client: Client) {
        furnished(daemon);
        let id = daemon.with(client, &["create", "--name", "user", "--mount", "type=image,src=furnished,dst=/m", "busybox", "sh", "-c", "cat /m/data/top; ls /m/data/gone; touch /m/x"]).ok();
        let output = daemon.with(client, &["start", "-a", &id]).fails(1, "Read-only file system");
        assert!(output.stdout == "top\n" && output.stderr.contains("No such file"), "{output:?}");
        let shown = &mounts(daemon, &id)[0];
        assert_eq!((&shown["Type"], &shown["RW"], &shown["Name"]), (&json!("image"), &json!(false), &json!("furnished")));
        let within = ["--mount", "type=image,src=furnished,dst=/m,image-subpath=data/dir/.."];
        assert_eq!(inside(daemon, client, &within, "cat /m/file"), "image");
        assert_eq!(inside(daemon, client, &["--mount", "type=image,src=busybox,dst=/m"], "ls -d /m/bin"), "/m/bin");
        // It is in use.
        daemon.with(client, &["rmi", "furnished"]).fails(1, "conflict");
        // A container that has ended keeps what it had mounted, whatever becomes of the image.
        daemon.with(client, &["rmi", "-f", "furnished"]).ok();
        assert_eq!(daemon.with(client, &["start", "-a", &id]).fails(1, "Read-only file system").stdout, "top\n");
        daemon.with(client, &["rm", "user"]).ok();
        let left = fs::read_dir(daemon.data_root().join("containers")).unwrap().count();
        assert_eq!(left, 0);
        daemon.with(client, &["create", "--mount", "type=image,src=absent,dst=/m", "busybox"]).fails(1, "No such image: absent");
    }

    fn mounts_come_from_other_containers(daemon: &Daemon, client: Client) {
        daemon.with(client, &["create", "--name", "store", "-v", "/any", "-v", "named:/named", "-v", "/usr:/host:ro", "busybox"]).ok();
        daemon.with(client, &["create", "--name", "chain", "--volumes-from", "store", "-v", "own:/named", "busybox"]).ok();
        daemon.with(client, &["create", "--name", "end", "--volumes-from", "chain:ro", "busybox"]).ok();
        let shown = |container: &str| -> Vec<String> {
            let name = |mount: &Value| if mount["Type"] == "bind" { mount["Source"].clone() } else { mount["Name"].clone() };
            mounts(daemon, container).iter().map(|mount| format!("{} {} {}", mount["Destination"].as_str().unwrap(), name(mount).as_str().unwrap(), mount["RW"])).collect()
        };
        let any = shown("store")[0].split(' ').nth(1).unwrap().to_owned();
        assert_eq!(shown("store"), [format!("/any {any} true"), "/host /usr false".into(), "/named named true".into()]);
        assert_eq!(shown("chain"), [format!("/any {any} true"), "/host /usr false".into(), "/named own true".into()]);
        assert_eq!(shown("end"), [format!("/any {any} false"), "/host /usr false".into(), "/named own false".into()]);
        // Of two, the later one wins; what the container asks for itself comes before both, though it has no name.
        daemon.with(client, &["create", "--name", "second", "-v", "late:/named", "busybox"]).ok();
        daemon.with(client, &["create", "--name", "both", "--volumes-from", "store", "--volumes-from", "second", "busybox"]).ok();
        assert_eq!(shown("both")[2], "/named late true");
        daemon.with(client, &["create", "--name", "asks", "--volumes-from", "second", "--mount", "dst=/named", "busybox"]).ok();
        assert!(!shown("asks")[0].contains(" late "), "{:?}", shown("asks"));
        daemon.with(client, &["create", "--name", "yields", "--volumes-from", "second", "-v", "/named", "busybox"]).ok();
        assert_eq!(shown("yields"), ["/named late true"]);
        daemon.with(client, &["rm", "-v", "second", "both", "asks", "yields"]).ok();
        refused(daemon, client, &["--volumes-from", "store:rshared"], "invalid mode: rshared");
        refused(daemon, client, &["--volumes-from", "store:nocopy"], "invalid mode: nocopy");
        daemon.with(client, &["rm", "-v", "store", "chain"]).ok();
        assert!(daemon.data_root().join("volumes").join(&any).exists());
        daemon.with(client, &["rm", "-v", "end"]).ok();
        assert!(!daemon.data_root().join("volumes").join(&any).exists());
    }

    fn mounts_are_shown_as_dockers(daemon: &Daemon, client: Client) {
        let bind = daemon.root.path().join("made");
        let id = daemon.with(client, &[
            "create", "-v", "a1:/a", "-v", "b1:/b:ro,Z", "--mount", "type=volume,src=c1,dst=/c,volume-label=x=y", "--mount", "dst=/d,ro",
            "-v", &format!("{}:/e", bind.display()), "--mount", "type=tmpfs,dst=/f,tmpfs-size=1m,tmpfs-mode=1700", "--tmpfs", "/g", "busybox",
        ]).ok();
        let shown: Vec<String> = mounts(daemon, &id).iter().map(|mount| {
            let text = |name: &str| mount[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {:?} {} {:?}", text("Destination"), text("Type"), text("Mode"), mount["RW"], text("Propagation"))
        }).collect();
        assert_eq!(shown, [
            "/a volume \"z\" true \"\"", "/b volume \"ro,Z\" false \"\"", "/c volume \"z\" true \"\"", "/d volume \"z\" false \"\"",
            "/e bind \"\" true \"rprivate\"", "/f tmpfs \"\" true \"\"",
        ]);
        assert_eq!(daemon.inspect("c1", "{{.Labels.x}}"), "y");
        assert!(!bind.exists(), "not before it starts");
        daemon.with(client, &["start", "-a", &id]).ok();
        assert!(bind.is_dir());
        assert_eq!(inside(daemon, client, &["--mount", "type=tmpfs,dst=/f,tmpfs-size=1m,tmpfs-mode=1700"], "stat -c %a /f; df -k /f | tail -1 | awk '{print $2}'"), "1700\n1024");
    }

    fn a_volume_of_memory_lives_while_it_is_used(daemon: &Daemon, client: Client) {
        daemon.with(client, &["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=1000", "mem"]).ok();
        assert_eq!(daemon.inspect("mem", "{{json .Options}}"), "{\"device\":\"tmpfs\",\"o\":\"size=2m,uid=1000\",\"type\":\"tmpfs\"}");
        let place = daemon.data_root().join("volumes/mem/_data");
        let mounted = || fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap().contains(&format!("{} ", place.display()));
        assert!(!mounted());
        let one = daemon.background(&["-v", "mem:/m", "busybox", "sh", "-c", "echo shared > /m/f; sleep 1000"]);
        eventually("it wrote", || daemon.berth(&["exec", &one, "cat", "/m/f"]).stdout.contains("shared").then_some(()));
        assert!(mounted());
        assert_eq!(inside(daemon, client, &["-v", "mem:/m"], "cat /m/f; stat -c %u /m; df -k /m | tail -1 | awk '{print $2}'"), "shared\n1000\n2048");
        assert!(mounted(), "the other needs it");
        daemon.with(client, &["volume", "rm", "mem"]).fails(1, "volume is in use");
        daemon.with(client, &["rm", "-f", &one]).ok();
        assert!(!mounted());
        assert_eq!(inside(daemon, client, &["-v", "mem:/m"], "ls /m | wc -l"), "0");
        eventually("it is free", || (daemon.with(client, &["volume", "rm", "mem"]).code == 0).then_some(()));
    }

    fn options_of_a_mount_make_a_volume(daemon: &Daemon, client: Client) {
        let from = daemon.root.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("file"), "of the host").unwrap();
        let mount = format!("type=volume,src=bound,dst=/m,volume-driver=local,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={}", from.display());
        assert_eq!(inside(daemon, client, &["--mount", &mount], "cat /m/file; echo new > /m/new"), "of the host");
        assert_eq!(fs::read_to_string(from.join("new")).unwrap(), "new\n");
        eventually("it is free", || (daemon.with(client, &["volume", "rm", "bound"]).code == 0).then_some(()));
        assert!(from.join("file").exists(), "what was bound is not the volume's");
        let bad = "type=volume,src=bad,dst=/m,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/does/not/exist";
        let output = daemon.with(client, &["run", "--rm", "--mount", bad, "busybox", "true"]);
        output.fails(127, "failed to mount local volume: mount /does/not/exist:");
        refused(daemon, client, &["--pull", "never", "--volume-driver", "nosuch", "-v", "x1:/m"], "error looking up volume plugin nosuch");
    }

    fn bad_mounts_get_dockers_words(daemon: &Daemon, client: Client) {
        for (arguments, message) in [
            (&["-v", "/a:/b:wo"][..], "invalid mode: wo"),
            (&["-v", "/a:/"], "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
            (&["-v", "name:b"], "mount path must be absolute"),
            (&["-v", "a/b:/b"], "includes invalid characters for a local volume name"),
            (&["-v", "/a:/b", "-v", "/c:/b"], "Duplicate mount point: /b"),
            (&["-v", "/a:/b", "--tmpfs", "/b"], "Duplicate mount point: /b"),
            (&["-v", "/a:/b", "--mount", "src=vol,dst=/b"], "Duplicate mount point: /b"),
            (&["-v", "/a:/b:nocopy"], "field VolumeOptions must not be specified"),
            (&["-v", "vol:/b:rslave"], "field BindOptions must not be specified"),
            (&["--mount", "type=bind,src=/does/not/exist,dst=/b"], "bind source path does not exist: /does/not/exist"),
            (&["--mount", "type=bind,src=/usr,dst=/b,bind-propagation=sideways"], "invalid propagation mode: sideways"),
            // A client that may would take the image to be missing, as with Docker.
            (&["--pull", "never", "--mount", "type=volume,src=vol,dst=/b,volume-driver=nosuch"], "plugin \"nosuch\" not found"),
            (&["--mount", "type=volume,src=vol,dst=/b,volume-opt=colour=red"], "invalid option: \"colour\""),
        ] {
            refused(daemon, client, arguments, message);
        }
        assert!(!daemon.data_root().join("volumes/vol").exists());
        // As with Docker, what came before the second of one place has been made, and nothing else. Docker's client
        // sends them in any order.
        refused(daemon, client, &["-v", "first:/b", "-v", "/c", "-v", "second:/b"], "Duplicate mount point: /b");
        let made = daemon.with(client, &["volume", "ls", "-q"]).ok();
        assert!(made == "first" || (made == "second" && client == Client::Docker), "{made}");
        refused(daemon, client, &["-v", "third:/b", "--tmpfs", "/b"], "Duplicate mount point: /b");
        assert_eq!(daemon.with(client, &["volume", "rm", &made]).ok(), made);
        assert_eq!(daemon.with(client, &["volume", "ls", "-q"]).ok(), "");
        // A file over a directory, and the other way round.
        let file = daemon.root.path().join("file");
        fs::write(&file, "").unwrap();
        daemon.with(client, &["run", "--rm", "-v", &format!("{}:/bin", file.display()), "busybox", "true"]).fails(125, WRONG_KIND);
        daemon.with(client, &["run", "--rm", "-v", "/usr:/etc/passwd", "busybox", "true"]).fails(125, WRONG_KIND);
        let words = "error while creating mount source path '/proc/none/at/all': mkdir /proc/none: no such file or directory";
        daemon.with(client, &["run", "--rm", "-v", "/proc/none/at/all:/b", "busybox", "true"]).fails(127, words);
        let created = daemon.root.path().join("created");
        let mount = format!("type=bind,src={},dst=/b,bind-create-src", created.display());
        if client == Client::Berth {
            daemon.with(client, &["run", "--rm", "--mount", &mount, "busybox", "true"]).ok();
            assert!(created.is_dir());
        }
    }
}

with_both_clients! {
    fn what_lies_in_one_another_is_mounted_in_order(daemon: &Daemon, client: Client) {
        let host = daemon.root.path().join("host");
        fs::create_dir_all(host.join("y")).unwrap();
        fs::write(host.join("y/hidden"), "").unwrap();
        let bind = format!("{}:/x", host.display());
        // In any order of the flags; the parts that lie below hide what the others have there.
        let flags = ["-v", "bb:/x/y", "--tmpfs", "/x/y/z", "-v", &bind, "-v", "cc:/x/y/z/deep"];
        let script = "touch /x/of-host /x/y/of-b /x/y/z/of-memory /x/y/z/deep/of-c; cd /x; ls y y/z y/z/deep";
        assert_eq!(inside(daemon, client, &flags, script), "y:\nof-b\nz\n\ny/z:\ndeep\nof-memory\n\ny/z/deep:\nof-c");
        let volume = |name: &str| daemon.data_root().join("volumes").join(name).join("_data");
        let names = |path: &std::path::Path| {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&host), ["of-host", "y"]);
        assert_eq!(names(&host.join("y")), ["hidden"], "what is mounted over it is not in it");
        assert_eq!(names(&volume("bb")), ["of-b", "z"]);
        assert_eq!(names(&volume("bb").join("z")), Vec::<String>::new());
        assert_eq!(names(&volume("cc")), ["of-c"]);
        // One volume in two places, and within itself.
        let twice = ["-v", "aa:/a", "-v", "aa:/a/again"];
        assert_eq!(inside(daemon, client, &twice, "echo same > /a/f; cat /a/again/f; ls -A /a/again/again"), "same");
    }

    fn containers_write_one_volume_at_once(daemon: &Daemon, client: Client) {
        let script = "for i in $(seq 500); do echo $0 $i >> /v/all; echo $i > /v/$0.$i; done";
        let writers: Vec<String> = (0..4)
            .map(|writer| daemon.background(&["-v", "shared:/v", "busybox", "sh", "-c", script, &format!("w{writer}")]))
            .collect();
        for id in &writers {
            assert_eq!(daemon.wait(id), 0);
        }
        let count = "wc -l < /v/all; sort -u /v/all | wc -l; ls /v | wc -l";
        assert_eq!(inside(daemon, client, &["-v", "shared:/v:ro"], count), "2000\n2000\n2001");
    }

    fn links_of_the_image_lead_no_mount_out_of_it(daemon: &Daemon, client: Client) {
        let outside = daemon.root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("mark"), "of the host").unwrap();
        let place = outside.display();
        let script = format!("ln -s {place} /absolute; ln -s ../../../../../../../..{place} /climbing; mkdir /in; ln -s ../in /within");
        daemon.berth(&["run", "--name", "maker", "busybox", "sh", "-c", &script]).ok();
        daemon.berth(&["commit", "maker", "linked"]).ok();
        daemon.berth(&["rm", "maker"]).ok();
        for link in ["/absolute", "/climbing", "/within", "/absolute/below", "/climbing/be/low"] {
            for flags in [&["-v", &format!("data:{link}")][..], &["--tmpfs", link], &["-v", &format!("/usr:{link}:ro")]] {
                let run = [&["run", "--rm"], flags, &["linked", "grep", "-c", "", "/proc/self/mountinfo"]].concat();
                daemon.with(client, &run).ok();
                let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(left, ["mark"], "{link} {flags:?}");
            }
            // What is mounted is where the link leads within the image.
            let run = ["run", "--rm", "-v", &format!("data:{link}"), "linked", "sh", "-c", &format!("echo here > {link}/f; cat {link}/f")];
            assert_eq!(daemon.with(client, &run).ok(), "here");
            assert_eq!(fs::read_to_string(daemon.data_root().join("volumes/data/_data/f")).unwrap(), "here\n");
            daemon.with(client, &["volume", "rm", "data"]).ok();
        }
    }
}

#[test]
fn a_volume_of_memory_outlives_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.berth(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
    let place = daemon.data_root().join("volumes/mem/_data");
    let first = daemon.background(&["-v", "mem:/m", "busybox", "sh", "-c", "echo kept > /m/f; sleep 1000"]);
    eventually("it wrote", || {
        daemon.berth(&["exec", &first, "cat", "/m/f"]).stdout.contains("kept").then_some(())
    });
    let second = daemon.background(&["-v", "mem:/m", "busybox", "sleep", "1000"]);
    daemon.kill();
    daemon.launch();
    let mounted = |daemon: &Daemon| {
        fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid()))
            .unwrap()
            .contains(&format!("{} ", place.display()))
    };
    assert!(mounted(&daemon));
    assert_eq!(daemon.berth(&["run", "--rm", "-v", "mem:/m", "busybox", "cat", "/m/f"]).ok(), "kept");
    daemon.berth(&["rm", "-f", &first]).ok();
    assert!(mounted(&daemon), "the second needs it");
    // Its last user ends while no daemon is there.
    let pid = daemon.init_pid(&second);
    daemon.kill();
    crate::daemon::kill_and_see_it_gone(pid);
    daemon.launch();
    eventually("it is unmounted", || (!mounted(&daemon)).then_some(()));
    daemon.berth(&["rm", &second]).ok();
    daemon.berth(&["volume", "rm", "mem"]).ok();
}

#[test]
fn a_volume_with_mount_options_is_shared_across_a_killed_daemon() {
    let mut daemon = Daemon::start();
    let from = daemon.root.path().join("from");
    fs::create_dir(&from).unwrap();
    let device = format!("device={}", from.display());
    daemon
        .berth(&["volume", "create", "-o", "type=none", "-o", "o=bind,noexec", "-o", &device, "bound"])
        .ok();
    let first = daemon.background(&["-v", "bound:/m", "busybox", "sleep", "1000"]);
    let second = daemon.background(&["-v", "bound:/m", "busybox", "sleep", "1000"]);
    let place = daemon.data_root().join("volumes/bound/_data");
    let mounts = |daemon: &Daemon| {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap();
        table.lines().filter(|line| line.contains(&format!(" {} ", place.display()))).count()
    };
    for turn in 0..3 {
        let text = format!("turn {turn}");
        daemon.berth(&["exec", &first, "sh", "-c", &format!("echo {text} > /m/f")]).ok();
        assert_eq!(daemon.berth(&["exec", &second, "cat", "/m/f"]).ok(), text);
        assert_eq!(fs::read_to_string(from.join("f")).unwrap().trim_end(), text);
        let flags = daemon.berth(&["exec", &second, "grep", " /m ", "/proc/self/mountinfo"]).ok();
        assert!(flags.contains("noexec"), "{flags}");
        assert_eq!(mounts(&daemon), 1, "once for both");
        daemon.kill();
        daemon.launch();
    }
    daemon.berth(&["volume", "rm", "bound"]).fails(1, "volume is in use");
    daemon.berth(&["rm", "-f", &first]).ok();
    assert_eq!(mounts(&daemon), 1, "the second needs it");
    daemon.berth(&["rm", "-f", &second]).ok();
    eventually("it is unmounted", || (mounts(&daemon) == 0).then_some(()));
    daemon.berth(&["volume", "rm", "bound"]).ok();
    assert!(from.join("f").exists(), "what was bound is not the volume's");
}

#[test]
fn volumes_of_an_older_data_root_are_taken_up() {
    let mut daemon = Daemon::start();
    let id = daemon.berth(&["create", "-v", "data:/data", "busybox"]).ok();
    daemon.stop();
    let volumes = daemon.data_root().join("volumes");
    fs::create_dir_all(volumes.join("older/_data")).unwrap();
    fs::write(volumes.join("older/_data/file"), "x").unwrap();
    daemon.launch();
    assert_eq!(daemon.berth(&["volume", "ls", "-q"]).ok(), "data\nolder");
    daemon.berth(&["volume", "rm", "data"]).fails(1, &format!("volume is in use - [{id}]"));
    assert_eq!(daemon.berth(&["run", "--rm", "-v", "older:/v", "busybox", "cat", "/v/file"]).ok(), "x");
}
