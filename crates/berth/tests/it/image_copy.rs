//! `image copy` between registries and archives, without a daemon.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon, binary};
use crate::faulty::{Faulty, Reply, contents, honest};
use crate::files::{self, Image, Layer};
use crate::output::{Output, feed, run};
use crate::registry::{ADDRESS, Registry};

/// Copies; the daemon's socket is nowhere near.
fn copy(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.env("DOCKER_HOST", "unix:///nonexistent").env("DOCKER_CONFIG", daemon.root.path());
    run(command.current_dir(daemon.root.path()).args(["image", "copy"]).args(arguments))
}

/// What skopeo finds at a place: the manifest or index, as it is.
fn raw(daemon: &Daemon, place: &str) -> Vec<u8> {
    let mut command = Command::new("skopeo");
    command.current_dir(daemon.root.path()).args(["inspect", "--raw", "--tls-verify=false", place]);
    run(&mut command).ok().into_bytes()
}

fn image() -> Image {
    let noise: Vec<u8> = (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("noise", 0o644, noise).bytes());
    Image { layers, config: files::busybox().config }
}

/// A layout with an index of two platforms and something that is no image, named `many`.
fn index(folder: &Path) -> Vec<u8> {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        fs::write(folder.join("blobs/sha256").join(&files::digest(bytes)[7..]), bytes).unwrap();
        (files::digest(bytes), bytes.len())
    };
    let mut manifests = Vec::new();
    for (architecture, image) in [("amd64", image()), ("arm64", files::busybox())] {
        let blobs = image.oci_blobs();
        let (digest, size) = blobs.iter().map(|blob| put(blob)).fold(None, |_, last| Some(last)).unwrap();
        manifests.push(
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"architecture": architecture, "os": "linux"}}),
        );
    }
    let (config, length) = put(b"{}");
    let (statement, long) = put(b"{\"a\": \"statement\"}");
    let attestation = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": length},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement, "size": long}]});
    let (digest, size) = put(attestation.to_string().as_bytes());
    manifests.push(
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"architecture": "unknown", "os": "unknown"}}),
    );
    // Spaces that no program would write again.
    let index = format!(
        "{{ \"schemaVersion\": 2,  \"mediaType\": \"application/vnd.oci.image.index.v1+json\", \"manifests\": {} }}",
        Value::from(manifests)
    );
    let (digest, size) = put(index.as_bytes());
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest, "size": size, "annotations": {"org.opencontainers.image.ref.name": "many"}}]});
    fs::write(folder.join("index.json"), top.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    index.into_bytes()
}

#[test]
fn an_index_goes_through_every_place_as_it_is() {
    let daemon = Daemon::empty(&[]);
    let _registry = Registry::start(daemon.root.path());
    let index = index(&daemon.root.path().join("first"));
    let digest = files::digest(&index);
    let name = format!("{ADDRESS}/a/many:1");
    let other = format!("{ADDRESS}/b/many:2");
    for (from, to) in [
        ("oci:first:many", name.as_str()),
        (&name, &other),
        (&other, "oci-archive:second.tar:v2"),
        ("oci-archive:second.tar", "oci:third"),
        ("oci:third", "oci-archive:fourth.tar"),
        ("oci-archive:fourth.tar", &format!("{ADDRESS}/c/many:3")),
    ] {
        let told = copy(&daemon, &["--all-platforms", from, to]).ok();
        assert!(told.contains(&digest), "{from} {to}: {told}");
        if to == other {
            assert!(told.contains("Mounted") && !told.contains("Copying"), "one registry: {told}");
        }
        let left: Vec<_> =
            fs::read_dir(daemon.root.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".partial")), "{left:?}");
    }
    assert_eq!(raw(&daemon, &format!("docker://{ADDRESS}/c/many:3")), index);
    assert_eq!(raw(&daemon, "oci:third"), index);
    // All of it is there: the daemon, and skopeo with the other platform, find what they need.
    daemon.with(Client::Docker, &["pull", "-q", &other]).ok();
    assert_eq!(
        daemon.berth(&["run", "--rm", "--network", "none", &other, "wc", "-c", "/noise"]).ok(),
        "400000 /noise"
    );
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--all", "--insecure-policy", "--src-tls-verify=false"]);
    skopeo
        .arg(format!("docker://{ADDRESS}/c/many:3"))
        .arg(format!("oci:{}/skopeo", daemon.root.path().display()));
    run(&mut skopeo).ok();
    copy(&daemon, &["--all-platforms", &name, "docker-archive:x.tar"]).fails(1, "one image for one platform");
}

