//! Rows of the security cases that show from outside; the crates test theirs closer to the code.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::daemon::Daemon;
use crate::files::{self, Image, Layer};
use crate::output::run;

fn load(daemon: &Daemon, image: &Image, name: &str) {
    let archive = files::write(daemon.root.path(), "image.tar", &image.docker_archive(name));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
}

/// The busybox image with one more layer.
fn busybox_with(layer: Layer) -> Image {
    let mut image = files::busybox();
    image.layers.push(layer.bytes());
    image
}

#[test]
fn r1_the_executables_of_shim_and_init_cannot_be_written() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let before = fs::read(crate::daemon::binary()).unwrap();
    for pid in [daemon.shim_pid(&id), daemon.process_with("__spawner")] {
        let error = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe")).unwrap_err();
        // Read-only file system, text file busy, or sealed: never an open descriptor.
        assert!([30, 26, 1].contains(&error.raw_os_error().unwrap()), "{error}");
    }
    // The published attack: an image whose command is the runtime's own executable.
    for _ in 0..5 {
        daemon.berth(&["run", "--rm", "busybox", "/proc/self/exe", "--help"]);
        daemon.berth(&["exec", &id, "/proc/self/exe", "--help"]);
        daemon.berth(&[
            "exec",
            &id,
            "sh",
            "-c",
            "for p in /proc/[0-9]*; do echo x > $p/exe; done 2>/dev/null",
        ]);
    }
    assert_eq!(fs::read(crate::daemon::binary()).unwrap(), before);
}

#[test]
fn r2_a_working_directory_of_a_descriptor_does_not_reach_the_host() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    for n in 3..20 {
        let directory = format!("/proc/self/fd/{n}");
        for output in [
            daemon.berth(&[
                "run",
                "--rm",
                "-w",
                &directory,
                "busybox",
                "cat",
                "../../../../../../etc/hostname",
            ]),
            daemon.berth(&["exec", "-w", &directory, &id, "ls", "../../../../../.."]),
        ] {
            assert_ne!(output.code, 0, "{directory}: {output:?}");
        }
    }
}

#[test]
fn r3_masked_paths_survive_a_swapped_dev_null() {
    let daemon = Daemon::start();
    let layer = Layer::new().dir("dev", 0o755).symlink("dev/null", "../etc/passwd");
    load(&daemon, &busybox_with(layer), "swapped:null");
    let text = daemon
        .berth(&[
            "run",
            "--rm",
            "swapped:null",
            "sh",
            "-c",
            "cat /proc/kcore | wc -c; stat -c '%t:%T' /dev/null",
        ])
        .ok();
    assert_eq!(text, "0\n1:3");
}

#[test]
fn r4_the_console_is_the_containers_own_terminal() {
    let daemon = Daemon::start();
    let layer =
        Layer::new().dir("dev", 0o755).symlink("dev/console", "/etc/passwd").symlink("dev/pts", "/etc");
    load(&daemon, &busybox_with(layer), "swapped:console");
    let text = daemon
        .berth(&[
            "run",
            "-t",
            "--rm",
            "swapped:console",
            "sh",
            "-c",
            "tty; stat -c %F /dev/console; head -c 4 /etc/passwd",
        ])
        .ok();
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\ncharacter special file\nroot");
}

