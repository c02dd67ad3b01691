//! `save`: archives of images, and that nothing is lost on the way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::awkward;
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer, digest};
use crate::output::{eventually, run};
use crate::prune::api;
use crate::registry::{ADDRESS, Registry};
use crate::terminal::Terminal;

/// The files of an archive; none comes twice.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(found.insert(name.clone(), content).is_none(), "{name} comes twice");
    }
    for (name, content) in &found {
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(digest(content), format!("sha256:{hex}"));
        }
    }
    found
}

fn json_of(contents: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&contents[name]).unwrap()
}

fn place(digest: &str) -> String {
    format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
}

fn load(daemon: &Daemon, name: &str, archive: &[u8]) {
    let path = files::write(daemon.root.path(), name, archive);
    daemon.berth(&["load", "-q", "-i", &path]).ok();
}

with_both_clients! {
    fn an_awkward_image_survives_load_save_and_load(daemon: &Daemon, client: Client) {
        let image = awkward::image();
        load(daemon, "a.tar", &image.docker_archive("awkward:v1"));
        let listing = daemon.berth(&["run", "--rm", "awkward:v1", "sh", "-c", awkward::LISTING]).ok();
        let (one, two) = (daemon.root.path().join("one.tar"), daemon.root.path().join("two.tar"));
        daemon.with(client, &["save", "-o", one.to_str().unwrap(), "awkward:v1"]).ok();
        let saved = contents(&one);
        for layer in &image.layers {
            assert!(saved[&place(&digest(layer))] == *layer, "a layer changed");
        }
        assert_eq!(saved[&place(&digest(&image.config_bytes()))], image.config_bytes());
        daemon.with(client, &["rmi", "awkward:v1"]).ok();
        let text = daemon.with(client, &["load", "-i", one.to_str().unwrap()]).ok();
        assert!(text.contains("Loaded image: awkward:v1"), "{text}");
        assert_eq!(daemon.berth(&["run", "--rm", "awkward:v1", "sh", "-c", awkward::LISTING]).ok(), listing);
        daemon.with(client, &["save", "-o", two.to_str().unwrap(), "awkward:v1"]).ok();
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "the same image gives the same bytes");
    }

    fn the_documents_are_those_of_docker_and_of_a_layout(daemon: &Daemon, client: Client) {
        let bigger = {
            let mut layers = files::busybox().layers;
            layers.push(Layer::new().file("extra", 0o644, "x").bytes());
            Image { layers, config: files::busybox().config }
        };
        load(daemon, "b.tar", &bigger.docker_archive("team/bigger:v2"));
        daemon.berth(&["tag", "busybox", "busybox:other"]).ok();
        let id = daemon.berth(&["image", "inspect", "--format", "{{.Id}}", "busybox:other"]).ok();
        let path = daemon.root.path().join("all.tar");
        daemon.with(client, &["save", "-o", path.to_str().unwrap(), "busybox", "team/bigger:v2", &id]).ok();
        let saved = contents(&path);
        assert_eq!(json_of(&saved, "oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
        let (base, top) = (digest(&bigger.layers[0]), digest(&bigger.layers[1]));
        let manifest = json_of(&saved, "manifest.json");
        assert_eq!(manifest[0]["RepoTags"], json!(["busybox:latest", "busybox:other"]), "all tags of a repository");
        assert_eq!(manifest[0]["Config"], json!(place(&id)));
        assert_eq!(manifest[0]["Layers"], json!([place(&base)]));
        assert_eq!(manifest[1]["RepoTags"], json!(["team/bigger:v2"]));
        assert_eq!(manifest[1]["Layers"], json!([place(&base), place(&top)]));
        assert_eq!(manifest[1]["LayerSources"][&top]["size"], json!(bigger.layers[1].len()));
        assert_eq!(manifest.as_array().unwrap().len(), 2);
        let hex = |digest: &str| digest[7..].to_owned();
        assert_eq!(json_of(&saved, "repositories"), json!({
            "busybox": {"latest": hex(&base), "other": hex(&base)}, "team/bigger": {"v2": hex(&top)},
        }));
        let index = json_of(&saved, "index.json");
        let names: Vec<&str> = index["manifests"].as_array().unwrap().iter()
            .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap()).collect();
        assert_eq!(names, ["docker.io/library/busybox:latest", "docker.io/library/busybox:other", "docker.io/team/bigger:v2"]);
        assert_eq!(index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"], "other");
        let document = json_of(&saved, &place(index["manifests"][2]["digest"].as_str().unwrap()));
        assert_eq!(document["layers"][1]["digest"], json!(top));
        assert_eq!(document["config"]["size"], json!(bigger.config_bytes().len()));
    }

    fn an_image_without_a_name_is_saved_by_its_id(daemon: &Daemon, client: Client) {
        let id = daemon.berth(&["images", "-q", "--no-trunc"]).ok();
        let output = run(Command::new("sh").arg("-c").arg("\"$0\" \"$@\" > out.tar").current_dir(daemon.root.path())
            .arg(daemon.client(client, &[""]).get_program()).args(words(daemon, client, &["save", &id[7..19]])));
        output.ok();
        let saved = contents(&daemon.root.path().join("out.tar"));
        assert_eq!(json_of(&saved, "manifest.json")[0]["RepoTags"], Value::Null);
        assert!(!saved.contains_key("repositories"));
        assert_eq!(json_of(&saved, "index.json")["manifests"][0].get("annotations"), None);
        daemon.berth(&["rmi", "-f", &id]).ok();
        let path = daemon.root.path().join("out.tar");
        let text = daemon.with(client, &["load", "-i", path.to_str().unwrap()]).ok();
        assert!(text.contains(&format!("Loaded image ID: {id}")), "{text}");
    }

    fn what_cannot_be_saved_leaves_the_file_as_it_was(daemon: &Daemon, client: Client) {
        let path = files::write(daemon.root.path(), "old.tar", b"old");
        daemon.with(client, &["save", "-o", &path, "busybox", "absent:v1"]).fails(1, "No such image: absent:v1");
        daemon.with(client, &["save", "-o", &path, "absent"]).fails(1, "No such image: absent");
        daemon.with(client, &["save", "-o", "/absent/x.tar", "busybox"]).fails(1, "invalid output path");
        let folder = daemon.root.path().to_str().unwrap();
        daemon.with(client, &["save", "-o", folder, "busybox"]).fails(1, "directory");
        daemon.with(client, &["save", "--platform", "linux/s390x", "-o", &path, "busybox"])
            .fails(1, "no suitable export target found for platform linux/s390x");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        daemon.with(client, &["save", "--platform", "linux/amd64", "-o", &path, "busybox"]).ok();
        assert!(contents(Path::new(&path)).contains_key("index.json"));
        let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().contains("old.tar")).collect();
        assert_eq!(left, ["old.tar"], "nothing lies beside it");
    }

    fn no_archive_goes_to_a_terminal(daemon: &Daemon, client: Client) {
        let mut terminal = Terminal::run(daemon.client(client, &["save", "busybox"]));
        terminal.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }

    fn a_pulled_image_keeps_its_manifest(daemon: &Daemon, client: Client) {
        let registry = Registry::start(daemon.root.path());
        let archive = files::write(daemon.root.path(), "l.tar", &files::layered().oci_archive("layered:v1"));
        registry.push("oci-archive", &archive, "team/layered:v1");
        // A layer that is there already is not brought.
        daemon.berth(&["rmi", "busybox"]).ok();
        let name = format!("{ADDRESS}/team/layered:v1");
        daemon.berth(&["pull", "-q", &name]).ok();
        let pulled = daemon.berth(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &name]).ok();
        let pulled = pulled.split_once('@').unwrap().1.to_owned();
        let path = daemon.root.path().join("saved.tar");
        let save = || {
            daemon.with(client, &["save", "-o", path.to_str().unwrap(), &name]).ok();
            contents(&path)
        };
        let entry = |saved: &BTreeMap<String, Vec<u8>>| json_of(saved, "index.json")["manifests"][0]["digest"].clone();
        let whole = save();
        assert_eq!(entry(&whole), json!(pulled));
        // The compressed layers go: they are only a cache.
        let manifest = json_of(&whole, &place(&pulled));
        for layer in manifest["layers"].as_array().unwrap() {
            let hex = &layer["digest"].as_str().unwrap()[7..];
            fs::remove_file(daemon.data_root().join("blobs/sha256").join(hex)).unwrap();
        }
        let plain = save();
        assert_ne!(entry(&plain), json!(pulled));
        for layer in files::layered().layers {
            assert!(plain[&place(&digest(&layer))] == layer);
        }
    }
}