#[test]
fn one_platform_of_an_index_is_copied_alone() {
    let daemon = Daemon::empty(&[]);
    let _registry = Registry::start(daemon.root.path());
    index(&daemon.root.path().join("first"));
    let manifest = |image: &Image| files::digest(image.oci_blobs().last().unwrap());
    let name = format!("{ADDRESS}/one:1");
    assert_eq!(copy(&daemon, &["-q", "oci:first", &name]).ok(), manifest(&image()), "this machine's");
    let arm =
        copy(&daemon, &["-q", "--platform", "linux/arm64", "oci:first", &format!("{ADDRESS}/arm:1")]).ok();
    assert_eq!(arm, manifest(&files::busybox()));
    copy(&daemon, &["--platform", "linux/s390x", "oci:first", &name])
        .fails(1, "no matching manifest for linux/s390x");
    copy(&daemon, &["--platform", "arm64", "--all-platforms", "oci:first", &name])
        .fails(1, "conflicting options");
    // What skopeo and docker understand: an archive with the image's name.
    copy(&daemon, &[&name, "docker-archive:saved.tar:saved:2"]).ok();
    let saved = daemon.root.path().join("saved.tar").display().to_string();
    for client in [Client::Berth, Client::Docker] {
        let loaded = daemon.with(client, &["load", "-i", &saved]).ok();
        assert!(loaded.contains("Loaded image: saved:2"), "{loaded}");
    }
    assert_eq!(
        daemon.berth(&["run", "--rm", "--network", "none", "saved:2", "wc", "-c", "/noise"]).ok(),
        "400000 /noise"
    );
    raw(&daemon, "docker-archive:saved.tar:saved:2");
    assert_eq!(copy(&daemon, &["-q", "docker-archive:saved.tar", "oci:again"]).ok(), manifest(&image()));
}

#[test]
fn archives_without_manifests_and_of_the_daemon_are_read() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.root.path());
    files::write(daemon.root.path(), "old.tar", &image().docker_archive("old:1"));
    let name = format!("{ADDRESS}/old:1");
    copy(&daemon, &["docker-archive:old.tar:old:1", &name]).ok();
    daemon.with(Client::Docker, &["pull", "-q", &name]).ok();
    assert_eq!(
        daemon.berth(&["inspect", "-f", "{{.Id}}", &name]).ok(),
        files::digest(&image().config_bytes())
    );
    copy(&daemon, &["docker-archive:old.tar:other:1", &name]).fails(1, "old:1");
    let saved = daemon.root.path().join("saved.tar").display().to_string();
    daemon.berth(&["save", "-o", &saved, "busybox"]).ok();
    copy(&daemon, &["docker-archive:saved.tar:busybox", &format!("{ADDRESS}/busybox:1")]).ok();
    let compressed = files::gzip(&fs::read(&saved).unwrap());
    files::write(daemon.root.path(), "saved.tar.gz", &compressed);
    copy(&daemon, &["docker-archive:saved.tar.gz", &name]).fails(1, "the archive is compressed");
    copy(&daemon, &["oci-archive:absent.tar", &name]).fails(1, "absent.tar");
    copy(&daemon, &["oci:absent", &name]).fails(1, "absent");
    copy(&daemon, &[&name, &format!("{name}@{}", files::digest(b""))])
        .fails(1, "cannot push a digest reference");
    drop(registry);
    copy(&daemon, &["docker-archive:old.tar", &name]).fails(1, ADDRESS);
}

