//! `push`: what arrives in registries is what came from them.

use std::process::Command;

use serde_json::Value;

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::run;
use crate::registry::{ADDRESS, Registry};

const SECOND: &str = "127.0.0.1:5001";

/// What `skopeo inspect` tells of a pushed image.
#[track_caller]
fn skopeo(arguments: &[&str], name: &str) -> Value {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--tls-verify=false"]).args(arguments).arg(format!("docker://{name}"));
    serde_json::from_str(&run(&mut command).ok()).unwrap()
}

#[track_caller]
fn manifest_digest(name: &str) -> String {
    skopeo(&[], name)["Digest"].as_str().unwrap().to_owned()
}

/// Puts an image with compressed layers into the registry, and gives its manifest's digest.
fn publish(daemon: &Daemon, registry: &Registry, image: &Image, name: &str) -> String {
    let archive = files::write(daemon.root.path(), "published.tar", &image.oci_archive(name));
    registry.push("oci-archive", &archive, name);
    manifest_digest(&format!("{ADDRESS}/{name}"))
}

fn small(text: &str) -> Image {
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("first", 0o644, text).bytes());
    layers.push(Layer::new().file("second", 0o644, format!("{text} again")).bytes());
    Image { layers, config: files::busybox().config }
}

/// Takes the compressed layers away, as the bound of the cache or a power cut does; gives how many there were.
fn empty_cache(daemon: &Daemon, image: &Image) -> usize {
    let blobs = daemon.data_root().join("blobs/sha256");
    let blobs_of_image = image.oci_blobs();
    let layers = blobs_of_image.iter().take(image.layers.len());
    layers.filter(|blob| std::fs::remove_file(blobs.join(&files::digest(blob)[7..])).is_ok()).count()
}

#[track_caller]
fn runs(daemon: &Daemon, name: &str, text: &str) {
    let said = daemon.berth(&["run", "--rm", "--network", "none", name, "cat", "/first", "/second"]).ok();
    assert_eq!(said, format!("{text}{text} again"));
}