/// The arguments of a client's command line.
fn words(daemon: &Daemon, client: Client, arguments: &[&str]) -> Vec<std::ffi::OsString> {
    daemon.client(client, arguments).get_args().map(Into::into).collect()
}

#[test]
fn other_tools_read_it() {
    let daemon = Daemon::start();
    load(&daemon, "a.tar", &awkward::image().docker_archive("awkward:v1"));
    let path = daemon.root.path().join("saved.tar");
    daemon.berth(&["image", "save", "-o", path.to_str().unwrap(), "awkward:v1"]).ok();
    let expected: Vec<String> = awkward::image().layers.iter().map(|layer| digest(layer)).collect();
    for (number, kind) in ["docker-archive", "oci-archive"].into_iter().enumerate() {
        let source = format!("{kind}:{}", path.display());
        let text = run(Command::new("skopeo").args(["inspect", &source])).ok();
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["Layers"], json!(expected), "{kind}");
        let copy = daemon.root.path().join(format!("copy{number}.tar"));
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", &source]);
        run(command.arg(format!("docker-archive:{}:again:v{number}", copy.display()))).ok();
        daemon.berth(&["load", "-q", "-i", copy.to_str().unwrap()]).ok();
        let id = daemon.berth(&["image", "inspect", "--format", "{{.Id}}", &format!("again:v{number}")]).ok();
        assert_eq!(id, digest(&awkward::image().config_bytes()), "{kind}");
    }
}