#[test]
fn a_copy_that_is_cut_goes_on_where_it_was() {
    let daemon = Daemon::empty(&[]);
    let image = image();
    let blobs = image.oci_blobs();
    let (large, whole) = (files::digest(&blobs[1]), blobs[1].len());
    let all = contents(&image);
    let (cuts, victim) = (AtomicUsize::new(0), large.clone());
    let registry = Faulty::start(move |asked| {
        let mut reply = honest(&all, asked);
        if asked.path.contains(&victim) {
            // The first attempt of all comes half of the way; the next ones bring nothing.
            match cuts.fetch_add(1, Ordering::Relaxed) {
                0 => reply.cut = Some(whole / 2),
                1..5 => reply.cut = Some(0),
                _ => {}
            }
        }
        reply
    });
    let name = format!("{}/x:y", registry.address);
    let output = copy(&daemon, &[&name, "oci:here:y"]).fails(1, &registry.address);
    assert!(!daemon.root.path().join("here/index.json").exists(), "{output:?}");
    let before = registry.count("/blobs/");
    assert_eq!(copy(&daemon, &["-q", &name, "oci:here:y"]).ok(), files::digest(blobs.last().unwrap()));
    assert_eq!(registry.count("/blobs/") - before, 1, "only what was missing");
    assert!(registry.asked().last().unwrap().from() > 0, "and of that only the rest");
    // To a registry, cuts on the way from the source are gone on with, too.
    let _target = Registry::start(daemon.root.path());
    let all = contents(&image);
    let cuts = AtomicUsize::new(0);
    let source = Faulty::start(move |asked| {
        let mut reply = honest(&all, asked);
        if asked.path.contains(&large) && cuts.fetch_add(1, Ordering::Relaxed) < 3 {
            reply.cut = Some(200 + whole / 5);
        }
        reply
    });
    copy(&daemon, &[&format!("{}/x:y", source.address), &format!("{ADDRESS}/cut:1")]).ok();
    daemon.berth(&["pull", "-q", &format!("{ADDRESS}/cut:1")]).ok();
}

#[test]
fn what_is_not_what_it_should_be_is_not_copied() {
    let daemon = Daemon::empty(&[]);
    let _target = Registry::start(daemon.root.path());
    let image = image();
    let blobs = image.oci_blobs();
    for (round, (victim, spoil)) in [
        (files::digest(&blobs[1]), "other"),
        (files::digest(&blobs[1]), "long"),
        (files::digest(&blobs[2]), "other"),
        ("manifests/y".to_owned(), "other"),
    ]
    .into_iter()
    .enumerate()
    {
        let all = contents(&image);
        let part = victim.clone();
        let registry = Faulty::start(move |asked| {
            let mut reply = honest(&all, asked);
            if asked.path.contains(&part) && reply.status == 200 {
                match spoil {
                    "long" => reply.body.extend_from_slice(b"more"),
                    _ => reply.body[0] ^= 1,
                }
            }
            reply
        });
        let name = format!("{}/x:y", registry.address);
        for to in [
            format!("oci:spoiled{round}"),
            format!("oci-archive:spoiled{round}.tar"),
            format!("{ADDRESS}/spoiled{round}:1"),
        ] {
            let output = copy(&daemon, &[&name, &to]);
            assert_eq!(output.code, 1, "{victim} {spoil} {to}: {output:?}");
        }
        for place in [format!("spoiled{round}/index.json"), format!("spoiled{round}.tar")] {
            assert!(!daemon.root.path().join(&place).exists(), "{victim} {spoil}");
        }
        daemon.berth(&["pull", &format!("{ADDRESS}/spoiled{round}:1")]).fails(1, "not found");
    }
}

#[test]
fn accounts_of_both_registries_are_used() {
    let daemon = Daemon::empty(&[]);
    let _private = Registry::start_private(daemon.root.path(), "127.0.0.1:5001");
    let all = contents(&files::busybox());
    let open = Faulty::start(move |asked| {
        if asked.header("authorization").is_empty() { honest(&all, asked) } else { Reply::new(400, "") }
    });
    let (from, to) = (format!("{}/x:y", open.address), "127.0.0.1:5001/mine:1");
    copy(&daemon, &[&from, to]).fails(1, "no basic auth credentials");
    let login = ["login", "-u", "someone", "--password-stdin", "127.0.0.1:5001"];
    feed(&mut daemon.client(Client::Berth, &login), b"secret").ok();
    copy(&daemon, &[&from, to]).ok();
    copy(&daemon, &[to, "127.0.0.1:5001/mine/too:2"]).ok();
    copy(&daemon, &[to, "oci:here"]).ok();
    assert!(!open.saw_credentials());
}