#[test]
fn r6_setup_paths_that_are_links_stay_inside() {
    let daemon = Daemon::start();
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap();
    for (n, path) in ["dev", "proc", "sys", "etc"].iter().enumerate() {
        let base = files::busybox().layers.remove(0);
        let layer = Layer::new().file(&format!(".wh.{path}"), 0o644, "").bytes();
        let link = Layer::new().symlink(path, target).bytes();
        let image = Image { layers: vec![base, layer, link], config: json!({"Env": ["PATH=/bin"]}) };
        let name = format!("linked:n{n}");
        load(&daemon, &image, &name);
        // It may start, in-root, or be refused; the host's folder stays empty either way.
        daemon.berth(&["run", "--rm", &name, "true"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "/{path} reached the host");
    }
}

#[test]
fn r6_a_bind_over_a_link_stays_inside() {
    let daemon = Daemon::start();
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    load(&daemon, &busybox_with(Layer::new().symlink("trap", outside.to_str().unwrap())), "trap:bind");
    daemon.berth(&["run", "--rm", "-v", "/etc/hostname:/trap/name", "trap:bind", "true"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn r9_exec_has_no_inheritable_capabilities() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    for flags in [&[][..], &["--privileged"], &["-u", "1000"]] {
        let arguments = [&["exec"], flags, &[id.as_str(), "grep", "CapInh", "/proc/self/status"]].concat();
        assert_eq!(daemon.berth(&arguments).ok(), "CapInh:\t0000000000000000");
    }
}

#[test]
fn r12_layers_that_try_to_leave_the_root_cannot() {
    let daemon = Daemon::empty(&[]);
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let target = outside.to_str().unwrap();
    let victim = format!("{target}/victim");
    use tar::EntryType::{Block, Link, Regular, Symlink};
    let chain = (0..10).fold(Layer::new(), |l, n| {
        let to = if n == 9 { target.to_string() } else { format!("l{}", n + 1) };
        l.symlink(&format!("l{n}"), &to)
    });
    let attacks = [
        Layer::new().raw(Regular, format!("../../../../../../../..{victim}").as_bytes(), b"", b"escaped"),
        Layer::new().raw(Regular, victim.as_bytes(), b"", b"escaped"),
        Layer::new().raw(Symlink, b"out", target.as_bytes(), b"").raw(
            Regular,
            b"out/victim",
            b"",
            b"escaped",
        ),
        Layer::new().raw(Symlink, b"out", b"../../../../../../../../..", b"").raw(
            Regular,
            format!("out{victim}").as_bytes(),
            b"",
            b"escaped",
        ),
        Layer::new().raw(Link, b"hard", victim.as_bytes(), b"").raw(Regular, b"hard", b"", b"escaped"),
        Layer::new().raw(Link, b"hard", format!("../../../../../../../..{victim}").as_bytes(), b""),
        chain.raw(Regular, b"l0/victim", b"", b"escaped"),
        Layer::new().raw(Block, b"disk", b"", b""),
        Layer::new().raw(Symlink, b"out", target.as_bytes(), b"").raw(Regular, b"out/.wh.victim", b"", b""),
        Layer::new().raw(Symlink, b"out", target.as_bytes(), b"").raw(Regular, b"out/.wh..wh..opq", b"", b""),
    ];
    for (n, attack) in attacks.into_iter().enumerate() {
        let archive = files::write(
            daemon.root.path(),
            "attack.tar",
            &Image::new(vec![attack]).docker_archive(&format!("attack:n{n}")),
        );
        // Refused, or stored inside the root: both are fine.
        daemon.berth(&["load", "-i", &archive]);
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched", "attack {n}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "attack {n}");
    }
}

#[test]
fn r19_the_shims_socket_is_a_path_for_its_owner_alone() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let socket = fs::metadata(daemon.exec_root().join("containers").join(&id).join("shim.sock")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let abstract_ones = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
    assert!(!abstract_ones.lines().any(|l| l.contains(" @") && l.contains("berth")), "{abstract_ones}");
}

#[test]
fn r21_user_numbers_beyond_32_bits_are_refused() {
    let daemon = Daemon::start();
    for user in
        ["4294967296", "4294967295", "-1", "18446744073709551616", "0:4294967296", "99999999999999999999"]
    {
        let output = daemon.berth(&["run", "--rm", "-u", user, "busybox", "id", "-u"]);
        assert_eq!(output.code, 125, "{user}: {output:?}");
    }
    let passwd = "evil:x:4294967296:4294967296::/:/bin/sh\n";
    load(&daemon, &busybox_with(Layer::new().file("etc/passwd", 0o644, passwd)), "evil:passwd");
    let output = daemon.berth(&["run", "--rm", "-u", "evil", "evil:passwd", "id", "-u"]);
    assert_eq!(output.code, 125, "{output:?}");
}

#[test]
fn r26_a_fifo_as_passwd_does_not_hang() {
    let daemon = Daemon::start();
    let layer = Layer::new().file("etc/.wh.passwd", 0o644, "");
    let mut image = busybox_with(layer);
    image.layers.push(Layer::new().raw(tar::EntryType::Fifo, b"etc/passwd", b"", b"").bytes());
    load(&daemon, &image, "fifo:passwd");
    daemon.berth(&["run", "--rm", "fifo:passwd", "true"]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "-u", "user", "fifo:passwd", "true"]).code, 125);
}

#[test]
fn r24_sockets_of_the_kernel_and_the_hypervisor_are_denied() {
    let daemon = Daemon::start();
    let listing = daemon.berth(&["run", "--rm", "busybox", "cat", "/proc/self/status"]).ok();
    assert!(listing.contains("Seccomp:\t2"), "{listing}");
    let perl = std::path::Path::new("/usr/bin/perl").exists();
    assert!(perl, "perl makes the system call");
    let bind = ["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"];
    // AF_INET, AF_ALG and AF_VSOCK, with a type that each has.
    for (family, kind, denied) in [(2, 1, false), (38, 5, true), (40, 1, true)] {
        let script =
            format!("socket(my $s, {family}, {kind}, 0) or die \"denied: $!\\n\"; print \"open\\n\"");
        let perl = ["busybox", "/usr/bin/perl", "-e", &script];
        let arguments = [&["run", "--rm"][..], &bind, &perl].concat();
        let output = run(&mut daemon.client(crate::daemon::Client::Berth, &arguments));
        if !denied {
            assert_eq!(output.ok(), "open", "{family}");
            continue;
        }
        assert!(
            output.stderr.contains("denied: Operation not permitted")
                || output.stderr.contains("denied: Address family"),
            "{family}: {output:?}"
        );
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn r22_what_an_image_names_is_found_in_the_image_alone() {
    let daemon = Daemon::start();
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(outside.join("passwd"), "host:x:4321:4321::/:/bin/sh\n").unwrap();
    let host = outside.to_str().unwrap();
    let up = format!("{}{host}", "../".repeat(20));
    for (name, target) in [("absolute", host), ("relative", up.as_str())] {
        let layer = Layer::new()
            .symlink("link", target)
            .symlink("etc/passwd", &format!("{target}/passwd"))
            .symlink("etc/group", &format!("{target}/passwd"));
        let configured = |config: serde_json::Value| {
            let mut config = config;
            config["Env"] = json!(["PATH=/bin:/usr/bin"]);
            busybox_with(Layer::new()).configured(config)
        };
        let mut image = configured(json!({
            "WorkingDir": "/link/made", "Volumes": {"/link": {}, "/link/volume": {}, "/../../..".to_owned() + host: {}},
            "Cmd": ["sh", "-c", "ls -A /link /link/volume; cat /link/secret; pwd"],
        }));
        image.layers[1] = layer.bytes();
        load(&daemon, &image, name);
        let output = daemon.berth(&["run", "--rm", "--network", "none", name]);
        assert!(!output.stdout.contains("secret"), "{name}: {output:?}");
        // A user that only the host's file has is nobody's.
        let output = daemon.berth(&["run", "--rm", "--network", "none", "-w", "/", "-u", "host", name, "id"]);
        assert!(output.code != 0 && output.stderr.contains("host"), "{name}: {output:?}");
        let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 2, "{name}: {left:?}");
    }
}
