//! Storage drivers: whole copies in place of overlays, by the setting and where overlays cannot work.

use serde_json::{Value, json};

use crate::awkward;
use crate::building;
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::run;

/// A daemon of the driver, with the busybox image.
fn started(arguments: &[&str]) -> Daemon {
    let daemon = Daemon::empty(arguments);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

fn json_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&daemon.berth(arguments).ok()).unwrap()
}

/// The life of a container whose files are a copy.
fn life(client: Client) {
    let daemon = started(&["--storage-driver", "vfs"]);
    let with = |arguments: &[&str]| daemon.with(client, arguments).ok();
    assert_eq!(with(&["info", "--format", "{{.Driver}} {{len .DriverStatus}}"]), "vfs 0");
    assert!(!with(&["info"]).contains("overlayfs cannot work"), "it was asked for");
    assert_eq!(with(&["run", "--rm", "busybox", "sh", "-c", "echo hi > /etc/new; cat /etc/new"]), "hi");
    let script = "echo changed >> /etc/passwd; rm -r /home; mkdir /new; head -c 100000 /dev/zero > /new/file";
    with(&["run", "--name", "one", "busybox", "sh", "-c", script]);
    let changes = "C /etc\nC /etc/passwd\nD /home\nA /new\nA /new/file";
    assert_eq!(with(&["diff", "one"]), changes);
    assert_eq!(
        with(&["inspect", "-f", "{{json .GraphDriver}} {{.Driver}}", "one"]),
        r#"{"Data":null,"Name":"vfs"} vfs"#
    );
    assert_eq!(with(&["image", "inspect", "-f", "{{.GraphDriver.Name}}", "busybox"]), "vfs");
    let size: u64 = with(&["inspect", "-s", "-f", "{{.SizeRw}}", "one"]).parse().unwrap();
    assert!((100_000..110_000).contains(&size), "{size}");
    assert!(with(&["ps", "-as", "--format", "{{.Size}}"]).starts_with("10"));
    with(&["commit", "one", "changed"]);
    let listing = "cd / && ls -d home new/file; tail -1 /etc/passwd";
    let seen = run(&mut daemon.client(client, &["run", "--rm", "changed", "sh", "-c", listing]));
    assert_eq!(seen.stdout.trim(), "new/file\nchanged");
    let layers = json_of(&daemon, &["image", "inspect", "-f", "{{json .RootFS.Layers}}", "changed"]);
    assert_eq!(layers.as_array().unwrap().len(), 2);
    let exported = daemon.root.path().join("export.tar");
    with(&["export", "-o", exported.to_str().unwrap(), "one"]);
    let mut archive = tar::Archive::new(std::fs::File::open(exported).unwrap());
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with("new/file")));
    assert!(!names.iter().any(|name| name.starts_with("home")));
    assert!(with(&["system", "df"]).contains("Containers"));
    // It is the container's own copy, and starts again with what it wrote.
    with(&["run", "-d", "--name", "two", "busybox", "sleep", "1000"]);
    assert_eq!(with(&["exec", "two", "ls", "-d", "/home"]), "/home");
    with(&["restart", "-t", "0", "two"]);
    // Volumes and mounted images are as with overlays.
    let seen = with(&["run", "--rm", "-v", "filled:/etc", "busybox", "cat", "/etc/passwd"]);
    assert!(seen.contains("root"), "{seen}");
    assert!(daemon.data_root().join("vfs/volumes/filled/_data/passwd").exists());
    let mounted =
        ["run", "--rm", "--mount", "type=image,src=changed,dst=/m", "busybox", "tail", "-1", "/m/etc/passwd"];
    assert_eq!(with(&mounted), "changed");
    with(&["rm", "-f", "one", "two"]);
    let left = || std::fs::read_dir(daemon.data_root().join("vfs/containers")).unwrap().count();
    assert_eq!(left(), 0);
}

#[test]
fn containers_live_in_copies() {
    life(Client::Berth);
}

#[test]
fn containers_live_in_copies_with_docker() {
    life(Client::Docker);
}