#[test]
fn saving_is_told_and_described() {
    let daemon = Daemon::start();
    let id = daemon.berth(&["images", "-q", "--no-trunc"]).ok();
    let path = daemon.root.path().join("saved.tar");
    daemon.berth(&["save", "-o", path.to_str().unwrap(), "busybox"]).ok();
    let told = daemon.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "event=save"]).ok();
    assert!(told.contains(&format!("image save {id}")), "{told}");
    let entry = json_of(&contents(&path), "index.json")["manifests"][0].clone();
    let container = daemon.berth(&["create", "busybox"]).ok();
    for path in [format!("/v1.48/containers/{container}/json"), "/v1.48/containers/json?all=1".into()] {
        let (_, text) = api(&daemon, "GET", &path);
        let mut value: Value = serde_json::from_str(&text).unwrap();
        if value.is_array() {
            value = value[0].take();
        }
        let descriptor = &value["ImageManifestDescriptor"];
        assert_eq!(descriptor["digest"], entry["digest"]);
        assert_eq!(descriptor["platform"], json!({"architecture": "amd64", "os": "linux"}));
        let (_, old) = api(&daemon, "GET", &path.replace("1.48", "1.47"));
        assert!(!old.contains("ImageManifestDescriptor"), "{old}");
    }
    assert_eq!(api(&daemon, "GET", "/images/get").0, 400);
    assert_eq!(api(&daemon, "GET", "/images/absent/get").0, 404);
}