with_both_clients! {
    fn what_was_pulled_is_pushed_byte_for_byte(daemon: &Daemon, client: Client) {
        let first = Registry::start(daemon.root.path());
        let _second = Registry::start_at(daemon.root.path(), SECOND, "");
        let image = small("kept");
        let digest = publish(daemon, &first, &image, "a/kept:1");
        daemon.with(client, &["pull", "-q", &format!("{ADDRESS}/a/kept:1")]).ok();
        let target = format!("{SECOND}/b/kept:2");
        daemon.with(client, &["tag", &format!("{ADDRESS}/a/kept:1"), &target]).ok();
        let said = daemon.with(client, &["push", &target]).ok();
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some(format!("The push refers to repository [{SECOND}/b/kept]").as_str()));
        let size = image.oci_blobs().last().map_or(0, Vec::len);
        assert_eq!(lines.last(), Some(format!("2: digest: {digest} size: {size}").as_str()));
        for word in ["Preparing", "Pushed"] {
            assert!(said.contains(&format!(": {word}")), "{word} in {said}");
        }
        assert_eq!(manifest_digest(&target), digest);
        // Once more: nothing has to be sent.
        let again = daemon.with(client, &["push", &target]).ok();
        assert!(again.contains("Layer already exists") && !again.contains("Pushed"), "{again}");
        assert!(daemon.inspect(&target, "{{.RepoDigests}}").contains(&format!("{SECOND}/b/kept@{digest}")));
        // And back.
        daemon.with(client, &["rmi", "-f", &target, &format!("{ADDRESS}/a/kept:1")]).ok();
        daemon.with(client, &["pull", "-q", &target]).ok();
        runs(daemon, &target, "kept");
    }

    fn layers_that_left_the_cache_come_from_where_they_came(daemon: &Daemon, client: Client) {
        let first = Registry::start(daemon.root.path());
        let _second = Registry::start_at(daemon.root.path(), SECOND, "");
        let image = small("gone");
        let digest = publish(daemon, &first, &image, "a/gone:1");
        daemon.with(client, &["pull", "-q", &format!("{ADDRESS}/a/gone:1")]).ok();
        // The lowest was there already, and never came.
        assert_eq!(empty_cache(daemon, &image), 2, "the layers were in the cache");
        let target = format!("{SECOND}/gone");
        daemon.with(client, &["tag", &format!("{ADDRESS}/a/gone:1"), &target]).ok();
        let said = daemon.with(client, &["push", &target]).ok();
        assert!(said.contains("Using default tag: latest") && said.contains(&digest), "{said}");
        assert_eq!(manifest_digest(&target), digest);
        // Within a registry nothing has to be sent, from wherever.
        empty_cache(daemon, &image);
        let sibling = format!("{SECOND}/other/gone:3");
        daemon.with(client, &["tag", &target, &sibling]).ok();
        let said = daemon.with(client, &["push", &sibling]).ok();
        assert!(said.contains("Mounted from gone"), "{said}");
        assert_eq!(manifest_digest(&sibling), digest);
        assert_eq!(empty_cache(daemon, &image), 0, "nothing was brought for it");
    }

    fn layers_that_nobody_has_are_compressed_anew(daemon: &Daemon, client: Client) {
        let first = Registry::start(daemon.root.path());
        let _second = Registry::start_at(daemon.root.path(), SECOND, "");
        let image = small("lost");
        let digest = publish(daemon, &first, &image, "a/lost:1");
        daemon.with(client, &["pull", "-q", &format!("{ADDRESS}/a/lost:1")]).ok();
        empty_cache(daemon, &image);
        drop(first);
        let target = format!("{SECOND}/lost:1");
        daemon.with(client, &["tag", &format!("{ADDRESS}/a/lost:1"), &target]).ok();
        let said = daemon.with(client, &["push", &target]).ok();
        let new = manifest_digest(&target);
        assert_ne!(new, digest);
        assert!(said.contains(&format!("manifest {digest} is now {new}")), "{said}");
        // The configuration, and with it the image's ID, is the same.
        let id = daemon.inspect(&target, "{{.Id}}");
        assert_eq!(skopeo(&["--raw"], &target)["config"]["digest"], Value::from(id.as_str()));
        daemon.with(client, &["rmi", "-f", &id]).ok();
        daemon.with(client, &["pull", "-q", &target]).ok();
        assert_eq!(daemon.inspect(&target, "{{.Id}}"), id);
        runs(daemon, &target, "lost");
    }

    fn a_loaded_image_is_compressed_once_and_all_its_tags_go(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let image = small("loaded");
        let archive = files::write(daemon.root.path(), "l.tar", &image.docker_archive(&format!("{ADDRESS}/l:one")));
        daemon.berth(&["load", "-q", "-i", &archive]).ok();
        daemon.with(client, &["tag", &format!("{ADDRESS}/l:one"), &format!("{ADDRESS}/l:two")]).ok();
        let said = daemon.with(client, &["push", "--all-tags", &format!("{ADDRESS}/l")]).ok();
        assert!(said.contains("one: digest: ") && said.contains("two: digest: "), "{said}");
        let one = manifest_digest(&format!("{ADDRESS}/l:one"));
        assert_eq!(one, manifest_digest(&format!("{ADDRESS}/l:two")));
        let manifest = skopeo(&["--raw"], &format!("{ADDRESS}/l:one"));
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(layer["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        }
        let quiet = daemon.with(client, &["push", "-q", &format!("{ADDRESS}/l:one")]).ok();
        assert_eq!(quiet, format!("{ADDRESS}/l:one"));
        daemon.with(client, &["rmi", &format!("{ADDRESS}/l:one"), &format!("{ADDRESS}/l:two")]).ok();
        daemon.with(client, &["pull", "-q", &format!("{ADDRESS}/l@{one}")]).ok();
        runs(daemon, &format!("{ADDRESS}/l@{one}"), "loaded");
    }

    fn what_is_not_there_is_refused_in_the_words_of_docker(daemon: &Daemon, client: Client) {
        let _registry = Registry::start(daemon.root.path());
        let refused = |arguments: &[&str], text: &str| drop(daemon.with(client, arguments).fails(1, text));
        refused(
            &["push", &format!("{ADDRESS}/none")],
            &format!("An image does not exist locally with the tag: {ADDRESS}/none"),
        );
        daemon.with(client, &["tag", "busybox", &format!("{ADDRESS}/b:1")]).ok();
        refused(&["push", &format!("{ADDRESS}/b:2")], &format!("tag does not exist: {ADDRESS}/b:2"));
        refused(&["push", "-a", &format!("{ADDRESS}/b:1")], "tag can't be used with --all-tags/-a");
        daemon.with(client, &["tag", "busybox", "127.0.0.1:5999/b:1"]).ok();
        refused(&["push", "127.0.0.1:5999/b:1"], "refused");
    }

    fn looks_at_registries_tell_what_is_there(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        let digest = publish(daemon, &registry, &small("look"), "look:1");
        // Neither client has a command for it that works without buildx or experiments.
        assert_eq!(daemon.with(client, &["images", "-q", "look"]).ok(), "");
        let (code, found) = api::ask(daemon, &format!("/distribution/{ADDRESS}/look:1/json"), None);
        assert_eq!((code, found["Descriptor"]["digest"].as_str()), (200, Some(digest.as_str())));
        assert_eq!(found["Descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(found["Platforms"][0]["architecture"], "amd64");
        assert_eq!(api::refused(daemon, "GET", &format!("/distribution/{ADDRESS}/look:2/json")).0, 404);
        assert_eq!(api::refused(daemon, "GET", "/distribution/LOOK/json").0, 400);
    }
}

#[test]
fn a_push_is_told_as_an_event_and_with_a_result_for_programs() {
    let daemon = Daemon::start();
    let _registry = Registry::start(daemon.root.path());
    let name = format!("{ADDRESS}/told:1");
    daemon.berth(&["tag", "busybox", &name]).ok();
    let mut command = Command::new("curl");
    command.args(["-sN", "-X", "POST", "--unix-socket"]).arg(daemon.socket());
    let said = run(command.arg(format!("http://x/v1.44/images/{ADDRESS}/told/push?tag=1"))).ok();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let digest = manifest_digest(&name);
    assert_eq!(
        (last["aux"]["Tag"].as_str(), last["aux"]["Digest"].as_str()),
        (Some("1"), Some(digest.as_str()))
    );
    assert!(last["aux"]["Size"].as_u64() > Some(0) && last["progressDetail"].is_object(), "{last}");
    let until = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1).to_string();
    let events = daemon.with(
        Client::Docker,
        &[
            "events",
            "--since",
            "1",
            "--until",
            &until,
            "--filter",
            "event=push",
            "--format",
            "{{.ID}} {{.Actor.Attributes.name}}",
        ],
    );
    assert_eq!(events.ok(), format!("{name} {ADDRESS}/told"));
}

#[test]
fn a_platform_that_the_image_is_not_for_is_refused() {
    let daemon = Daemon::start();
    let _registry = Registry::start(daemon.root.path());
    let name = format!("{ADDRESS}/p:1");
    daemon.berth(&["tag", "busybox", &name]).ok();
    for client in [Client::Berth, Client::Docker] {
        let push = |platform| daemon.with(client, &["push", "-q", "--platform", platform, &name]);
        push("linux/arm64").fails(1, "does not provide the specified platform");
        push("linux/amd64").ok();
    }
}

#[test]
fn layers_that_left_the_cache_come_from_a_registry_that_wants_an_account() {
    let daemon = Daemon::start();
    let _private = Registry::start_private(daemon.root.path(), SECOND);
    let _public = Registry::start(daemon.root.path());
    let auths = serde_json::json!({"auths": {SECOND: {"auth": "c29tZW9uZTpzZWNyZXQ="}}});
    files::write(daemon.root.path(), "config.json", auths.to_string().as_bytes());
    let image = small("private");
    let archive = files::write(daemon.root.path(), "private.tar", &image.oci_archive("a:1"));
    let source = format!("{SECOND}/a:1");
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds"]);
    command.args(["someone:secret", &format!("oci-archive:{archive}"), &format!("docker://{source}")]);
    run(&mut command).ok();
    daemon.berth(&["pull", "-q", &source]).ok();
    let digest = daemon.inspect(&source, "{{index .RepoDigests 0}}");
    let (_, digest) = digest.split_once('@').unwrap();
    assert_eq!(empty_cache(&daemon, &image), 2, "the layers were in the cache");
    let target = format!("{ADDRESS}/b:1");
    daemon.berth(&["tag", &source, &target]).ok();
    let said = daemon.berth(&["push", &target]).ok();
    assert!(said.contains(digest) && !said.contains("compressed anew"), "{said}");
    assert_eq!(manifest_digest(&target), digest);
    assert!(!daemon.log().contains("secret"), "{}", daemon.log());
}