#[test]
fn copies_hold_an_awkward_image_as_overlays_do() {
    let mut seen = Vec::new();
    for driver in ["overlay2", "vfs"] {
        let daemon = Daemon::empty(&["--storage-driver", driver]);
        let image = awkward::image();
        let path = files::write(daemon.root.path(), "a.tar", &image.docker_archive("awkward:v1"));
        daemon.berth(&["load", "-q", "-i", &path]).ok();
        let saved = daemon.root.path().join("saved.tar");
        daemon.berth(&["save", "-o", saved.to_str().unwrap(), "awkward:v1"]).ok();
        let bytes = std::fs::read(&saved).unwrap();
        for layer in &image.layers {
            assert!(
                bytes.windows(layer.len()).any(|part| part == &layer[..]),
                "a layer changed with {driver}"
            );
        }
        let listing = daemon.berth(&["run", "--rm", "awkward:v1", "sh", "-c", awkward::LISTING]).ok();
        // A directory's size is its file system's affair.
        seen.push(listing);
        daemon.berth(&["rmi", "awkward:v1"]).ok();
    }
    let lines = |text: &str| -> Vec<String> {
        let is_plain = |line: &&str| !line.contains(" directory ");
        text.lines().filter(is_plain).map(str::to_owned).collect()
    };
    assert!(lines(&seen[0]).len() > 20, "{seen:?}");
    assert_eq!(lines(&seen[0]), lines(&seen[1]));
}

#[test]
fn drivers_keep_their_data_apart_and_unknown_ones_are_refused() {
    let mut daemon = started(&["--storage-driver", "vfs"]);
    daemon.background(&["--name", "copy", "busybox", "true"]);
    daemon.stop();
    let mut restart = |driver: &str| {
        daemon.set_arguments(&["--storage-driver", driver]);
        daemon.launch();
        let images = daemon.berth(&["images", "-q"]).ok().lines().count();
        let names = daemon.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok();
        daemon.stop();
        (images, names)
    };
    assert_eq!(restart("overlay2"), (0, String::new()));
    assert_eq!(restart(""), (0, String::new()), "overlays are the default");
    assert_eq!(restart("vfs"), (1, "copy".to_owned()));
    for (name, problem) in [
        ("nosuch", "error initializing graphdriver: driver not supported: nosuch"),
        (
            "aufs",
            "error initializing graphdriver: [graphdriver] ERROR: the aufs storage-driver has been deprecated and removed",
        ),
    ] {
        daemon.set_arguments(&["--storage-driver", name]);
        let refused = run(&mut daemon.command());
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    }
    daemon.set_arguments(&["--storage-driver", "vfs"]);
    daemon.launch();
    assert_eq!(json_of(&daemon, &["info", "--format", "{{json .Driver}}"]), json!("vfs"));
}

/// What a build gives at one moment does not depend on how files are kept.
#[test]
fn builds_give_the_same_image() {
    let steps = "FROM busybox\n\
        WORKDIR /work/deep\n\
        COPY --chown=7:8 files ./files/\n\
        ADD packed.tar /packed/\n\
        RUN mkdir -p /data/sub /gone/sub && echo one > /data/one && echo two > /data/sub/two && touch /gone/x /gone/sub/y && \
        echo kept > /data/kept && ln /data/kept /data/link && ln -s one /data/symbolic && mkfifo /data/fifo\n\
        RUN echo more >> /data/one && chmod 600 /data/sub/two && rm /data/symbolic && rm -r /gone/sub\n\
        RUN mv /data/sub /data/moved && mv /work/deep/files /files && rm -r /gone && mkdir /gone && touch /gone/new\n\
        RUN : >> /etc/passwd; chmod 644 /etc/group; chown root /etc/passwd; touch -r /etc/group /work; rm -r /home\n\
        RUN rm -r /packed && mkdir -p /packed/in && echo other > /packed/in/file && rm /data/fifo && mkdir /data/fifo\n\
        RUN mv /files/a /files/c && mv /files/b /files/a && mv /files/c /files/b && cp -a /bin/busybox /bin/copy\n\
        COPY files/a /files/\n\
        COPY --link files /linked/\n\
        RUN true\n\
        WORKDIR /work/deep\n";
    let mut images = Vec::new();
    for driver in ["overlay2", "vfs"] {
        let daemon = started(&["--storage-driver", driver]);
        let files = [("Dockerfile", steps), ("files/a", "a\n"), ("files/b", "b\n"), ("files/sub/c", "c\n")];
        let root = building::context(&daemon, "steps", &files);
        let packed = files::Layer::new().dir("in", 0o750).file("in/file", 0o4640, "in an archive\n").bytes();
        std::fs::write(root.join("packed.tar"), packed).unwrap();
        for client in building::BOTH {
            let arguments = ["--no-cache", "-t", "made", "--build-arg", "SOURCE_DATE_EPOCH=1760000000"];
            building::build(&daemon, client, &root, &arguments).ok();
            let layers = json_of(&daemon, &["image", "inspect", "-f", "{{json .RootFS.Layers}}", "made"]);
            images.push((layers, daemon.inspect("made", "{{.Id}}")));
        }
    }
    assert_eq!(images[0].0, images[2].0, "the layers");
    assert!(images.iter().all(|image| *image == images[0]), "{images:#?}");
}