/// An image with a file of `size` bytes that nothing compresses or repeats.
fn large(size: usize) -> Image {
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(size).collect();
    Image::new(vec![Layer::new().file("noise", 0o644, noise)])
}

#[test]
fn an_image_that_is_removed_meanwhile_is_saved_whole() {
    let daemon = Daemon::empty(&[]);
    let image = large(32 << 20);
    load(&daemon, "l.tar", &image.docker_archive("large:v1"));
    let mut save = daemon.client(Client::Berth, &["save", "large:v1"]);
    let mut save = save.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = save.stdout.take().unwrap();
    // The rest does not fit into any buffer between here and the daemon.
    let mut bytes = vec![0; 4096];
    out.read_exact(&mut bytes).unwrap();
    daemon.berth(&["rmi", "large:v1"]).ok();
    assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "");
    out.read_to_end(&mut bytes).unwrap();
    assert!(save.wait().unwrap().success());
    let path = daemon.root.path().join("saved.tar");
    fs::write(&path, bytes).unwrap();
    assert!(contents(&path)[&place(&digest(&image.layers[0]))] == image.layers[0]);
    // A new image makes the daemon look for what nothing holds any more.
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon.berth(&["rmi", "busybox"]).ok();
    eventually("the layers are gone", || {
        let layers = fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
        (layers.filter(|layer| layer.file_name() != "empty").count() == 0).then_some(())
    });
}

#[test]
fn a_client_that_goes_ends_it() {
    let daemon = Daemon::empty(&[]);
    load(&daemon, "l.tar", &large(32 << 20).docker_archive("large:v1"));
    let mut save = daemon.client(Client::Docker, &["save", "large:v1"]);
    let mut save = save.stdout(Stdio::piped()).spawn().unwrap();
    save.stdout.take().unwrap().read_exact(&mut [0; 4096]).unwrap();
    save.kill().unwrap();
    save.wait().unwrap();
    eventually("the daemon gives up", || daemon.log().contains("saving images ended early").then_some(()));
    let told = daemon.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "event=save"]).ok();
    assert_eq!(told, "");
}

#[test]
fn a_damaged_layer_is_never_sent_as_a_whole_archive() {
    let daemon = Daemon::empty(&[]);
    load(&daemon, "l.tar", &large(1 << 20).docker_archive("large:v1"));
    let layer = fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
    let file = layer.map(|layer| layer.path().join("fs/noise")).find(|path| path.exists()).unwrap();
    let mut content = fs::read(&file).unwrap();
    content[1000] ^= 1;
    fs::write(&file, content).unwrap();
    let path = daemon.root.path().join("saved.tar");
    for client in [Client::Berth, Client::Docker] {
        let output = daemon.with(client, &["save", "-o", path.to_str().unwrap(), "large:v1"]);
        assert_ne!(output.code, 0, "{output:?}");
        match client {
            Client::Berth => assert!(!path.exists()),
            // The stock client leaves what has come, which lacks its end.
            Client::Docker => {
                daemon.berth(&["load", "-q", "-i", path.to_str().unwrap()]).fails(1, "");
            }
        }
    }
    assert!(daemon.log().contains("has digest"), "{}", daemon.log());
}

#[test]
fn memory_does_not_grow_with_the_image() {
    let daemon = Daemon::empty(&[]);
    let size = 96 << 20;
    load(&daemon, "l.tar", &large(size).docker_archive("large:v1"));
    let status = || fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let figure = |name: &str| -> u64 {
        let line = status().lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The highest figure so far is forgotten.
    fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
    let before = figure("VmRSS:");
    let path = daemon.root.path().join("saved.tar");
    daemon.berth(&["save", "-o", path.to_str().unwrap(), "large:v1"]).ok();
    assert!(fs::metadata(&path).unwrap().len() > size as u64);
    let after = figure("VmHWM:");
    assert!(after < before + (8 << 10), "{before} kB before, {after} kB at most");
}
